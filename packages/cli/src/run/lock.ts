/**
 * Exclusive use of a folder by one process. A lock is an empty file whose name identifies its owner: the name alone tells
 * whether the owner still runs, and any process can remove the lock of an ended process at any moment. A process that wants
 * the folder first announces itself by its own lock, and then looks for other locks, so that two can never both have it.
 */
import { rmSync } from "node:fs";
import { mkdir, open, readdir, rm, rmdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isAliveSince, startOf, writing } from "tiedlora/internal/node";

/** The owner of a lock. `start` is when the process began, in the system's own terms: its pid may have been reused since. */
interface Owner {
  readonly pid: number;
  readonly start: string;
  readonly host: string;
}

const NAME = /^\.lock\.(\d+)\.([\w-]+)\.(.+)$/;

/** Two processes that announce themselves at the same moment both withdraw, and try again after random pauses. */
const TRIES = 8;
const LONGEST_PAUSE_MS = 400;
/** A lock that is older than this belongs to a process that has the folder, and is not a collision of announcements. */
const SETTLED_MS = 2000;

/** The paths of this process's locks. */
const held = new Set<string>();
process.on("exit", () => {
  for (const path of held) rmSync(path, { force: true });
});

/** Thrown where another process has the folder. */
export class FolderInUseError extends Error {
  constructor(directory: string, { pid, host }: Owner, file: string) {
    const own = host === hostname();
    const remedy = own
      ? "wait for it, end it, or give another folder"
      : `if it does not run any more, delete ${join(directory, file)}; this can only be found out on ${host}`;
    super(
      `${directory} is in use by process ${pid} on ${own ? "this machine" : "another machine"}, ${host}: ${remedy}`,
    );
    this.name = "FolderInUseError";
  }
}

/** Locks a folder, created if necessary, while `work` runs. Throws FolderInUseError if another process has it. */
export async function withLock<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const release = await lock(directory);
  try {
    return await work();
  } finally {
    await release();
  }
}

/** Throws FolderInUseError if a process has the folder; otherwise does nothing: any number of others may use it, too. */
export async function checkUnlocked(directory: string): Promise<void> {
  const other = await ownerBeside(directory, "").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw error;
  });
  if (other !== null) throw new FolderInUseError(directory, other.owner, other.file);
}

/** As `withLock`, until the returned function is called, which also removes folders that were created and are still empty. */
export async function lock(directory: string): Promise<() => Promise<void>> {
  const made = await writing(directory, () => mkdir(directory, { recursive: true }));
  const owner: Owner = { pid: process.pid, start: startOf(process.pid), host: hostname() };
  const file = `.lock.${owner.pid}.${owner.start}.${encodeURIComponent(owner.host)}`;
  const path = join(resolve(directory), file);
  if (held.has(path)) throw new FolderInUseError(directory, owner, file);
  const release = async (): Promise<void> => {
    held.delete(path);
    await rm(path, { force: true }).catch(() => undefined); // a lock that remains is known to be stale once this process has ended
    await removeEmpty(directory, made);
  };
  held.add(path);
  try {
    await announce(directory, path, file);
    return release;
  } catch (error) {
    await release();
    throw error;
  }
}

async function announce(directory: string, path: string, file: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    await writing(directory, async () => (await open(path, "w")).close());
    const other = await ownerBeside(directory, file);
    if (other === null) return;
    await rm(path, { force: true });
    if (attempt === TRIES || other.settled) throw new FolderInUseError(directory, other.owner, other.file);
    await sleep(Math.random() * Math.min(LONGEST_PAUSE_MS, 20 * 2 ** attempt));
  }
}

interface Other {
  readonly owner: Owner;
  readonly file: string;
  readonly settled: boolean;
}

/** Another process that has the folder or wants it; null if there is none. Removes the locks of ended processes. */
async function ownerBeside(directory: string, own: string): Promise<Other | null> {
  for (const file of await readdir(directory)) {
    const owner = ownerOf(file);
    if (file === own || owner === null) continue;
    if (owner.host === hostname() && !isAliveSince(owner.pid, owner.start)) {
      await rm(join(directory, file), { force: true });
      continue;
    }
    const found = await stat(join(directory, file)).catch(() => null);
    if (found !== null) return { owner, file, settled: Date.now() - found.mtimeMs > SETTLED_MS };
  }
  return null;
}

/** The owner that a lock's name tells; null if the file is not a lock. */
function ownerOf(file: string): Owner | null {
  const [, pid, start, host] = NAME.exec(file) ?? [];
  if (pid === undefined || start === undefined || host === undefined) return null;
  try {
    return { pid: Number(pid), start, host: decodeURIComponent(host) };
  } catch {
    return null; // no lock is given such a name
  }
}

/** Removes the folders that were created, from the innermost outward, as long as they are empty. */
async function removeEmpty(directory: string, made: string | undefined): Promise<void> {
  if (made === undefined) return;
  const last = resolve(made);
  for (let path = resolve(directory); path.startsWith(last); path = dirname(path)) {
    const removed = await rmdir(path).then(() => true, () => false); // prettier-ignore
    if (!removed) return;
  }
}
