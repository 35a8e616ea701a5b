/** The system's list of other processes. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";

interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Whether it is a zombie: it has ended, but its parent has not waited for it. */
  readonly defunct: boolean;
  readonly command: string;
}

function processes(): Process[] {
  return existsSync("/proc/self/stat") ? fromProc() : fromPs();
}

/** Linux: /proc/PID/stat is "PID (name) state parent ...", and the name may hold anything. */
function fromProc(): Process[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name): Process[] => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "utf8");
        const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
        return [{ pid: Number(name), parent: Number(parent), defunct: state === "Z", command }];
      } catch {
        return []; // it has ended meanwhile
      }
    });
}

function fromPs(): Process[] {
  const { stdout } = spawnSync("ps", ["-A", "-o", "pid=,ppid=,stat=,args="], { encoding: "utf8" });
  return [...stdout.matchAll(/^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/gm)].map(
    ([, pid, parent, state, command]) =>
      ({ pid: Number(pid), parent: Number(parent), defunct: state!.startsWith("Z"), command: command! }), // prettier-ignore
  );
}

/** The processes in which a sweep runs. */
export function workersOf(parent: number): number[] {
  return processes()
    .filter((one) => one.parent === parent && /sweep.worker\.[jt]s/.test(one.command))
    .map(({ pid }) => pid);
}

export function isRunning(pid: number): boolean {
  return processes().some((one) => one.pid === pid && !one.defunct);
}
