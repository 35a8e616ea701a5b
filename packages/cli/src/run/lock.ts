/**
 * A folder that one process has to itself. A lock is an empty file whose name says whose it is: from the name alone one knows
 * whether its owner still runs, and the file of one that does not can be removed by anybody at any moment. Who wants the
 * folder announces itself first and looks for others then, so that two can never both have it.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { mkdir, open, readdir, rm, rmdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive } from "@tiedlora/core/node";
import { writing } from "tiedlora/internal/node";

/** Whose a lock is. `start`: when the process began, in the system's own terms; another one may have its number by now. */
interface Owner {
  readonly pid: number;
  readonly start: string;
  readonly host: string;
}

const NAME = /^\.lock\.(\d+)\.([\w-]+)\.(.+)$/;

/** Two that announce themselves at the same moment both step back, and try again after a while that differs. */
const TRIES = 8;
const LONGEST_PAUSE_MS = 400;
/** A lock that has been there for so long is no such accident. */
const SETTLED_MS = 2000;

/** The locks of this process, by path. */
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

/** Takes a folder for the time of `work`, and makes it if it is not there. Throws FolderInUseError if another has it. */
export async function withLock<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const release = await lock(directory);
  try {
    return await work();
  } finally {
    await release();
  }
}

/** As `withLock`, until what it gives is called. A folder that was made for it and is empty then goes away again. */
export async function lock(directory: string): Promise<() => Promise<void>> {
  const made = await writing(directory, () => mkdir(directory, { recursive: true }));
  const owner: Owner = { pid: process.pid, start: startOf(process.pid) ?? UNKNOWN, host: hostname() };
  const file = `.lock.${owner.pid}.${owner.start}.${encodeURIComponent(owner.host)}`;
  const path = join(resolve(directory), file);
  if (held.has(path)) throw new FolderInUseError(directory, owner, file);
  const release = async (): Promise<void> => {
    held.delete(path);
    await rm(path, { force: true }).catch(() => undefined); // it is seen to be a dead one's when this process has ended
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

/** Another process that has the folder, or wants it now. Files of those that have ended are removed. */
async function ownerBeside(directory: string, own: string): Promise<Other | null> {
  for (const file of await readdir(directory)) {
    const [, pid, start, host] = NAME.exec(file) ?? [];
    if (file === own || pid === undefined || start === undefined || host === undefined) continue;
    const owner: Owner = { pid: Number(pid), start, host: decodeURIComponent(host) };
    if (owner.host === hostname() && !runs(owner)) {
      await rm(join(directory, file), { force: true });
      continue;
    }
    const found = await stat(join(directory, file)).catch(() => null);
    if (found !== null) return { owner, file, settled: Date.now() - found.mtimeMs > SETTLED_MS };
  }
  return null;
}

/** Whether a process of this machine still runs; where its start cannot be asked for, its number decides. */
function runs({ pid, start }: Owner): boolean {
  if (!isAlive(pid)) return false;
  const now = startOf(pid);
  return now === null || start === UNKNOWN || now === start;
}

const UNKNOWN = "0";
/** Of a process that has ended, and whose parent has not asked how. */
const DEFUNCT = "Z";

/** When a process of this machine began, as a word; null: that cannot be found out. */
function startOf(pid: number): string | null {
  if (process.platform === "linux") return linuxStart(pid);
  if (process.platform === "win32") return null;
  const env = { ...process.env, LC_ALL: "C" };
  const { stdout } = spawnSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", env });
  return stdout?.trim().replace(/\W+/g, "-") || null;
}

/** Ticks since the machine was started, and which start that was. /proc/PID/stat is "PID (any name) state parent ...". */
function linuxStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z" || state === "X") return DEFUNCT;
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").slice(0, 8)}-${fields[18]}`;
  } catch {
    return null;
  }
}

/** Removes the folders that were made, from the innermost on, as far as nothing is in them. */
async function removeEmpty(directory: string, made: string | undefined): Promise<void> {
  if (made === undefined) return;
  const last = resolve(made);
  for (let path = resolve(directory); path.startsWith(last); path = dirname(path)) {
    const removed = await rmdir(path).then(() => true, () => false); // prettier-ignore
    if (!removed) return;
  }
}
