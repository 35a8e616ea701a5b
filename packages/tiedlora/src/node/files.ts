/** Files on disk: data that is read piece by piece, adapters that are written whole or not at all. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { directoryFiles, writeFilesAtomic } from "@tiedlora/core/node";
import type { nn } from "@tiedlora/core";
import type { Adapter } from "../adapter.ts";
import { DataError } from "../data/errors.ts";
import type { TextFile } from "../data/records.ts";
import { loadAdapterFiles, type LoadOptions } from "../files/load.ts";
import { nativeFiles, type Provenance } from "../files/native.ts";

/** A text file for `readRecords`. Throws if there is none, or it is empty. */
export async function textFile(path: string): Promise<TextFile> {
  const found = await stat(path).catch(() => null);
  if (found === null) throw new DataError(path, null, "there is no such file");
  if (!found.isFile()) throw new DataError(path, null, "this is not a file");
  if (found.size === 0) throw new DataError(path, null, "the file is empty");
  return { name: path, pieces: () => createReadStream(path, { encoding: "utf8" }) as AsyncIterable<string> };
}

/** Writes an adapter into a directory, in the native format. Either all files are replaced, or none. */
export async function saveAdapter(
  adapter: Adapter,
  directory: string,
  provenance: Provenance = {},
): Promise<void> {
  await writeFilesAtomic(directory, nativeFiles(adapter, provenance));
}

/** Puts the adapter of a directory on a model. Strict: see `loadAdapterFiles`. */
export async function loadAdapter(
  model: nn.Module,
  directory: string,
  options: LoadOptions = {},
): Promise<Adapter> {
  return loadAdapterFiles(model, await directoryFiles(directory), options);
}
