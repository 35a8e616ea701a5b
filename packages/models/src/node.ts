/**
 * Models and tokenizers in directories on disk, or on the Hugging Face hub by name, for Node.
 * @module
 */
import { directoryFiles, writeFilesAtomic } from "@tiedlora/core/node";
import type { DecoderConfig } from "./config.ts";
import type { Decoder } from "./decoder.ts";
import { loadConfigFrom, loadModelFrom, type LoadOptions } from "./load.ts";
import { downloadModel, modelDirectory } from "./node/hub.ts";
import { loadPretrainedFrom, Pretrained } from "./pretrained.ts";
import type { SaveOptions } from "./save.ts";
import { loadTokenizerFrom, type Tokenizer } from "./tokenizer.ts";

/**
 * Loads the model of a Hugging Face directory, or of the hub by its name, "owner/name" or "owner/name@revision"; a directory of
 * that name comes first. See `loadModelFrom` and `downloadModel`.
 */
export async function loadModel(model: string, options: LoadOptions): Promise<Decoder> {
  return loadModelFrom(await directoryFiles(await modelDirectory(model)), options);
}

/** Loads a model and its tokenizer from a Hugging Face directory, or from the hub by name, as `loadModel` does. */
export async function loadPretrained(model: string, options: LoadOptions): Promise<Pretrained> {
  return loadPretrainedFrom(await directoryFiles(await modelDirectory(model)), options);
}

/** The config of a Hugging Face directory, or of a model on the hub; no weights are read. */
export async function loadConfig(model: string): Promise<DecoderConfig> {
  return loadConfigFrom(await directoryFiles(await modelDirectory(model, { part: "config" })));
}

/** The tokenizer of a Hugging Face directory, or of a model on the hub; no weights are read. */
export async function loadTokenizer(model: string): Promise<Tokenizer> {
  return loadTokenizerFrom(await directoryFiles(await modelDirectory(model, { part: "tokenizer" })));
}

export type { DownloadProgress, HubOptions } from "./hub/client.ts";
export { HubError } from "./hub/errors.ts";
export { type HubName, nameText, parseHubName } from "./hub/name.ts";
export type { HubPart } from "./hub/wanted.ts";
export { type Downloaded, type DownloadOptions, isOnHub } from "./node/hub.ts";
export { downloadModel };
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
