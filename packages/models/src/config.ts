/** A model's config: reads and checks the config.json of transformers v4 or v5, converts it to one form, and writes it back. */
import { decode, encode, FormatError, parseJsonObject } from "@tiedlora/core";
import {
  type Architecture,
  ARCHITECTURES,
  isModelType,
  type MlpKind,
  type ModelType,
  type NormKind,
  type QkNorm,
} from "./architectures.ts";
import type { Mixture } from "./experts.ts";
import { Fields } from "./fields.ts";
import { mixtureOf } from "./mixture-config.ts";
import { quantizationOf } from "./quantized/settings.ts";
import type { RopeConfig } from "./rope.ts";
import { localRopeOf, ropeOf } from "./rope-config.ts";

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
  readonly mlp: MlpKind;
  /** null: every layer has one MLP. */
  readonly experts: Mixture | null;
  readonly qkvBias: boolean;
  readonly outBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: QkNorm;
  /** null: learned absolute positions. */
  readonly rope: RopeConfig | null;
  /** The rotary positions of layers with a window, if theirs are others; null: the same as in all layers. */
  readonly localRope: RopeConfig | null;
  /** Per layer: whether its queries and keys are rotated. */
  readonly ropeLayers: readonly boolean[];
  /** Per layer: the number of positions, up to and including its own, that a query sees; null if it sees all of them. */
  readonly windows: readonly (number | null)[];
  /** Per layer: multiplies queries·keys. */
  readonly attentionScales: readonly number[];
  /** Limits the scaled scores of attention, and the logits, to ±this, as x -> limit · tanh(x / limit); null: no limit. */
  readonly attentionSoftcap: number | null;
  readonly logitSoftcap: number | null;
  /** Multiplies the embedded tokens: Gemma's √hidden, rounded to the precision of the embedding; otherwise 1. */
  readonly embedScale: number;
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
/** Rotary positions have a frequency for every two numbers of a head. */
const MAX_HEAD_DIM = 65_536;
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
  refuseForeign(f, ARCHITECTURES[modelType]);
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
  const experts = arch.experts && mixtureOf(f, layers, arch.experts);
  const inner = Math.max(intermediate, experts ? experts.count * experts.width : 0);
  const perLayer = hidden * (2 * headDim * (heads + kvHeads) + 3 * inner);
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
    mlp: arch.mlp,
    experts,
    qkvBias: flag(arch.qkvBias),
    outBias: flag(arch.outBias),
    mlpBias: flag(arch.mlpBias),
    qkNorm,
    rope: arch.names.position === null ? ropeOf(f, headDim, maxPositions, arch, defaults.theta) : null,
    localRope: localRopeOf(f, headDim, arch.localTheta),
    ropeLayers,
    windows: windowsOf(f, layers, arch.window, defaults, ropeLayers),
    attentionScales: attentionScales(f, layers, headDim, arch),
    attentionSoftcap: softcapOf(f, "attn_logit_softcapping", arch.softcaps?.attention ?? null),
    logitSoftcap: softcapOf(f, "final_logit_softcapping", arch.softcaps?.logits ?? null),
    embedScale: embedScale(modelType, hidden, dtypeOf(f)),
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
  quantizationOf(f); // throws for kinds that cannot be read
  if (f.raw["add_cross_attention"] === true) f.fail("add_cross_attention", "false");
  const classes = f.raw["architectures"];
  const isOther = (name: unknown): boolean => !/(ForCausalLM|LMHeadModel|Model)$/.test(String(name));
  if (Array.isArray(classes) && classes.some(isOther)) f.fail("architectures", "a causal language model");
}

/** Settings of some architectures that transformers ignores in all others, and which those are. */
const OWN_SETTINGS: Readonly<Record<string, (arch: Architecture) => boolean>> = {
  attn_logit_softcapping: ({ softcaps }) => softcaps !== null,
  final_logit_softcapping: ({ softcaps }) => softcaps !== null,
  query_pre_attn_scalar: ({ queryScalar }) => queryScalar !== null,
  rope_local_base_freq: ({ localTheta }) => localTheta !== null,
  use_bidirectional_attention: () => false,
  clip_qkv: () => false,
  output_router_logits: () => false,
  num_experts: ({ experts }) => experts !== null,
  num_local_experts: ({ experts }) => experts !== null,
};

/** Throws FormatError for settings that the architecture does not have: a config with them would not get what it asks for. */
function refuseForeign(f: Fields, arch: Architecture): void {
  for (const [name, applies] of Object.entries(OWN_SETTINGS))
    if (!applies(arch) && f.has(name) && f.raw[name] !== false && f.raw[name] !== 0)
      f.fail(name, "no such setting for this architecture");
}

function softcapOf(f: Fields, name: string, fallback: number | null): number | null {
  const missing = f.raw[name] === undefined;
  return f.has(name) || (missing && fallback !== null) ? f.positive([name], fallback ?? undefined) : null;
}

/** What multiplies embedded tokens, for embeddings that are stored in the given precision. */
export function embedScale(modelType: ModelType, hidden: number, dtype: StoredDType): number {
  if (!ARCHITECTURES[modelType].scaledEmbedding) return 1;
  return decode(encode(Float32Array.of(Math.sqrt(hidden)), dtype).buffer, dtype, 1)[0]!;
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
  if (f.find(names) !== undefined) return f.size(names, undefined, 1, MAX_HEAD_DIM);
  if (fallback !== null && f.raw["head_dim"] !== null) return fallback;
  if (hidden % heads !== 0) f.fail("head_dim", `a size, since ${heads} heads do not divide ${hidden}`);
  if (hidden / heads > MAX_HEAD_DIM)
    f.fail("num_attention_heads", `enough that a head has at most ${MAX_HEAD_DIM} of ${hidden} numbers`);
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

function attentionScales(
  f: Fields,
  layers: number,
  headDim: number,
  { ownScales: own, queryScalar }: Pick<Architecture, "ownScales" | "queryScalar">,
): number[] {
  const scalar = queryScalar === null ? headDim : f.positive(["query_pre_attn_scalar"], queryScalar);
  const scale = f.flag("scale_attn_weights", true) ? scalar ** -0.5 : 1;
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
  kind: Architecture["window"],
  { window: fallback, pattern }: Architecture["defaults"],
  ropeLayers: readonly boolean[],
): (number | null)[] {
  const none = Array<null>(layers).fill(null);
  if (kind === "never") return none;
  const enabled = kind === "always" || kind === "pattern" || f.flag("use_sliding_window", false);
  // A missing field means the family's default; null means "no window".
  const silent = f.raw["sliding_window"] === undefined;
  if (!enabled || (!f.has("sliding_window") && (!silent || fallback === null))) return none;
  const window = f.size(["sliding_window"], fallback ?? undefined);
  const types = layerTypes(f, layers);
  if (types) return types.map((type) => (type === "sliding_attention" ? window : null));
  if (kind === "pattern") {
    const each = f.size(["sliding_window_pattern", "_sliding_window_pattern"], pattern);
    return none.map((_, layer) => ((layer + 1) % each === 0 ? null : window));
  }
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
    const { full_attention: own, sliding_attention: local } = rope as Record<string, Record<string, unknown>>;
    if (local?.["rope_theta"] !== undefined) v4["rope_local_base_freq"] = local["rope_theta"];
    const {
      rope_theta: theta,
      partial_rotary_factor: partial,
      ...scaling
    } = own ?? (rope as Record<string, unknown>);
    if (theta !== undefined) v4["rope_theta"] = theta;
    if (partial !== undefined) v4["partial_rotary_factor"] = partial;
    v4["rope_scaling"] = (scaling["rope_type"] ?? "default") === "default" ? null : scaling;
  }
  if ("share_embeddings_and_output_weights" in v4) v4["share_embeddings_and_output_weights"] = config.tied;
  return `${JSON.stringify(Object.fromEntries(Object.entries(v4).sort(([a], [b]) => (a < b ? -1 : 1))), null, 2)}\n`;
}
