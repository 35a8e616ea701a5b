/**
 * One process loads a file, others wait for it. The lock saves traffic and is not needed for correctness: what two processes
 * write at the same place of a file is the same, and its digest is checked.
 */
import { mkdir, open, readFile, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive } from "@tiedlora/core/node";

export interface FileLockOptions {
  /** A lock that its owner has not touched for this long is taken. */
  readonly staleMs: number;
  /** Told once, if another process is waited for. */
  readonly onWait: (owner: string) => void;
  readonly signal: AbortSignal | undefined;
}

/** Runs `work` while this process has the lock; it may find that another process has done it all meanwhile. */
export async function withFileLock<T>(
  path: string,
  options: FileLockOptions,
  work: () => Promise<T>,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  await take(path, options);
  const beat = setInterval(
    () => void utimes(path, new Date(), new Date()).catch(() => undefined),
    options.staleMs / 4,
  );
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    await rm(path, { force: true });
  }
}

async function take(path: string, { staleMs, onWait, signal }: FileLockOptions): Promise<void> {
  let seen = { mtimeMs: NaN, at: 0 };
  for (let waited = false; !(await create(path)); waited = true) {
    const [found, owner] = await Promise.all([stat(path).catch(() => null), ownerOf(path)]);
    if (found === null) continue; // it has just been given back
    // By this machine's time alone: the clock of a file server may differ.
    if (found.mtimeMs !== seen.mtimeMs) seen = { mtimeMs: found.mtimeMs, at: performance.now() };
    const ended = owner?.host === hostname() && !isAlive(owner.pid);
    if (ended || performance.now() - seen.at > staleMs) {
      await rm(path, { force: true });
      continue;
    }
    if (!waited) onWait(owner === null ? "another process" : `process ${owner.pid} on ${owner.host}`);
    await sleep(Math.min(200, staleMs / 8), undefined, signal === undefined ? {} : { signal });
  }
}

async function create(path: string): Promise<boolean> {
  try {
    const handle = await open(path, "wx");
    await handle.writeFile(JSON.stringify({ pid: process.pid, host: hostname() }));
    await handle.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function ownerOf(path: string): Promise<{ pid: number; host: string } | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as { pid: number; host: string };
  } catch {
    return null;
  }
}
