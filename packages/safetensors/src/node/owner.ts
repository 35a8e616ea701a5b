/**
 * The names of unfinished files say which process writes them. Folders may be shared by several machines, and a number of a
 * process means nothing elsewhere, so the machine is part of the name.
 */
import { readlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { hostname } from "node:os";
import process from "node:process";

/** An unfinished file of another machine is abandoned if nothing was written to it for so long. */
const ELSEWHERE_MS = 24 * 3600 * 1000;

let counter = 0;

/** A new name for something unfinished of this process: `PID-n@MACHINE`. */
export function ownerTag(): string {
  return `${process.pid}-${counter++}@${encodeURIComponent(machineName())}`;
}

/** Matches what `ownerTag` returns, in a larger expression; earlier versions wrote no machine. */
export const OWNER_TAG: string = String.raw`\d+-\d+(?:@[^/]+)?`;

/**
 * Whether the process that a tag names has ended, or, if it is another machine's, has not written for a day. `path` is the file
 * in question.
 */
export async function isAbandoned(tag: string, path: string): Promise<boolean> {
  const [numbers, machine] = tag.split("@") as [string, string | undefined];
  if (machine === undefined || machine === encodeURIComponent(machineName()))
    return !isAlive(parseInt(numbers));
  const found = await stat(path).catch(() => null);
  return found !== null && Date.now() - found.mtimeMs > ELSEWHERE_MS;
}

/** Whether a process with this ID exists on this machine. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** The number of the namespace of processes outside all containers, on Linux. */
const OUTERMOST = "4026531836";
let name: string | null = null;

/**
 * A name for the set of processes that this one can see by their numbers: the host's name, with the container's namespace if
 * there is one, since containers may have their host's name.
 */
export function machineName(): string {
  return (name ??= [hostname(), ...namespaceOfProcesses()].join("/"));
}

function namespaceOfProcesses(): string[] {
  if (process.platform !== "linux") return [];
  try {
    const number = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0];
    return number === undefined || number === OUTERMOST ? [] : [number];
  } catch {
    return [];
  }
}
