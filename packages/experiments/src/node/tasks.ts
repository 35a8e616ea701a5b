/** Data sets on disk, as tasks read them. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
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
    open: (name) => textFile(join(directory, name)),
  };
}

/** The source of tasks that need no files. */
export const NO_FILES: TaskSource = {
  name: "(no directory)",
  list: () => Promise.resolve([]),
  open: (name) => Promise.reject(new DataError(name, null, "no directory of data was given")),
};
