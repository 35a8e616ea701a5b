/** Small models of every architecture, each with a difference from its neighbors that the decoder has to handle. */
import { type Device, key, normalArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { IDENTITY_WEIGHT } from "../../src/architectures.ts";
import { configFrom } from "../../src/config.ts";
import { Decoder } from "../../src/decoder.ts";
import { parameterSpecs } from "../../src/modules.ts";
import { familyLogits } from "./formulas.ts";
import { naiveLogits, type Weights } from "./naive.ts";

type Raw = Readonly<Record<string, unknown>>;

const SMALL = {
  vocab_size: 23,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};
export const GPT2: Raw = {
  model_type: "gpt2",
  vocab_size: 23,
  n_embd: 12,
  n_layer: 2,
  n_head: 3,
  n_positions: 16,
};
export const LLAMA: Raw = { ...SMALL, model_type: "llama" };
const longrope = { short_factor: [1, 1.1], long_factor: [2, 3], original_max_position_embeddings: 8 };
const llama3 = {
  rope_type: "llama3",
  factor: 4,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 16,
};

/** Limits that the scores and logits of small models reach. */
const TIGHT = { query_pre_attn_scalar: 3, attn_logit_softcapping: 1.5, final_logit_softcapping: 2 };
const PHI_FACTORS = { short_factor: [1, 1.1], long_factor: [2, 3] };

/** Families with formulas of their own (formulas.ts). */
export const FAMILIES: Readonly<Record<string, Raw>> = {
  olmo2: { ...SMALL, model_type: "olmo2" },
  phi3: { ...SMALL, model_type: "phi3", sliding_window: 4 },
  "phi3, partial longrope": {
    ...SMALL,
    model_type: "phi3",
    head_dim: 6,
    partial_rotary_factor: 0.7,
    original_max_position_embeddings: 8,
    rope_scaling: { type: "longrope", ...PHI_FACTORS },
  },
  gemma2: { ...SMALL, model_type: "gemma2", head_dim: 6, sliding_window: 3, ...TIGHT },
  "gemma2, untied, without limits": {
    ...SMALL,
    model_type: "gemma2",
    hidden_size: 12,
    head_dim: 4,
    tie_word_embeddings: false,
    attn_logit_softcapping: null,
    final_logit_softcapping: null,
    sliding_window: 2,
    layer_types: ["full_attention", "sliding_attention", "sliding_attention"],
  },
  gemma3_text: {
    ...SMALL,
    model_type: "gemma3_text",
    head_dim: 6,
    query_pre_attn_scalar: 3,
    sliding_window: 3,
    sliding_window_pattern: 2,
    rope_local_base_freq: 50,
    rope_scaling: { rope_type: "linear", factor: 8 },
  },
  "gemma3_text as transformers 5 has it": {
    ...SMALL,
    model_type: "gemma3_text",
    head_dim: 4,
    sliding_window: 2,
    final_logit_softcapping: 2,
    layer_types: ["full_attention", "sliding_attention", "sliding_attention"],
    rope_parameters: {
      full_attention: { rope_type: "default", rope_theta: 300 },
      sliding_attention: { rope_type: "default", rope_theta: 20 },
    },
  },
  qwen3_moe: {
    ...SMALL,
    model_type: "qwen3_moe",
    num_hidden_layers: 2,
    head_dim: 6,
    num_experts: 5,
    num_experts_per_tok: 2,
    moe_intermediate_size: 7,
    norm_topk_prob: true,
    mlp_only_layers: [1],
  },
  olmoe: { ...SMALL, model_type: "olmoe", num_hidden_layers: 2, num_experts: 4, num_experts_per_tok: 3 },
  "olmo2, biased": { ...SMALL, model_type: "olmo2", attention_bias: true, rope_theta: 500 },
};

export const MODELS: Readonly<Record<string, Raw>> = {
  gpt2: GPT2,
  "gpt2, scaled by layer": { ...GPT2, scale_attn_by_inverse_layer_idx: true, activation_function: "gelu" },
  "gpt2, untied": { ...GPT2, tie_word_embeddings: false, n_inner: 20, activation_function: "relu" },
  llama: LLAMA,
  "llama, tied, biased": { ...LLAMA, tie_word_embeddings: true, attention_bias: true, mlp_bias: true },
  "llama, one head for keys": { ...LLAMA, num_key_value_heads: 1, head_dim: 6 },
  "llama, linear rope": { ...LLAMA, rope_scaling: { type: "linear", factor: 2 } },
  "llama, dynamic rope": {
    ...LLAMA,
    max_position_embeddings: 6,
    rope_scaling: { type: "dynamic", factor: 2 },
  },
  "llama, llama3 rope": { ...LLAMA, rope_scaling: llama3 },
  "llama, yarn rope": {
    ...LLAMA,
    rope_parameters: { rope_type: "yarn", factor: 4, rope_theta: 100, original_max_position_embeddings: 8 },
  },
  "llama, longrope": { ...LLAMA, rope_scaling: { rope_type: "longrope", ...longrope } },
  "mistral, window of 3": { ...SMALL, model_type: "mistral", sliding_window: 3 },
  qwen2: { ...SMALL, model_type: "qwen2" },
  "qwen2, windows above": {
    ...SMALL,
    model_type: "qwen2",
    use_sliding_window: true,
    sliding_window: 2,
    max_window_layers: 1,
  },
  qwen3: { ...SMALL, model_type: "qwen3", head_dim: 6 },
  smollm3: { ...SMALL, model_type: "smollm3", no_rope_layer_interval: 2 },
  nemotron: { ...SMALL, model_type: "nemotron" },
  nemo_gpt: { ...SMALL, model_type: "nemo_gpt", partial_rotary_factor: 0.5, norm_bias: true },
  ...FAMILIES,
};

/** The model with random weights, and the weights as numbers. */
export function randomModel(raw: Raw, device: Device): { model: Decoder; weights: Weights } {
  const config = configFrom(raw);
  const weights = new Map(
    parameterSpecs(config).map(({ path, shape }) => {
      const isNorm = shape.length === 1 && path.endsWith(".weight");
      const mean = isNorm ? IDENTITY_WEIGHT[config.norm] : 0;
      const size = shape.reduce((a, b) => a * b);
      return [path, { shape, values: normalArray(key(7).fold(path), size, mean, isNorm ? 0.2 : 0.3) }];
    }),
  );
  const source = (path: string): nn.Parameter => {
    const { shape, values } = weights.get(path)!;
    return nn.Parameter.from(device, values, shape, "f32", path);
  };
  return { model: new Decoder(config, device, source), weights };
}

/** Two rows of token ids for these models. */
export const IDS: number[][] = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5],
  [22, 0, 7, 11, 13, 17, 19, 2, 8],
];

/** The logits of one sequence by the formulas of the architecture, in float64. */
export function expectedLogits(
  raw: Raw,
  model: Decoder,
  weights: Weights,
  ids: readonly number[],
): number[][] {
  return familyLogits(raw, weights, ids) ?? naiveLogits(model.config, weights, ids);
}
