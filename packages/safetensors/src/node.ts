/**
 * Files on disk, for Node: read in pieces, written so that a reader sees the old file or the new one, never a part.
 * @module
 */
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { recoverSwaps, Swap } from "./node/swap.ts";
import { encodeUtf8, isPlainFileName, type Files, type Source } from "./format.ts";

/** Opens a file for reading at offsets. Close it when done. */
export async function fileSource(path: string): Promise<Source> {
  const handle = await open(path, "r");
  const { size } = await handle.stat().catch(async (error: unknown) => {
    await handle.close();
    throw error;
  });
  return {
    name: path,
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
      return bytes.subarray(0, await readFully(handle, bytes, offset));
    },
    close: () => handle.close(),
  };
}

/** One read may return less than asked: at most 2 GiB, or what a network file system has at hand. */
async function readFully(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < bytes.byteLength) {
    const length = Math.min(bytes.byteLength - done, 2 ** 30);
    const { bytesRead } = await handle.read(bytes, done, length, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** The files of a directory, by plain name; a name with a separator in it is refused. Symbolic links are followed. */
export async function directoryFiles(directory: string): Promise<Files> {
  const found = await stat(directory).catch(() => null);
  if (!found?.isDirectory()) throw new Error(`${directory} is not a directory`);
  return {
    name: directory,
    open: async (name) => {
      if (!isPlainFileName(name)) throw new Error(`${JSON.stringify(name)} is not the plain name of a file`);
      try {
        return await fileSource(join(directory, name));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
        throw error;
      }
    },
  };
}

/** The content of a file, in pieces. */
export type Chunks = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** A file that is written and flushed under a temporary name. `commit` gives it its name, `discard` removes it. */
export interface StagedFile {
  /** Bytes written. */
  readonly bytes: number;
  /** Gives the file its name, replacing a file of that name. */
  commit(): Promise<void>;
  /** Removes the file; nothing remains of it. */
  discard(): Promise<void>;
}

let counter = 0;

/** Writes a file beside `path`; nothing is visible at `path` until `commit`. A failure leaves nothing behind. */
export async function stageFile(path: string, content: Chunks): Promise<StagedFile> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true });
  const temporary = join(directory, `.${basename(path)}.${process.pid}-${counter++}.tmp`);
  const discard = (): Promise<void> => rm(temporary, { force: true });
  let bytes = 0;
  try {
    const handle = await open(temporary, "wx");
    try {
      for await (const chunk of chunksOf(content)) {
        await writeFully(handle, chunk);
        bytes += chunk.byteLength;
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    await discard();
    throw error;
  }
  const commit = async (): Promise<void> => {
    await rename(temporary, path);
    await syncDirectory(directory);
  };
  return { bytes, commit, discard };
}

/** Writes all of a file, or nothing: temporary file, flush to disk, rename. */
export async function writeFileAtomic(path: string, content: Chunks): Promise<void> {
  const staged = await stageFile(path, content);
  try {
    await staged.commit();
  } catch (error) {
    await staged.discard();
    throw error;
  }
}

/**
 * Writes several files of a directory that belong together. All are complete on disk before the first gets its name; old
 * ones of these names, and of those in `remove`, are set aside before that, and stand again if anything fails. A reader finds
 * the old files, the new ones or, for a moment, none: put the file that refers to the others last.
 */
export async function writeFilesAtomic(
  directory: string,
  files: Iterable<readonly [string, Chunks]>,
  remove: readonly string[] = [],
): Promise<void> {
  const staged = new Map<string, StagedFile>();
  let swap: Swap | null = null;
  try {
    for (const [name, content] of files) staged.set(name, await stageFile(join(directory, name), content));
    const names = [...staged.keys()];
    if (names.length + remove.length > 1)
      swap = await Swap.begin(directory, `${process.pid}-${counter++}`, names, remove);
    for (const file of staged.values()) await file.commit();
  } catch (error) {
    await Promise.all([...staged.values()].map((file) => file.discard()));
    await swap?.undo();
    throw error;
  }
  await swap?.finish();
}

/** Ends or undoes, in a directory, what processes that were killed while they wrote have left half done. */
export async function recoverDirectory(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch((): string[] => [])) {
    const owner = /^\..+\.(\d+)-\d+\.tmp$/.exec(name)?.[1];
    if (owner !== undefined && !isAlive(Number(owner))) await rm(join(directory, name), { force: true });
  }
  await recoverSwaps(directory, isAlive);
}

/** Whether there is a process of this number, on this machine. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

async function writeFully(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.byteLength) {
    const { bytesWritten } = await handle.write(chunk, done, Math.min(chunk.byteLength - done, 2 ** 30));
    done += bytesWritten;
  }
}

async function* chunksOf(content: Chunks): AsyncGenerator<Uint8Array> {
  if (typeof content === "string") yield encodeUtf8(content);
  else if (content instanceof Uint8Array) yield content;
  else yield* content;
}

/** Makes the rename itself last through a crash. Windows cannot open a directory, and needs not. */
export async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
