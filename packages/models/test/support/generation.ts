/** Configurations of small models with room for some two hundred tokens, whose likeliest tokens are far from the others. */

const VOCABULARY = { vocab_size: 29, initializer_range: 0.5 };

/** For models of the form of Llama's. */
export const SMALL = {
  ...VOCABULARY,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 200,
};

export const SMALL_GPT2 = {
  ...VOCABULARY,
  model_type: "gpt2",
  n_embd: 12,
  n_layer: 2,
  n_head: 3,
  n_positions: 200,
};
