/**
 * When a process began. The number of a process may be another's by now; together with the beginning it is not, so a process that
 * has ended can be told from one that lives.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { isAlive } from "@tiedlora/core/node";

/** The beginning of a process for which it cannot be determined. */
const UNKNOWN = "0";
/** That of a process that has ended, but whose parent has not yet waited for it (a zombie). */
const DEFUNCT = "Z";

/** When a process of this machine began, as a word in the system's own terms. */
export function startOf(pid: number): string {
  if (process.platform === "linux") return linuxStart(pid);
  if (process.platform === "win32") return UNKNOWN;
  const env = { ...process.env, LC_ALL: "C" };
  const { stdout } = spawnSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", env });
  return stdout?.trim().replace(/\W+/g, "-") || UNKNOWN;
}

/** Whether a process of this machine that began at `start` still runs; if the start is not known, its number alone decides. */
export function isAliveSince(pid: number, start: string): boolean {
  if (!isAlive(pid)) return false;
  const now = startOf(pid);
  return now === UNKNOWN || start === UNKNOWN || now === start;
}

/** The machine's boot id, and the ticks from boot to the process's start. /proc/PID/stat is "PID (any name) state parent ...". */
function linuxStart(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z" || state === "X") return DEFUNCT;
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").slice(0, 8)}-${fields[18]}`;
  } catch {
    return UNKNOWN;
  }
}
