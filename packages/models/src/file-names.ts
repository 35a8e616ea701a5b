/** The names of the files in a Hugging Face model directory. */

export const INDEX_FILE = "model.safetensors.index.json";
export const SINGLE_FILE = "model.safetensors";

/** The files of a model directory besides weights and config. */
export const COMPANIONS: readonly string[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "generation_config.json",
  "vocab.json",
  "merges.txt",
];
