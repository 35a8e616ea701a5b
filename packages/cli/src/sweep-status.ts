/** `tiedlora sweep FILE --status`: who performs which run of a sweep, what failed, and how long the rest may take. */
import { setTimeout as sleep } from "node:timers/promises";
import type { RunningRun, SweepStatus } from "@tiedlora/experiments/node";
import { interruptible } from "./interrupt.ts";
import { duration, Interrupted, paint, type Output } from "./output.ts";

interface Shown {
  readonly name: string;
  /** Reads the state. */
  readonly read: () => Promise<SweepStatus>;
  readonly json: boolean;
}

/** The time between two looks at the folder. */
const EVERY_MS = 2000;

/** Prints the state of a sweep; on a terminal it is kept up to date until the sweep has ended. */
export async function showStatus(shown: Shown, output: Output): Promise<void> {
  const { read, json, name } = shown;
  if (json) return output.out(JSON.stringify(await read()));
  if (!output.interactive || !process.stdout.isTTY) {
    for (const line of statusLines(name, await read())) output.out(line);
    return;
  }
  const interrupted = await interruptible(async (signal) => {
    let height = 0;
    while (!signal.aborted) {
      const status = await read();
      const lines = statusLines(name, status).slice(0, Math.max(1, process.stdout.rows - 1));
      output.write(`${height === 0 ? "" : `\u001b[${height}A`}\r\u001b[J`);
      for (const line of lines) output.out(cut(line, process.stdout.columns));
      height = lines.length;
      if (status.running.length + status.waiting === 0) return false;
      await sleep(EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
    return true;
  });
  if (interrupted) throw new Interrupted();
}

/** Shortens a line to the width of the terminal; colors count as nothing. */
function cut(line: string, width: number): string {
  const color = new RegExp(String.raw`\u001b\[[0-9;]*m`, "g");
  return line.replace(color, "").length < width ? line : line.replace(color, "").slice(0, width - 1);
}

/** The state of a sweep for people. */
function statusLines(name: string, status: SweepStatus): string[] {
  const { runs, finished, failed, running, waiting, secondsLeft } = status;
  const left =
    running.length + waiting === 0
      ? "nothing is left to do"
      : running.every(({ dead }) => dead)
        ? "nobody is at work; tiedlora sweep goes on"
        : secondsLeft === null
          ? "too early to say how long it takes"
          : `about ${duration(secondsLeft)} left`;
  return [
    `${paint("bold", name)}: ${runs} runs: ${finished} finished, ${running.length} running, ${waiting} waiting, ` +
      `${paint(failed.length > 0 ? "red" : "dim", `${failed.length} failed`)}; ${left}`,
    ...running.map(runningLine),
    ...failed.map(({ id, message }) => `  ${paint("red", "failed")}  ${id}: ${message}`),
  ];
}

function runningLine({ id, host, pid, since, attempt, step, steps, silent, dead }: RunningRun): string {
  const who = host === null ? "somebody" : `process ${pid} on ${host}`;
  const far = steps === 0 ? "" : `, step ${step} of ${steps}`;
  const when = since === null ? "" : `, since ${since.slice(0, 19).replace("T", " ")} UTC`;
  const again = attempt === 1 ? "" : `, attempt ${attempt}`;
  const mark = dead ? paint("red", "dead   ") : paint("green", "running");
  const gone = dead ? `; no sign of life for ${duration(silent)}: the next free agent takes it over` : "";
  return `  ${mark} ${id}: ${who}${when}${far}${again}${gone}`;
}
