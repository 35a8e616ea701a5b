/** config.json from the metadata of a GGUF file. */
import { FormatError } from "@tiedlora/core";
import { ARCHITECTURES, type ModelType } from "../architectures.ts";
import { ropeFrequencies } from "../rope.ts";
import { conversionOf } from "./architecture.ts";
import type { Metadata } from "./metadata.ts";

/** What the tensors say that the metadata do not. */
export interface Seen {
  readonly file: string;
  /** Rows of the embedding. */
  readonly vocab: number;
  readonly tied: boolean;
  /** Whether queries have a bias. */
  readonly qkvBias: boolean;
  /** What the frequencies of rotary positions are divided by; null if the file does not say. */
  readonly ropeFactors: readonly number[] | null;
  /** The same for short and for long texts, where these differ. */
  readonly longRope: { readonly short: readonly number[]; readonly long: readonly number[] } | null;
  /** The type that most weights have or, if they are quantized, are computed in. */
  readonly dtype: "float32" | "float16" | "bfloat16";
}

/** The fields of config.json. */
export function ggufConfig(m: Metadata, seen: Seen): Record<string, unknown> {
  const { modelType } = conversionOf(m);
  const { className, experts, partialRotary } = ARCHITECTURES[modelType];
  const hidden = m.size(".embedding_length");
  const heads = m.size(".attention.head_count");
  const headDim = m.size(".attention.key_length", hidden / heads);
  if (m.size(".attention.value_length", headDim) !== headDim)
    m.fail(".attention.value_length", `${headDim}, the width of keys`);
  const rotated = m.size(".rope.dimension_count", headDim);
  if (partialRotary === null && rotated !== headDim)
    m.fail(".rope.dimension_count", `${headDim}, all of a head`);
  const maxPositions = m.size(".context_length");
  const theta = m.positive(".rope.freq_base", 10_000);
  const eos = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].map((key) => m.id(key)).filter((id) => id !== null); // prettier-ignore
  return {
    architectures: [className],
    model_type: modelType,
    vocab_size: seen.vocab,
    hidden_size: hidden,
    intermediate_size: m.size(".feed_forward_length"),
    num_hidden_layers: m.size(".block_count"),
    num_attention_heads: heads,
    num_key_value_heads: m.size(".attention.head_count_kv", heads),
    head_dim: headDim,
    ...OWN_FIELDS[modelType]?.(m, { hidden, heads, headDim }),
    ...(partialRotary !== null && { partial_rotary_factor: rotated / headDim }),
    ...(experts !== null && {
      num_experts: m.size(".expert_count"),
      num_experts_per_tok: m.size(".expert_used_count"),
      [experts.width]: m.size(".expert_feed_forward_length", m.size(".feed_forward_length")),
    }),
    max_position_embeddings: maxPositions,
    rms_norm_eps: shortest(m.positive(".attention.layer_norm_rms_epsilon")),
    rope_theta: shortest(theta),
    ...(seen.longRope !== null && {
      original_max_position_embeddings: m.size(".rope.scaling.original_context_length"),
    }),
    rope_scaling: ropeScaling(m, seen, { theta, headDim, maxPositions }),
    attention_bias: seen.qkvBias,
    tie_word_embeddings: seen.tied,
    bos_token_id: m.id("tokenizer.ggml.bos_token_id"),
    eos_token_id: eos.length > 1 ? [...new Set(eos)] : (eos[0] ?? null),
    torch_dtype: seen.dtype,
  };
}

interface Sizes {
  readonly hidden: number;
  readonly heads: number;
  readonly headDim: number;
}

/** Gemma's largest models scale queries by their share of the embedding; llama.cpp knows these by their numbers of layers. */
function gemma(largest: number): (m: Metadata, sizes: Sizes) => Record<string, unknown> {
  return (m, { hidden, heads, headDim }) => ({
    hidden_activation: "gelu_pytorch_tanh",
    query_pre_attn_scalar: m.size(".block_count") === largest ? hidden / heads : headDim,
    sliding_window: m.size(".attention.sliding_window"),
    attn_logit_softcapping: limit(m, ".attn_logit_softcapping"),
    final_logit_softcapping: limit(m, ".final_logit_softcapping"),
  });
}

const limit = (m: Metadata, key: string): number | null =>
  m.get(key) === undefined ? null : shortest(m.positive(key));

const SILU = { hidden_act: "silu" };

/** Fields that not all architectures have. */
const OWN_FIELDS: { readonly [T in ModelType]?: (m: Metadata, sizes: Sizes) => Record<string, unknown> } = {
  llama: () => SILU,
  qwen2: () => SILU,
  qwen3: () => SILU,
  olmo2: () => SILU,
  olmoe: () => ({ ...SILU, norm_topk_prob: false }),
  qwen3_moe: () => ({ ...SILU, norm_topk_prob: true }),
  phi3: (m) => ({ ...SILU, sliding_window: m.get(".attention.sliding_window") === undefined ? null : m.size(".attention.sliding_window") }), // prettier-ignore
  gemma2: gemma(46),
  gemma3_text: gemma(62),
};

/** The shortest decimal number that is the same in f32: 1e-5 for 0.000009999999747378752. */
function shortest(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

interface Rope {
  readonly theta: number;
  readonly headDim: number;
  readonly maxPositions: number;
}

function ropeScaling(m: Metadata, seen: Seen, rope: Rope): Record<string, unknown> | null {
  if (seen.longRope !== null) {
    const attention = m.get(".rope.scaling.attn_factor") === undefined ? {} : { attention_factor: shortest(m.positive(".rope.scaling.attn_factor")) }; // prettier-ignore
    return {
      type: "longrope",
      short_factor: seen.longRope.short,
      long_factor: seen.longRope.long,
      ...attention,
    };
  }
  if (seen.ropeFactors !== null) return factorScaling(seen.ropeFactors, seen.file, rope);
  const type = m.text(".rope.scaling.type", "none");
  if (type === "none") return null;
  const factor = m.positive(".rope.scaling.factor", 1);
  if (type === "linear") return { rope_type: "linear", factor };
  if (type === "yarn")
    return {
      rope_type: "yarn",
      factor,
      original_max_position_embeddings: m.size(".rope.scaling.original_context_length"),
    };
  return m.fail(".rope.scaling.type", "none, linear or yarn");
}

/** Lengths of context that Llama 3 and its relatives were trained on before they were extended. */
const ORIGINAL = 8192;

/** Factors as Llama 3.1 and later have them, or else any, as "longrope" has them. */
function factorScaling(
  factors: readonly number[],
  file: string,
  { theta, headDim, maxPositions }: Rope,
): Record<string, unknown> {
  if (factors.length !== headDim / 2 || !factors.every((f) => f > 0 && Number.isFinite(f)))
    throw new FormatError({
      file,
      tensor: "rope_freqs.weight",
      found: `${factors.length} factors, the least ${Math.min(...factors)}`,
      expected: `${headDim / 2} numbers above 0`,
    });
  const factor = Math.max(...factors);
  const llama3 = { factor, lowFrequencyFactor: 1, highFrequencyFactor: 4, original: ORIGINAL };
  if (factor > 1) {
    const base = ropeFrequencies({ theta, dim: headDim, scaling: { type: "default" } }, 1).perPosition;
    const scaled = ropeFrequencies(
      { theta, dim: headDim, scaling: { type: "llama3", ...llama3 } },
      1,
    ).perPosition;
    const close = factors.every((f, i) => Math.abs((scaled[i]! * f) / base[i]! - 1) < 1e-5);
    if (close)
      return { rope_type: "llama3", factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: ORIGINAL }; // prettier-ignore
  }
  return {
    rope_type: "longrope",
    short_factor: factors,
    long_factor: factors,
    attention_factor: 1,
    original_max_position_embeddings: maxPositions,
  };
}
