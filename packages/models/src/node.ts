/**
 * Models and tokenizers in directories on disk, for Node.
 * @module
 */
import { directoryFiles, writeFilesAtomic } from "@tiedlora/core/node";
import { readText } from "@tiedlora/core";
import type { DecoderConfig } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { loadConfigFrom, loadModelFrom, type LoadOptions } from "./load.ts";
import { loadPretrainedFrom, Pretrained } from "./pretrained.ts";
import { INDEX_FILE, modelFiles, type OutputFile, type SaveOptions, SINGLE_FILE } from "./save.ts";
import { loadTokenizerFrom, type Tokenizer } from "./tokenizer.ts";

/** Loads the model of a Hugging Face directory; see `loadModelFrom`. */
export async function loadModel(directory: string, options: LoadOptions): Promise<Decoder> {
  return loadModelFrom(await directoryFiles(directory), options);
}

/** Loads the model and the tokenizer of a Hugging Face directory. */
export async function loadPretrained(directory: string, options: LoadOptions): Promise<Pretrained> {
  return loadPretrainedFrom(await directoryFiles(directory), options);
}

/** The config of a Hugging Face directory; no weights are read. */
export async function loadConfig(directory: string): Promise<DecoderConfig> {
  return loadConfigFrom(await directoryFiles(directory));
}

/** The tokenizer of a Hugging Face directory. */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  return loadTokenizerFrom(await directoryFiles(directory));
}

export { Pretrained };

/** What a model directory holds beside weights and config. */
const COMPANIONS = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "generation_config.json",
  "vocab.json",
  "merges.txt",
];

/**
 * Writes a directory that transformers loads. All files are complete on disk before the first is visible.
 * @param options.copyFrom a directory whose tokenizer and generation settings are copied along
 */
export async function saveModel(
  model: Decoder,
  directory: string,
  options: SaveOptions & { readonly copyFrom?: string } = {},
): Promise<void> {
  const companions: OutputFile[] = [];
  if (options.copyFrom !== undefined) {
    const source = await directoryFiles(options.copyFrom);
    for (const name of COMPANIONS) {
      const text = await readText(source, name);
      if (text !== null) companions.push([name, text]);
    }
  }
  const files = modelFiles(model, options);
  // A reader takes the single file before an index: the one that an earlier save has left would be read instead.
  const stale = files.some(([name]) => name === INDEX_FILE) ? SINGLE_FILE : INDEX_FILE;
  await writeFilesAtomic(directory, [...companions, ...files], [stale]);
}
