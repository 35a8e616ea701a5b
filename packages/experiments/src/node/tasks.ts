/** Data sets on disk, as tasks read them. */
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { DataError } from "tiedlora";
import type { TaskSource } from "../tasks/task.ts";
import { textFile } from "tiedlora/node";

/** The files of a directory; those that end in .gz are read unpacked. */
export function directorySource(directory: string): TaskSource {
  return {
    name: directory,
    async list() {
      const found = await stat(directory).catch(() => null);
      if (found === null) throw new DataError(directory, null, "there is no such directory");
      if (!found.isDirectory()) throw new DataError(directory, null, "this is not a directory");
      return readdir(directory);
    },
    async open(name) {
      const path = join(directory, name);
      const file = await textFile(path);
      return name.endsWith(".gz") ? { name: path, pieces: () => unpacked(path) } : file;
    },
  };
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

/** The source of tasks that need no files. */
export const NO_FILES: TaskSource = {
  name: "(no directory)",
  list: () => Promise.resolve([]),
  open: (name) => Promise.reject(new DataError(name, null, "no directory of data was given")),
};
