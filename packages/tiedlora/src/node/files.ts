/** Files on disk: data is read piece by piece; adapters are written whole or not at all. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { directoryFiles, recoverDirectory, writeFilesAtomic } from "@tiedlora/core/node";
import { isPlainFileName } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { ModelFileOptions, SavableModel } from "../model.ts";
import type { Adapter } from "../adapter/adapter.ts";
import { adaptersOf } from "../adapter/adapter.ts";
import { DataError } from "../data/errors.ts";
import type { TextFile } from "../data/text.ts";
import { adapterFiles, type AdapterFormat, loadAdapterFiles } from "../files/load.ts";
import type { LoadOptions } from "../files/options.ts";
import { mergedWeights } from "../files/merged.ts";
import { MLX_TENSORS } from "../files/mlx.ts";
import { TENSORS_FILE, type Provenance } from "../files/native.ts";
import { initFromFiles, type InitOptions } from "../init-from.ts";
import { writing } from "./writing.ts";

/** Returns a text file for `readRecords`; one that ends in .gz is read unpacked. Throws DataError if there is no such file, or it is empty. */
export async function textFile(path: string): Promise<TextFile> {
  const found = await stat(path).catch(() => null);
  if (found === null) throw new DataError(path, null, "there is no such file");
  if (!found.isFile()) throw new DataError(path, null, "this is not a file");
  if (found.size === 0) throw new DataError(path, null, "the file is empty");
  if (/\.gz$/i.test(path)) return { name: path, pieces: () => unpacked(path) };
  return { name: path, pieces: () => createReadStream(path) as AsyncIterable<Uint8Array> };
}

async function* unpacked(path: string): AsyncGenerator<Uint8Array> {
  // A failure of either stream reaches the loop below through the second.
  const stream = pipeline(createReadStream(path), createGunzip(), () => undefined);
  try {
    for await (const piece of stream) yield piece as Uint8Array;
  } catch (cause) {
    throw new DataError(path, null, `cannot be unpacked: ${(cause as Error).message}`);
  }
}

/** Standard input as a text file of JSON lines, which is kept in memory. Throws DataError if there is nothing in it. */
export async function standardInput(): Promise<TextFile> {
  const name = "stdin.jsonl";
  const pieces: Uint8Array[] = [];
  for await (const piece of process.stdin) pieces.push(piece as Uint8Array);
  if (pieces.length === 0)
    throw new DataError(name, null, "standard input is empty; expected one JSON object a line");
  return {
    name,
    async *pieces() {
      for (const piece of pieces) yield await Promise.resolve(piece);
    },
  };
}

/**
 * Writes an adapter into a directory, and replaces the adapter in it, if there is one. Either all files are replaced, or none.
 * Throws if the format cannot hold the adapter.
 */
export async function saveAdapter(
  adapter: Adapter,
  directory: string,
  provenance: Provenance = {},
  format: AdapterFormat = "native",
): Promise<void> {
  const files = adapterFiles(adapter, format, provenance);
  await recoverDirectory(directory);
  const others = [TENSORS_FILE, MLX_TENSORS].filter((name) => !files.some(([one]) => one === name));
  await writing(directory, () => writeFilesAtomic(directory, files, others));
}

/**
 * Writes several adapters of a model (default: all) as peft does: "default" into the directory itself, each other adapter into a
 * subdirectory of its name. Throws if a name cannot name a directory, or the format cannot hold an adapter.
 */
export async function saveAdapters(
  model: nn.Module,
  directory: string,
  names: readonly string[] = adaptersOf(model).names,
  format: AdapterFormat = "native",
): Promise<void> {
  const adapters = names.map((name) => adaptersOf(model).get(name));
  const unfit = names.find((name) => !isPlainFileName(name));
  if (unfit !== undefined)
    throw new Error(`"${unfit}" cannot name a directory; save it alone, by saveAdapter`);
  for (const adapter of adapters) {
    const path = adapter.name === "default" ? directory : join(directory, adapter.name);
    await saveAdapter(adapter, path, {}, format);
  }
}

/**
 * Writes a model with its active adapters merged in, one weight after another, into a directory that transformers can load; the
 * model itself is unchanged. Throws if an adapted weight is also used by another module (see `untie`).
 * @param options.copyFrom a directory from which the tokenizer and the generation settings are copied
 */
export async function saveMerged(
  model: SavableModel,
  directory: string,
  options: ModelFileOptions & { readonly copyFrom?: string } = {},
): Promise<void> {
  const replace = mergedWeights(model);
  await recoverDirectory(directory);
  const { copyFrom, ...rest } = options;
  await writing(directory, async () => {
    const source = copyFrom === undefined ? {} : { copyFrom: await directoryFiles(copyFrom) };
    const { files, stale } = await model.directoryFiles({ ...rest, ...source, replace });
    await writeFilesAtomic(directory, files, stale);
  });
}

/** Puts the adapter in a directory on a model. Strict: see `loadAdapterFiles`. */
export async function loadAdapter(
  model: nn.Module,
  directory: string,
  options: LoadOptions = {},
): Promise<Adapter> {
  return loadAdapterFiles(model, await directoryFiles(directory), options);
}

/** Puts the adapter in a directory on a model, to continue its training: see `initFromFiles`. */
export async function initFrom(
  model: nn.Module,
  directory: string,
  options: InitOptions = {},
): Promise<Adapter> {
  return initFromFiles(model, await directoryFiles(directory), options);
}
