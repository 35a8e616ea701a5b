/**
 * Files on disk, for Node: read in pieces, and written so that a reader sees the old file or the new one, never a partial one.
 * @module
 */
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { isAbandoned, OWNER_TAG, ownerTag } from "./node/owner.ts";
import { recoverSwaps, Swap } from "./node/swap.ts";
import { encodeUtf8, isPlainFileName, type Files, type Source } from "./format.ts";

export { writeFileOnce, writeFileOnceSync } from "./node/once.ts";
export { isAlive, machineName } from "./node/owner.ts";

/** Opens a file for reading in pieces; the caller closes it. Rejects with Node's error if the file cannot be opened. */
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
    readInto: (offset, target) => readFully(handle, target, offset),
    stamp: async () => {
      const now = await handle.stat();
      return `${now.size} bytes, ${now.mtimeMs}, ${now.ino}`;
    },
    close: () => handle.close(),
  };
}

/**
 * Reads until `bytes` is full or the file ends; returns the number of bytes read. A single read may return fewer bytes than
 * requested: at most 2 GiB, or what a network file system has available.
 */
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

/**
 * The files of a directory, opened by plain name; `open` rejects any other name (see `isPlainFileName`). Symbolic links are
 * followed. Rejects if `directory` is not a directory.
 */
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

/** The content of a file: text, bytes, or pieces in sequence. */
export type Chunks = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** A file that has been written and flushed to disk under a temporary name, to be committed or discarded. */
export interface StagedFile {
  /** The number of bytes written. */
  readonly bytes: number;
  /** Renames the file to its final name, replacing a file of that name. */
  commit(): Promise<void>;
  /** Removes the file. */
  discard(): Promise<void>;
}

/**
 * Writes a temporary file beside `path`, creating the directory if needed; `path` itself does not change until `commit`. If
 * writing fails, removes the temporary file and rejects.
 */
export async function stageFile(path: string, content: Chunks): Promise<StagedFile> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true });
  const temporary = join(directory, `.${basename(path)}.${ownerTag()}.tmp`);
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

/** Writes a whole file or nothing, by a temporary file that is flushed to disk and then renamed. */
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
 * Replaces several files of a directory that belong together. All new files are complete on disk, and all old files of the same
 * names and of the names in `remove` are set aside, before the first new file gets its name; if anything fails, the old files
 * are restored. A reader finds the old files, the new files or, for a moment, none, provided that the file that refers to the
 * others comes last in `files`.
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
    if (names.length + remove.length > 1) swap = await Swap.begin(directory, ownerTag(), names, remove);
    for (const file of staged.values()) await file.commit();
  } catch (error) {
    await Promise.all([...staged.values()].map((file) => file.discard()));
    await swap?.undo();
    throw error;
  }
  await swap?.finish();
}

const TEMPORARY = new RegExp(String.raw`^\..+\.(${OWNER_TAG})\.tmp$`);

/**
 * Cleans up a directory after processes that died while writing to it: removes their temporary files, and finishes or undoes
 * their replacements of files (see `recoverSwaps`). What another machine was writing is left alone for a day.
 */
export async function recoverDirectory(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch((): string[] => [])) {
    const owner = TEMPORARY.exec(name)?.[1];
    const path = join(directory, name);
    if (owner !== undefined && (await isAbandoned(owner, path))) await rm(path, { force: true });
  }
  await recoverSwaps(directory);
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

/** Flushes a directory to disk so that renames in it survive a crash. Does nothing on Windows, which cannot open directories. */
export async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
