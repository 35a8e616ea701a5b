/** config.json of models, of every architecture and kind of RoPE scaling. Everything computed from it must be finite. */
import { type Random } from "../random.ts";
import {
  configFrom,
  configToJson,
  countParameters,
  linearSpecs,
  loadConfigFrom,
  type ModelType,
  ropeFrequencies,
} from "@tiedlora/models";
import { memoryFiles } from "@tiedlora/core";
import { sound, type Target, utf8 } from "../target.ts";

type Json = Record<string, unknown>;

const LLAMA: Json = {
  vocab_size: 100,
  hidden_size: 32,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 64,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  bos_token_id: 1,
  eos_token_id: [2, 3],
  pad_token_id: null,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  initializer_range: 0.02,
};

const MODELS: Readonly<Record<ModelType, Json>> = {
  gpt2: {
    vocab_size: 100,
    n_embd: 32,
    n_layer: 4,
    n_head: 4,
    n_positions: 128,
    layer_norm_epsilon: 1e-5,
    activation_function: "gelu_new",
    scale_attn_by_inverse_layer_idx: false,
    scale_attn_weights: true,
  },
  llama: { ...LLAMA, attention_bias: false, mlp_bias: true },
  mistral: { ...LLAMA, sliding_window: 64 },
  qwen2: { ...LLAMA, use_sliding_window: true, sliding_window: 64, max_window_layers: 2 },
  qwen3: { ...LLAMA, head_dim: 16, layer_types: Array(4).fill("full_attention") },
  phi3: { ...LLAMA, partial_rotary_factor: 0.75, sliding_window: 64 },
  gemma2: {
    ...LLAMA,
    query_pre_attn_scalar: 16,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
    sliding_window: 64,
  },
  gemma3_text: {
    ...LLAMA,
    query_pre_attn_scalar: 16,
    rope_local_base_freq: 10_000,
    sliding_window_pattern: 3,
    sliding_window: 64,
  },
  qwen3_moe: {
    ...LLAMA,
    num_experts: 4,
    num_experts_per_tok: 2,
    moe_intermediate_size: 16,
    mlp_only_layers: [1],
    norm_topk_prob: true,
  },
  olmoe: { ...LLAMA, num_experts: 4, num_experts_per_tok: 2 },
  olmo2: { ...LLAMA, attention_bias: true },
  smollm3: { ...LLAMA, no_rope_layers: [1, 1, 1, 0], no_rope_layer_interval: 4 },
  nemotron: { ...LLAMA, norm_eps: 1e-5, partial_rotary_factor: 0.5, hidden_act: "relu2" },
  nemo_gpt: { ...LLAMA, rotary_percentage: 0.5, activation: "fast-swiglu" },
};

const ROPES: readonly (Json | null)[] = [
  null,
  { rope_type: "default" },
  { type: "linear", factor: 2 },
  { rope_type: "dynamic", factor: 4 },
  { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 2048 },
  { rope_type: "yarn", factor: 4, original_max_position_embeddings: 1024, beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 0.5 },
]; // prettier-ignore

function configOf(random: Random): Json {
  const type = random.pick(Object.keys(MODELS) as ModelType[]);
  const base = { model_type: type, architectures: ["LlamaForCausalLM"], ...MODELS[type] };
  if (type === "gpt2") return base;
  const rope = random.pick(type === "phi3" ? ROPES.slice(0, 2) : ROPES); // the others are not Phi-3's
  if (random.chance(0.5)) return { ...base, rope_theta: 10_000, rope_scaling: rope };
  return { ...base, rope_parameters: { rope_theta: 500_000, ...rope } };
}

export function configs(): Target {
  return {
    seed: (random) => new Map([["config.json", utf8(JSON.stringify(configOf(random)))]]),
    async read(files) {
      const config = await loadConfigFrom(memoryFiles(files));
      const { rope, localRope, experts: _experts, attentionScales, raw: _raw, ...sizes } = config;
      for (const [name, value] of Object.entries({ ...sizes, scales: attentionScales }))
        for (const one of [value].flat())
          sound(typeof one !== "number" || Number.isFinite(one), `${name} is ${JSON.stringify(one)}`);
      sound(
        attentionScales.every((scale) => scale > 0),
        `attention is scaled by ${attentionScales.join()}`,
      );
      const parameters = countParameters(config);
      sound(Number.isSafeInteger(parameters) && parameters > 0, `it has ${parameters} parameters`);
      for (const { path, in: width, out } of linearSpecs(config))
        sound(width > 0 && out > 0, `${path} is ${out} by ${width}`);
      const ropes = [rope, localRope].filter((one) => one !== null);
      for (const [one, length] of ropes.flatMap((one) => [1, 5000, 2 ** 20].map((n) => [one, n] as const))) {
        const { perPosition, attentionFactor } = ropeFrequencies(one, length);
        const angles = [...perPosition].map((f) => f * length);
        sound(
          angles.every((a) => Number.isFinite(a) && a >= 0),
          `positions turn by ${angles.join()}`,
        );
        sound(
          Number.isFinite(Math.fround(attentionFactor)) && Math.fround(attentionFactor) > 0,
          `cosines are scaled by ${attentionFactor}`,
        );
      }
      configFrom(JSON.parse(configToJson(config)) as Json); // a saved config must be readable
    },
    words: ["llama", "gpt2", "yarn", "longrope", "su", "gelu", "float16", "sliding_attention"],
  };
}
