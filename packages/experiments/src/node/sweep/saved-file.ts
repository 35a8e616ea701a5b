/** The saved state of a run as a file. */
import { mkdir, readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { writeFileAtomic } from "@tiedlora/core/node";
import type { SavedRun } from "../../sweep/saved-run.ts";

/** Seconds of training between saves: what a run may lose when its process dies. */
const EVERY_SECONDS = 60;

/** Keeps the state of a run in the file `path`; `onSaved` is told of every step whose state was written. */
export function savedFile(path: string, onSaved?: (step: number) => void): SavedRun {
  return {
    name: basename(path),
    everySeconds: EVERY_SECONDS,
    read: () =>
      readFile(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return null;
        throw error;
      }),
    async write(bytes, step) {
      await mkdir(dirname(path), { recursive: true });
      await writeFileAtomic(path, bytes);
      onSaved?.(step);
    },
  };
}
