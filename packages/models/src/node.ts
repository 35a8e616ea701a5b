/**
 * Models and tokenizers in directories on disk, for Node.
 * @module
 */
import { directoryFiles, writeFilesAtomic } from "@tiedlora/core/node";
import type { DecoderConfig } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { loadConfigFrom, loadModelFrom, type LoadOptions } from "./load.ts";
import { loadPretrainedFrom, Pretrained } from "./pretrained.ts";
import type { SaveOptions } from "./save.ts";
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

/**
 * Writes a directory that transformers loads. All files are complete on disk before the first is visible.
 * @param options.copyFrom a directory whose tokenizer and generation settings are copied along
 */
export async function saveModel(
  model: Decoder,
  directory: string,
  options: SaveOptions & { readonly copyFrom?: string } = {},
): Promise<void> {
  const { copyFrom, ...rest } = options;
  const source = copyFrom === undefined ? {} : { copyFrom: await directoryFiles(copyFrom) };
  const { files, stale } = await model.directoryFiles({ ...rest, ...source });
  await writeFilesAtomic(directory, files, stale);
}
