/** The recipe of the embedded base models: their architectures, their text and their training. */

/** What all shapes have in common. */
const COMMON = {
  initializer_range: 0.05,
  bos_token_id: 1,
  eos_token_id: 2,
  pad_token_id: 0,
  torch_dtype: "float32",
} as const;

const LLAMA = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 96,
  intermediate_size: 192,
  num_hidden_layers: 6,
  num_attention_heads: 6,
  num_key_value_heads: 6,
  vocab_size: 1024,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 1000,
  hidden_act: "silu",
  tie_word_embeddings: true,
  attention_bias: false,
  mlp_bias: false,
  ...COMMON,
} as const;

/** GPT-2's layout: positions are learned, norms are LayerNorm with biases, and the MLP is plain and four times as wide. */
const GPT2 = {
  architectures: ["GPT2LMHeadModel"],
  model_type: "gpt2",
  n_embd: 96,
  n_layer: 6,
  n_head: 6,
  vocab_size: 1024,
  n_positions: 128,
  layer_norm_epsilon: 1e-5,
  activation_function: "gelu_new",
  tie_word_embeddings: true,
  ...COMMON,
} as const;

/** The contents of config.json by shape, and the directory below packages/experiments/assets. Each must stay below 4 MB. */
export const SHAPES = {
  llama: { config: LLAMA, directory: "base" },
  gpt2: { config: GPT2, directory: "base-gpt2" },
} as const;

/** The vocabulary and the longest sequence, which are the same in all shapes, as is the tokenizer. */
export const { vocab_size: VOCAB, max_position_embeddings: POSITIONS } = LLAMA;

/** The contents of generation_config.json. */
export const GENERATION = { bos_token_id: 1, eos_token_id: 2, pad_token_id: 0, do_sample: false } as const;

/** The seeds. Those of texts differ, so that no text is used for two purposes. */
export const SEEDS = { tokenizer: 0, training: 1, validation: 2, weights: 0 } as const;

export const RECIPE = {
  tokenizerDocuments: 20_000,
  /** The number of examples of each task, so that words of the prompts become tokens too. */
  tokenizerExamples: 500,
  steps: 12_000,
  batch: 12,
  length: 96,
  /** The plateau: the rate rises over `warmup` steps, and falls to zero over the last `decay` share (see `learningRate`). */
  lr: 3e-3,
  warmup: 100,
  decay: 0.3,
  betas: [0.9, 0.98],
  weightDecay: 0.05,
  clipNorm: 1,
  validationBatches: 8,
  /** Steps between checkpoints, each with a validation. */
  every: 250,
} as const;

/**
 * Warm-up, plateau, linear decay (Hu et al. 2024, arXiv 2404.06395). The plateau does not depend on the number of steps, so a
 * run that was stopped there can continue to another number of steps.
 */
export function learningRate(steps: number): (step: number) => number {
  const { lr, warmup, decay } = RECIPE;
  const falling = Math.max(1, Math.round(decay * steps));
  return (step) => lr * Math.max(0, Math.min(1, (step + 1) / warmup, (steps - step) / falling));
}
