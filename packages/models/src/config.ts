/** A model's config: reads and checks the config.json of transformers v4 or v5, converts it to one form, and writes it back. */
import { FormatError, parseJsonObject } from "@tiedlora/core";
import { ARCHITECTURES, isModelType, type ModelType, type NormKind, type QkNorm } from "./architectures.ts";
import { Fields } from "./fields.ts";
import type { RopeConfig, RopeScaling } from "./rope.ts";

export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu" | "relu2";
/** The precisions that weights are stored in. */
export type StoredDType = "f32" | "f16" | "bf16";

/** Everything that the decoder needs to know. */
export interface DecoderConfig {
  readonly modelType: ModelType;
  /** Rows of the embedding; there may be more than the tokenizer has tokens. */
  readonly vocab: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  readonly layers: number;
  /** Heads of the queries. */
  readonly heads: number;
  /** Heads of keys and values, a divisor of `heads`: query head h uses head floor(h · kvHeads / heads). */
  readonly kvHeads: number;
  /** Width of a head; heads · headDim may differ from `hidden`. */
  readonly headDim: number;
  /** Width of the MLP. */
  readonly intermediate: number;
  /** The number of learned positions or, with rotary positions, of positions seen in training. */
  readonly maxPositions: number;
  readonly norm: NormKind;
  readonly normBias: boolean;
  /** Added to the variance, or to the mean square. */
  readonly normEps: number;
  readonly activation: Activation;
  readonly qkvBias: boolean;
  readonly outBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: QkNorm;
  /** null: learned absolute positions. */
  readonly rope: RopeConfig | null;
  /** Per layer: whether its queries and keys are rotated. */
  readonly ropeLayers: readonly boolean[];
  /** Per layer: the number of positions, up to and including its own, that a query sees; null if it sees all of them. */
  readonly windows: readonly (number | null)[];
  /** Per layer: multiplies queries·keys. */
  readonly attentionScales: readonly number[];
  /** Whether the output embedding is the input embedding. */
  readonly tied: boolean;
  /** The precision that the config states; loading uses the types in the weight file itself. */
  readonly dtype: StoredDType;
  /** Token ids of the beginning and the ends of a text, and of padding. */
  readonly bos: number | null;
  readonly eos: readonly number[];
  readonly pad: number | null;
  /** Standard deviation of new matrices. */
  readonly initializerRange: number;
  /** The fields of the file; saving keeps all that it does not replace. */
  readonly raw: Readonly<Record<string, unknown>>;
}

/** Every layer is expanded into modules, even to count parameters: an absurd number must not exhaust the memory. */
const MAX_LAYERS = 10_000;
/** Sums of sizes are exact far beyond this limit, and no existing model has a tenth of it. */
const MAX_PARAMETERS = 1e14;

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
  relu2: "relu2",
  // NeMo's names for a gated MLP with silu
  swiglu: "silu",
  "fast-swiglu": "silu",
};

const DTYPES: Readonly<Record<string, StoredDType>> = {
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
  float64: "f32",
  auto: "f32",
};

/**
 * Reads a config.json.
 * @throws FormatError that names the field: an unknown model_type, activation, rope type, or anything that the decoder
 * would compute wrongly.
 */
export function parseConfig(text: string, file = "config.json"): DecoderConfig {
  return configFrom(parseJsonObject(text, file), file);
}

/** As `parseConfig`, from parsed JSON. */
export function configFrom(raw: Readonly<Record<string, unknown>>, file = "config.json"): DecoderConfig {
  const f = new Fields(file, raw);
  const modelType = raw["model_type"];
  if (!isModelType(modelType)) {
    return f.fail("model_type", `one of ${Object.keys(ARCHITECTURES).join(", ")}`);
  }
  refuseUnsupported(f);
  const { fields, defaults, norm, normBias, qkNorm, ...arch } = ARCHITECTURES[modelType];
  const flag = (value: boolean | string): boolean =>
    typeof value === "string" ? f.flag(value, false) : value;
  const hidden = f.size(fields.hidden);
  const layers = f.size(fields.layers, undefined, 1, MAX_LAYERS);
  const heads = f.size(fields.heads);
  const kvHeads = headCount(f, heads, defaults.kvHeads);
  const headDim = headDimension(f, hidden, heads, defaults.headDim);
  const maxPositions = f.size(fields.maxPositions, defaults.maxPositions);
  const ropeLayers = layersWithRope(f, layers, arch.noRopeLayers);
  const vocab = f.size(["vocab_size"]);
  const intermediate = f.size(fields.intermediate, arch.linear === "conv1d" ? 4 * hidden : undefined);
  const perLayer = hidden * (2 * headDim * (heads + kvHeads) + 3 * intermediate);
  const parameters = 2 * vocab * hidden + maxPositions * hidden + layers * perLayer;
  if (parameters > MAX_PARAMETERS) throw tooLarge(file, parameters);
  return {
    modelType,
    vocab,
    hidden,
    layers,
    heads,
    kvHeads,
    headDim,
    intermediate,
    maxPositions,
    norm,
    normBias: normBias === "optional" ? f.flag("norm_bias", false) : normBias,
    normEps: f.positive(fields.normEps, defaults.normEps),
    activation: activationOf(f, fields.activation, defaults.activation),
    qkvBias: flag(arch.qkvBias),
    outBias: flag(arch.outBias),
    mlpBias: flag(arch.mlpBias),
    qkNorm,
    rope:
      arch.names.position === null
        ? ropeOf(f, headDim, maxPositions, arch.partialRotary, defaults.theta)
        : null,
    ropeLayers,
    windows: windowsOf(f, layers, arch.window, ropeLayers),
    attentionScales: attentionScales(f, layers, headDim, arch.ownScales),
    tied: tiedOf(f, defaults.tied),
    dtype: dtypeOf(f),
    bos: f.ids("bos_token_id")[0] ?? null,
    eos: f.ids("eos_token_id"),
    pad: f.ids("pad_token_id")[0] ?? null,
    initializerRange: f.positive(["initializer_range", "init_method_std"], 0.02),
    raw,
  };
}

function tooLarge(file: string, parameters: number): FormatError {
  return new FormatError({
    file,
    found: `sizes that make about ${parameters.toExponential(0)} parameters`,
    expected: `at most ${MAX_PARAMETERS.toExponential(0)}`,
    hint: "One of its sizes is wrong.",
  });
}

/** Throws FormatError for fields that would change the computation in a way that the decoder does not support. */
function refuseUnsupported(f: Fields): void {
  if (f.has("quantization_config")) {
    f.fail(
      "quantization_config",
      "no quantisation",
      "Dequantise the model in Python and save it as f16 or bf16.",
    );
  }
  if (f.raw["add_cross_attention"] === true) f.fail("add_cross_attention", "false");
  const classes = f.raw["architectures"];
  const isOther = (name: unknown): boolean => !/(ForCausalLM|LMHeadModel|Model)$/.test(String(name));
  if (Array.isArray(classes) && classes.some(isOther)) f.fail("architectures", "a causal language model");
}

function headCount(f: Fields, heads: number, fallback: number | null): number {
  const name = "num_key_value_heads";
  // null means "as many as heads"; a missing field means the family's default
  const kvHeads = f.raw[name] === null ? heads : f.size([name], fallback ?? heads);
  if (heads % kvHeads !== 0) {
    throw new FormatError({
      file: f.file,
      tensor: name,
      found: String(kvHeads),
      expected: `a divisor of the ${heads} heads`,
    });
  }
  return kvHeads;
}

function headDimension(f: Fields, hidden: number, heads: number, fallback: number | null): number {
  const names = ["head_dim", "kv_channels"];
  if (f.find(names) !== undefined) return f.size(names);
  if (fallback !== null && f.raw["head_dim"] !== null) return fallback;
  if (hidden % heads !== 0) f.fail("head_dim", `a size, since ${heads} heads do not divide ${hidden}`);
  return hidden / heads;
}

function activationOf(f: Fields, names: readonly string[], fallback: string): Activation {
  const name = f.text(names, fallback);
  if (Object.hasOwn(ACTIVATIONS, name)) return ACTIVATIONS[name]!;
  return f.fail(f.find(names) ?? names[0]!, `one of ${Object.keys(ACTIVATIONS).join(", ")}`);
}

function tiedOf(f: Fields, fallback: boolean): boolean {
  const nemo = "share_embeddings_and_output_weights";
  return f.has(nemo) ? f.flag(nemo, fallback) : f.flag("tie_word_embeddings", fallback);
}

function dtypeOf(f: Fields): StoredDType {
  const name = f.find(["dtype", "torch_dtype"]);
  if (name === undefined) return "f32";
  const dtype = f.text([name]).replace(/^torch\./, "");
  return Object.hasOwn(DTYPES, dtype)
    ? DTYPES[dtype]!
    : f.fail(name, `one of ${Object.keys(DTYPES).join(", ")}`);
}

function attentionScales(f: Fields, layers: number, headDim: number, own: boolean): number[] {
  const scale = f.flag("scale_attn_weights", true) ? headDim ** -0.5 : 1;
  const byLayer = f.flag("scale_attn_by_inverse_layer_idx", false);
  // transformers ignores these fields in other architectures: a config that sets them there would not get what it asks for
  const where = "for this architecture: only GPT-2 scales attention otherwise";
  if (!own && byLayer) f.fail("scale_attn_by_inverse_layer_idx", `false ${where}`);
  if (!own && f.raw["scale_attn_weights"] === false) f.fail("scale_attn_weights", `true ${where}`);
  return Array.from({ length: layers }, (_, layer) => (byLayer ? scale / (layer + 1) : scale));
}

/** Which layers have rotary positions. SmolLM3: all but every `no_rope_layer_interval`th, or those with a 1 in `no_rope_layers`. */
function layersWithRope(f: Fields, layers: number, optional: boolean): boolean[] {
  if (!optional) return Array<boolean>(layers).fill(true);
  const list = f.raw["no_rope_layers"];
  if (list !== undefined && list !== null) {
    if (!Array.isArray(list) || list.length < layers)
      f.fail("no_rope_layers", `a list of ${layers} times 0 or 1`);
    return list.slice(0, layers).map(Boolean);
  }
  const interval = f.size(["no_rope_layer_interval"], 4);
  return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
}

function windowsOf(
  f: Fields,
  layers: number,
  kind: "never" | "always" | "upper-layers" | "no-rope-layers",
  ropeLayers: readonly boolean[],
): (number | null)[] {
  const none = Array<null>(layers).fill(null);
  if (kind === "never") return none;
  const enabled = kind === "always" || f.flag("use_sliding_window", false);
  // transformers assumes 4096 where Mistral's and Qwen's configs lack the field; null means "no window"
  const silent = f.raw["sliding_window"] === undefined && kind !== "no-rope-layers";
  if (!enabled || (!silent && !f.has("sliding_window"))) return none;
  const window = f.size(["sliding_window"], 4096);
  const types = layerTypes(f, layers);
  if (types) return types.map((type) => (type === "sliding_attention" ? window : null));
  const first = kind === "upper-layers" ? f.size(["max_window_layers"], 28, 0) : 0;
  return none.map((_, layer) =>
    layer >= first && (kind !== "no-rope-layers" || !ropeLayers[layer]!) ? window : null,
  );
}

function layerTypes(f: Fields, layers: number): string[] | null {
  const list = f.raw["layer_types"];
  if (list === undefined || list === null) return null;
  const known = (type: unknown): boolean => type === "full_attention" || type === "sliding_attention";
  if (!Array.isArray(list) || list.length !== layers || !list.every(known)) {
    f.fail("layer_types", `${layers} times "full_attention" or "sliding_attention"`);
  }
  return list as string[];
}

/** v5 has one object, `rope_parameters`; v4 has `rope_theta` and `rope_scaling`, older files `type` for `rope_type`. */
function ropeOf(
  f: Fields,
  headDim: number,
  maxPositions: number,
  partial: number | null,
  theta: number,
): RopeConfig {
  const v5 = f.has("rope_parameters") ? f.object("rope_parameters") : null;
  const scaled = v5 ?? (f.has("rope_scaling") ? f.object("rope_scaling") : null);
  const partialNames = ["partial_rotary_factor", "rotary_percentage", "rope_percentage"];
  const holder = v5?.find(partialNames) === undefined ? f : v5;
  const fraction = holder.positive(partialNames, partial ?? 1);
  const dim = Math.floor(headDim * fraction);
  if (fraction > 1 || dim < 2 || dim % 2 !== 0 || (partial === null && fraction !== 1)) {
    const name = holder.find(partialNames);
    if (name === undefined) f.fail("head_dim", "an even size, for rotary positions");
    holder.fail(
      name,
      partial === null ? "1 for this architecture" : `a fraction that rotates an even part of ${headDim}`,
    );
  }
  const base = thetaOf(v5?.has("rope_theta") ? v5 : f, theta);
  const scaling: RopeScaling = scaled ? scalingOf(scaled, f, dim, maxPositions) : { type: "default" };
  if (scaling.type === "yarn" && base === 1)
    scaled?.fail("rope_type", "another type: yarn needs a rope_theta above 1");
  return { theta: base, dim, scaling };
}

function thetaOf(f: Fields, fallback: number): number {
  const names = ["rope_theta", "rotary_base"];
  const theta = f.positive(names, fallback);
  return theta >= 1 ? theta : f.fail(f.find(names)!, "a number from 1 on");
}

function scalingOf(s: Fields, f: Fields, dim: number, maxPositions: number): RopeScaling {
  const type = s.text(["rope_type", "type"], s.has("factor") ? undefined : "default");
  const originalName = "original_max_position_embeddings";
  // Phi's files have the field outside of the object; without it, the context was not extended.
  const original = (s.has(originalName) ? s : f).size([originalName], maxPositions);
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return { type, factor: s.positive(["factor"]) };
    case "dynamic":
      if (dim <= 2) s.fail("rope_type", "another type: dynamic needs more than 2 rotated elements");
      return { type, factor: s.positive(["factor"]), original: maxPositions };
    case "llama3": {
      const lowFrequencyFactor = s.positive(["low_freq_factor"]);
      const highFrequencyFactor = s.positive(["high_freq_factor"]);
      if (highFrequencyFactor <= lowFrequencyFactor)
        s.fail("high_freq_factor", `more than ${lowFrequencyFactor}`);
      return {
        type,
        factor: s.positive(["factor"]),
        lowFrequencyFactor,
        highFrequencyFactor,
        original,
      };
    }
    case "yarn":
      return yarnOf(s, original, maxPositions);
    case "longrope":
    case "su":
      return longropeOf(s, dim, original, maxPositions);
    default:
      return s.fail(
        s.find(["rope_type", "type"]) ?? "rope_type",
        "one of default, linear, dynamic, llama3, yarn, longrope",
      );
  }
}

function yarnOf(s: Fields, original: number, maxPositions: number): RopeScaling {
  const factor = s.positive(["factor"], maxPositions / original);
  const mscale = (weight: number): number => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const both = Boolean(s.raw["mscale"]) && Boolean(s.raw["mscale_all_dim"]);
  const suggested = both
    ? mscale(s.positive(["mscale"])) / mscale(s.positive(["mscale_all_dim"]))
    : mscale(1);
  return {
    type: "yarn",
    factor,
    original,
    attentionFactor: s.positive(["attention_factor"], suggested),
    betaFast: s.positive(["beta_fast"], 32),
    betaSlow: s.positive(["beta_slow"], 1),
    truncate: s.flag("truncate", true),
  };
}

function longropeOf(s: Fields, dim: number, original: number, maxPositions: number): RopeScaling {
  const factor = s.positive(["factor"], maxPositions / original);
  if (original === 1) s.fail("original_max_position_embeddings", "more than 1");
  const suggested = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return {
    type: "longrope",
    original,
    attentionFactor: s.positive(["attention_factor"], suggested),
    shortFactor: s.positives("short_factor", dim / 2),
    longFactor: s.positives("long_factor", dim / 2),
  };
}

const TORCH_DTYPES: { readonly [D in StoredDType]: string } = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
};

/** The config as transformers v4 writes it (v5 reads it too): fields of v5 are converted to v4's, all others are kept. */
export function configToJson(config: DecoderConfig): string {
  const { rope_parameters: rope, dtype: _dtype, transformers_version: _version, ...kept } = config.raw;
  const v4: Record<string, unknown> = {
    ...kept,
    architectures: [ARCHITECTURES[config.modelType].className],
    model_type: config.modelType,
    tie_word_embeddings: config.tied,
    torch_dtype: TORCH_DTYPES[config.dtype],
  };
  if (rope !== undefined && rope !== null) {
    const { rope_theta: theta, partial_rotary_factor: partial, ...scaling } = rope as Record<string, unknown>;
    if (theta !== undefined) v4["rope_theta"] = theta;
    if (partial !== undefined) v4["partial_rotary_factor"] = partial;
    v4["rope_scaling"] = (scaling["rope_type"] ?? "default") === "default" ? null : scaling;
  }
  if ("share_embeddings_and_output_weights" in v4) v4["share_embeddings_and_output_weights"] = config.tied;
  return `${JSON.stringify(Object.fromEntries(Object.entries(v4).sort(([a], [b]) => (a < b ? -1 : 1))), null, 2)}\n`;
}
