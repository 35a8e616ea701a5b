/**
 * Files that are written once: of several processes that write one, on any number of machines, one gives it its name. What takes
 * microseconds is called synchronously, since a trip to the thread pool costs more than the call; only the flush is waited for.
 */
import {
  closeSync,
  existsSync,
  fsync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { ownerTag } from "./owner.ts";

const flush = (file: number): Promise<void> =>
  new Promise((resolve, reject) => {
    fsync(file, (error) => (error === null ? resolve() : reject(error)));
  });

/** Codes of file systems that have no hard links. */
const NO_LINKS: readonly (string | undefined)[] = ["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"];

/** As bytes, which are written in as many calls as it takes. */
const bytesOf = (content: string | Uint8Array): Uint8Array =>
  typeof content === "string" ? Buffer.from(content) : content;

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/**
 * Writes a whole file or nothing, unless there is a file of that name; returns whether it did. The content is flushed to disk before
 * the file has its name. After a power failure the last files may be missing, but none is cut off.
 */
export async function writeFileOnce(path: string, content: string | Uint8Array): Promise<boolean> {
  const temporary = temporaryOf(path);
  try {
    const file = openNew(temporary);
    try {
      writeFileSync(file, bytesOf(content));
      await flush(file);
    } finally {
      closeSync(file);
    }
    return linkNew(temporary, path);
  } finally {
    remove(temporary);
  }
}

/** As `writeFileOnce`, but at once, and without waiting for the disk: for what follows from other files. */
export function writeFileOnceSync(path: string, content: string | Uint8Array): boolean {
  const temporary = temporaryOf(path);
  try {
    const file = openNew(temporary);
    try {
      writeFileSync(file, bytesOf(content));
    } finally {
      closeSync(file);
    }
    return linkNew(temporary, path);
  } finally {
    remove(temporary);
  }
}

const temporaryOf = (path: string): string => join(dirname(path), `.${basename(path)}.${ownerTag()}.tmp`);

/** Opens a new file for writing; makes its directory if there is none. */
function openNew(path: string): number {
  try {
    return openSync(path, "wx");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    mkdirSync(dirname(path), { recursive: true });
    return openSync(path, "wx");
  }
}

/** Gives a file a second name unless there is a file of that name; returns whether it did. */
function linkNew(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST") return statSync(from).nlink === 2; // a network file system may repeat a request that succeeded
    if (!NO_LINKS.includes(code)) throw error;
    if (existsSync(to)) return false;
    renameSync(from, to);
    return true;
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}
