/**
 * The logits of newer families as plain loops in float64, each from its own definition. Independent of the code under test:
 * a function reads the raw config and the tensors by the names that files have, and knows nothing of the table of
 * architectures.
 */
import type { Weights } from "./naive.ts";

type Raw = Readonly<Record<string, unknown>>;
type Vector = number[];

const dot = (a: Vector, b: Vector): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const add = (a: Vector, b: Vector): Vector => a.map((x, i) => x + b[i]!);
const silu = (x: number): number => x / (1 + Math.exp(-x));

/** A number of the config. */
function size(raw: Raw, name: string, fallback?: number): number {
  const value = raw[name] ?? fallback;
  if (typeof value !== "number") throw new Error(`${name}: ${JSON.stringify(value)}`);
  return value;
}

/** The tensors of a file, and the products that models make of them. */
class Tensors {
  readonly #weights: Weights;
  constructor(weights: Weights) {
    this.#weights = weights;
  }
  has(name: string): boolean {
    return this.#weights.has(name);
  }
  vector(name: string): Vector {
    return Array.from(this.#weights.get(name)!.values);
  }
  rows(name: string): Vector[] {
    const { shape, values } = this.#weights.get(name)!;
    const [count, width] = shape as [number, number];
    return Array.from({ length: count }, (_, i) => Array.from(values).slice(i * width, (i + 1) * width));
  }
  linear(path: string, xs: readonly Vector[]): Vector[] {
    const rows = this.rows(`${path}.weight`);
    const bias = this.has(`${path}.bias`) ? this.vector(`${path}.bias`) : null;
    return xs.map((x) => rows.map((row, o) => dot(row, x) + (bias?.[o] ?? 0)));
  }
  /** x / rms(x) · (offset + w). */
  rms(path: string, xs: readonly Vector[], eps: number, offset = 0): Vector[] {
    const weight = this.vector(`${path}.weight`);
    return xs.map((x) => {
      const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
      return x.map((v, i) => v * scale * (offset + weight[i]!));
    });
  }
}

/** Consecutive parts of each vector. */
function cut(xs: readonly Vector[], widths: readonly number[]): Vector[][] {
  let at = 0;
  return widths.map((width) => {
    const part = xs.map((x) => x.slice(at, at + width));
    at += width;
    return part;
  });
}

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly scale: number;
  /** The positions that a query sees, its own included. */
  readonly window?: number;
  readonly cap?: number;
  /** Radians per position of each rotated pair, and what multiplies cosines and sines. */
  readonly frequencies: readonly number[];
  readonly factor?: number;
  readonly change?: (head: Vector, which: "q" | "k") => Vector;
}

const inverseFrequencies = (theta: number, width: number): number[] =>
  Array.from({ length: width / 2 }, (_, i) => theta ** ((-2 * i) / width));

function rotate(x: Vector, position: number, { frequencies, factor = 1 }: Heads): Vector {
  const half = frequencies.length;
  return x.map((v, i) => {
    if (i >= 2 * half) return v;
    const angle = position * frequencies[i % half]!;
    const other = i < half ? -x[i + half]! : x[i - half]!;
    return factor * (v * Math.cos(angle) + other * Math.sin(angle));
  });
}

/** Causal attention of queries [t][heads · width] to keys and values [t][kvHeads · width]: [t][heads · width]. */
function attend(q: Vector[], k: Vector[], v: Vector[], a: Heads): Vector[] {
  const head = (x: Vector, h: number): Vector => x.slice(h * a.width, (h + 1) * a.width);
  const turned = (x: Vector, h: number, t: number, which: "q" | "k"): Vector =>
    rotate(a.change ? a.change(head(x, h), which) : head(x, h), t, a);
  return q.map((query, t) =>
    Array.from({ length: a.heads }, (_, h) => {
      const own = Math.floor((h * a.kvHeads) / a.heads);
      const first = Math.max(0, t - (a.window ?? Infinity) + 1);
      const seen = Array.from({ length: t - first + 1 }, (_unused, i) => first + i);
      const scores = seen.map((s) => {
        const score = dot(turned(query, h, t, "q"), turned(k[s]!, own, s, "k")) * a.scale;
        return a.cap === undefined ? score : a.cap * Math.tanh(score / a.cap);
      });
      const top = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - top));
      const total = weights.reduce((x, y) => x + y);
      return Array.from({ length: a.width }, (_unused, d) =>
        seen.reduce((sum, s, i) => sum + (weights[i]! / total) * head(v[s]!, own)[d]!, 0),
      );
    }).flat(),
  );
}

/** down(act(gate x) · up x). */
function gatedMlp(t: Tensors, at: string, xs: Vector[], act: (x: number) => number): Vector[] {
  const [gate, up] = [t.linear(`${at}.gate_proj`, xs), t.linear(`${at}.up_proj`, xs)];
  return t.linear(
    `${at}.down_proj`,
    gate.map((g, i) => g.map((x, j) => act(x) * up[i]![j]!)),
  );
}

function basics(raw: Raw): { layers: number; heads: number; kvHeads: number; hidden: number } {
  const heads = size(raw, "num_attention_heads");
  const kvHeads = size(raw, "num_key_value_heads", heads);
  return { layers: size(raw, "num_hidden_layers"), heads, kvHeads, hidden: size(raw, "hidden_size") };
}

const sum = (xs: readonly Vector[], ys: readonly Vector[]): Vector[] => xs.map((x, i) => add(x, ys[i]!));

type Family = (raw: Raw, t: Tensors, ids: readonly number[]) => Vector[];

/** OLMo 2 (arXiv 2501.00656): norms of queries and keys over the whole projection; norms of what is added, not of what is read. */
const olmo2: Family = (raw, t, ids) => {
  const { layers, heads, kvHeads, hidden } = basics(raw);
  const width = hidden / heads;
  const eps = size(raw, "rms_norm_eps", 1e-5);
  let x = ids.map((id) => t.rows("model.embed_tokens.weight")[id]!);
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const q = t.rms(`${at}.self_attn.q_norm`, t.linear(`${at}.self_attn.q_proj`, x), eps);
    const k = t.rms(`${at}.self_attn.k_norm`, t.linear(`${at}.self_attn.k_proj`, x), eps);
    const v = t.linear(`${at}.self_attn.v_proj`, x);
    const frequencies = inverseFrequencies(size(raw, "rope_theta", 10_000), width);
    const seen = attend(q, k, v, { heads, kvHeads, width, scale: width ** -0.5, frequencies });
    const attended = t.linear(`${at}.self_attn.o_proj`, seen);
    x = sum(x, t.rms(`${at}.post_attention_layernorm`, attended, eps));
    x = sum(x, t.rms(`${at}.post_feedforward_layernorm`, gatedMlp(t, `${at}.mlp`, x, silu), eps));
  }
  return t.linear("lm_head", t.rms("model.norm", x, eps));
};

/** Phi-3 (arXiv 2404.14219): fused projections; the first part of each head is rotated, with LongRoPE's factors. */
const phi3: Family = (raw, t, ids) => {
  const { layers, heads, kvHeads, hidden } = basics(raw);
  const width = size(raw, "head_dim", hidden / heads);
  const eps = size(raw, "rms_norm_eps", 1e-5);
  const rotated = Math.floor(width * size(raw, "partial_rotary_factor", 1));
  const scaling = raw["rope_scaling"] as Record<"short_factor" | "long_factor", number[]> | undefined;
  const original = size(raw, "original_max_position_embeddings", size(raw, "max_position_embeddings"));
  const longer = size(raw, "max_position_embeddings") / original;
  const stretch = scaling?.[ids.length > original ? "long_factor" : "short_factor"];
  const plain = inverseFrequencies(size(raw, "rope_theta", 10_000), rotated);
  const attention: Heads = {
    heads,
    kvHeads,
    width,
    scale: width ** -0.5,
    window: size(raw, "sliding_window", Infinity),
    frequencies: plain.map((f, i) => f / (stretch?.[i] ?? 1)),
    factor: scaling ? Math.sqrt(1 + Math.log(longer) / Math.log(original)) : 1,
  };
  let x = ids.map((id) => t.rows("model.embed_tokens.weight")[id]!);
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const qkv = t.linear(`${at}.self_attn.qkv_proj`, t.rms(`${at}.input_layernorm`, x, eps));
    const [q, k, v] = cut(qkv, [heads * width, kvHeads * width, kvHeads * width]);
    x = sum(x, t.linear(`${at}.self_attn.o_proj`, attend(q!, k!, v!, attention)));
    const inner = size(raw, "intermediate_size");
    const both = t.linear(`${at}.mlp.gate_up_proj`, t.rms(`${at}.post_attention_layernorm`, x, eps));
    const [gate, up] = cut(both, [inner, inner]);
    const product = gate!.map((g, s) => g.map((y, j) => silu(y) * up![s]![j]!));
    x = sum(x, t.linear(`${at}.mlp.down_proj`, product));
  }
  return t.linear("lm_head", t.rms("model.norm", x, eps));
};

const geluTanh = (x: number): number =>
  (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** A limit of the config: the default if the field is missing, none if it is null. */
function limit(raw: Raw, name: string, fallback: number | undefined): number | undefined {
  if (raw[name] === null) return undefined;
  return (raw[name] as number | undefined) ?? fallback;
}

/** Whether the layer has a window: as listed, or every layer but each `pattern`th. */
function isLocal(raw: Raw, layer: number, pattern: number): boolean {
  const types = raw["layer_types"] as string[] | undefined;
  return types === undefined ? (layer + 1) % pattern !== 0 : types[layer] === "sliding_attention";
}

interface Gemma {
  readonly pattern: number;
  readonly caps: { readonly scores?: number; readonly logits?: number };
  /** Radians per position of a layer. */
  readonly frequencies: (width: number, local: boolean) => readonly number[];
  readonly qkNorm: boolean;
}

/** Norms by 1 + w on both sides, √hidden, soft limits, windows in all layers but each `pattern`th. */
function gemma(raw: Raw, t: Tensors, ids: readonly number[], own: Gemma): Vector[] {
  const { layers, heads, kvHeads, hidden } = basics(raw);
  const width = size(raw, "head_dim", 256);
  const eps = size(raw, "rms_norm_eps", 1e-6);
  const norm = (path: string, xs: Vector[]): Vector[] => t.rms(path, xs, eps, 1);
  const scale = Math.fround(Math.sqrt(hidden));
  let x = ids.map((id) => t.rows("model.embed_tokens.weight")[id]!.map((v) => v * scale));
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const cap = limit(raw, "attn_logit_softcapping", own.caps.scores);
    const local = isLocal(raw, i, own.pattern);
    const attention: Heads = {
      heads,
      kvHeads,
      width,
      scale: size(raw, "query_pre_attn_scalar", 256) ** -0.5,
      frequencies: own.frequencies(width, local),
      ...(own.qkNorm && {
        change: (head, which) => norm(`${at}.self_attn.${which}_norm`, [head])[0]!,
      }),
      ...(local && { window: size(raw, "sliding_window", 4096) }),
      ...(cap !== undefined && { cap }),
    };
    const read = norm(`${at}.input_layernorm`, x);
    const [q, k, v] = ["q", "k", "v"].map((name) => t.linear(`${at}.self_attn.${name}_proj`, read));
    const attended = t.linear(`${at}.self_attn.o_proj`, attend(q!, k!, v!, attention));
    x = sum(x, norm(`${at}.post_attention_layernorm`, attended));
    const inner = gatedMlp(t, `${at}.mlp`, norm(`${at}.pre_feedforward_layernorm`, x), geluTanh);
    x = sum(x, norm(`${at}.post_feedforward_layernorm`, inner));
  }
  const cap = limit(raw, "final_logit_softcapping", own.caps.logits);
  const head = t.has("lm_head.weight") ? "lm_head" : "model.embed_tokens";
  const logits = t.linear(head, norm("model.norm", x));
  return cap === undefined ? logits : logits.map((row) => row.map((v) => cap * Math.tanh(v / cap)));
}

/** Gemma 2 (arXiv 2408.00118). */
const gemma2: Family = (raw, t, ids) =>
  gemma(raw, t, ids, {
    pattern: 2,
    caps: { scores: 50, logits: 30 },
    frequencies: (width) => inverseFrequencies(10_000, width),
    qkNorm: false,
  });

/** Gemma 3 (arXiv 2503.19786): layers with a window have a rotary base of their own; the others may be scaled linearly. */
const gemma3: Family = (raw, t, ids) => {
  const v5 = raw["rope_parameters"] as Record<string, Record<string, number>> | undefined;
  const scaling = raw["rope_scaling"] as Record<string, number> | undefined;
  const global = v5?.["full_attention"]?.["rope_theta"] ?? size(raw, "rope_theta", 1e6);
  const nearby = v5?.["sliding_attention"]?.["rope_theta"] ?? size(raw, "rope_local_base_freq", 1e4);
  return gemma(raw, t, ids, {
    pattern: size(raw, "sliding_window_pattern", 6),
    caps: {},
    frequencies: (width, local) =>
      local
        ? inverseFrequencies(nearby, width)
        : inverseFrequencies(global, width).map((f) => f / (scaling?.["factor"] ?? 1)),
    qkNorm: true,
  });
};

/** The outputs of a token's experts, weighted by the softmax over all experts, or over the chosen ones. */
function mixture(raw: Raw, t: Tensors, at: string, xs: Vector[]): Vector[] {
  const scores = t.linear(`${at}.gate`, xs);
  return xs.map((x, s) => {
    const all = scores[s]!.map((score) => Math.exp(score));
    const order = all.map((_, e) => e).sort((a, b) => all[b]! - all[a]!);
    const chosen = order.slice(0, size(raw, "num_experts_per_tok"));
    const among = raw["norm_topk_prob"] === true ? chosen : order;
    const total = among.reduce((part, e) => part + all[e]!, 0);
    return chosen
      .map((e) => gatedMlp(t, `${at}.experts.${e}`, [x], silu)[0]!.map((y) => (y * all[e]!) / total))
      .reduce(add);
  });
}

/** Qwen3's mixture of experts (arXiv 2505.09388): norms of each head of queries and keys; some layers have one MLP. */
const qwen3Moe: Family = (raw, t, ids) => {
  const { layers, heads, kvHeads } = basics(raw);
  const width = size(raw, "head_dim");
  const eps = size(raw, "rms_norm_eps", 1e-6);
  let x = ids.map((id) => t.rows("model.embed_tokens.weight")[id]!);
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const read = t.rms(`${at}.input_layernorm`, x, eps);
    const [q, k, v] = ["q", "k", "v"].map((name) => t.linear(`${at}.self_attn.${name}_proj`, read));
    const frequencies = inverseFrequencies(10_000, width);
    const change: Heads["change"] = (head, which) => t.rms(`${at}.self_attn.${which}_norm`, [head], eps)[0]!;
    const attended = attend(q!, k!, v!, { heads, kvHeads, width, scale: width ** -0.5, frequencies, change });
    x = sum(x, t.linear(`${at}.self_attn.o_proj`, attended));
    const y = t.rms(`${at}.post_attention_layernorm`, x, eps);
    const dense = (raw["mlp_only_layers"] as number[]).includes(i);
    x = sum(x, dense ? gatedMlp(t, `${at}.mlp`, y, silu) : mixture(raw, t, `${at}.mlp`, y));
  }
  return t.linear("lm_head", t.rms("model.norm", x, eps));
};

/** OLMoE (arXiv 2409.02060): norms of queries and keys over the whole projection; experts in every layer. */
const olmoe: Family = (raw, t, ids) => {
  const { layers, heads, kvHeads, hidden } = basics(raw);
  const width = hidden / heads;
  const eps = size(raw, "rms_norm_eps", 1e-5);
  let x = ids.map((id) => t.rows("model.embed_tokens.weight")[id]!);
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    const read = t.rms(`${at}.input_layernorm`, x, eps);
    const q = t.rms(`${at}.self_attn.q_norm`, t.linear(`${at}.self_attn.q_proj`, read), eps);
    const k = t.rms(`${at}.self_attn.k_norm`, t.linear(`${at}.self_attn.k_proj`, read), eps);
    const v = t.linear(`${at}.self_attn.v_proj`, read);
    const frequencies = inverseFrequencies(10_000, width);
    const attended = attend(q, k, v, { heads, kvHeads, width, scale: width ** -0.5, frequencies });
    x = sum(x, t.linear(`${at}.self_attn.o_proj`, attended));
    x = sum(x, mixture(raw, t, `${at}.mlp`, t.rms(`${at}.post_attention_layernorm`, x, eps)));
  }
  return t.linear("lm_head", t.rms("model.norm", x, eps));
};

const FAMILIES: Readonly<Record<string, Family>> = {
  olmo2,
  phi3,
  gemma2,
  gemma3_text: gemma3,
  qwen3_moe: qwen3Moe,
  olmoe,
};

/** Logits [length][vocab] of one sequence; undefined if the family has no formula here. */
export function familyLogits(raw: Raw, weights: Weights, ids: readonly number[]): Vector[] | undefined {
  return FAMILIES[raw["model_type"] as string]?.(raw, new Tensors(weights), ids);
}
