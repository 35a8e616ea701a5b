/** The configs of well-known models, by name, for counting parameters without a download. */
import { configFrom, type DecoderConfig } from "./config.ts";

const PRESETS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "llama-2-7b": {
    model_type: "llama",
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    torch_dtype: "float16",
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "tinyllama-1.1b": {
    model_type: "llama",
    vocab_size: 32_000,
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    torch_dtype: "bfloat16",
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "phi-3-mini": {
    model_type: "phi3",
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    max_position_embeddings: 4096,
    sliding_window: 2047,
    rms_norm_eps: 1e-5,
    torch_dtype: "bfloat16",
    bos_token_id: 1,
    eos_token_id: 32_000,
    pad_token_id: 32_000,
  },
  "gemma-2-2b": {
    model_type: "gemma2",
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    max_position_embeddings: 8192,
    sliding_window: 4096,
    torch_dtype: "bfloat16",
    bos_token_id: 2,
    eos_token_id: 1,
    pad_token_id: 0,
  },
  "olmo-2-1b": {
    model_type: "olmo2",
    vocab_size: 100_352,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 16,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-6,
    rope_theta: 500_000,
    torch_dtype: "float32",
    eos_token_id: 100_257,
    pad_token_id: 100_277,
  },
  "gpt-2b-001": {
    model_type: "nemo_gpt",
    vocab_size: 256_000,
    hidden_size: 2048,
    intermediate_size: 5440,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    max_position_embeddings: 4096,
    norm_eps: 1e-5,
    torch_dtype: "bfloat16",
  },
};

/** The names that `preset` knows. */
export const PRESET_NAMES: readonly string[] = Object.keys(PRESETS);

/** The config of a preset, by its name in upper or lower case; undefined if there is no such preset. */
export function preset(name: string): DecoderConfig | undefined {
  const known = PRESET_NAMES.find((one) => one === name.toLowerCase());
  return known === undefined ? undefined : configFrom(PRESETS[known]!, `preset ${known}`);
}
