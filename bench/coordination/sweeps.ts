/** Sweeps whose runs only wait, in a shared folder and on a queue: what is above their own time is coordination. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixedSchedule } from "../../packages/experiments/src/sweep/source.ts";
import { RunStore } from "../../packages/experiments/src/node/sweep/store.ts";
import { processOutput } from "../../packages/cli/src/output.ts";
import { QueueServer } from "../../packages/cli/src/queue/server.ts";
import { productVersion } from "../../packages/cli/src/queue/identity.ts";
import { sweepOnQueue } from "../../packages/cli/src/queue/sweep/coordinator.ts";
import { SERVERS } from "../../packages/cli/test/support/queue-servers.ts";
import { waitingRuns } from "./waiting.ts";

export interface Sweep {
  readonly runs: number;
  /** The seconds of a run. */
  readonly seconds: number;
  /** The number of processes that perform runs. */
  readonly atOnce: number;
}

/** Begins processes of a script beside this file, each of which says when it is ready. */
async function processes(count: number, script: string, ...argv: string[]): Promise<ChildProcess[]> {
  const children = Array.from({ length: count }, () => fork(join(import.meta.dirname, script), argv));
  await Promise.all(children.map((child) => once(child, "message")));
  return children;
}

/** From the first start to the last end, as the runs have written them down, beside the time that they took themselves. */
function report(name: string, log: string, { runs, seconds, atOnce }: Sweep): void {
  const lines = readFileSync(log, "utf8").trim().split("\n").map((line) => line.split(" ").map(Number)); // prettier-ignore
  if (lines.length !== runs) throw new Error(`${lines.length} of ${runs} runs`);
  const starts = lines.map(([start]) => start!);
  const ends = lines.map(([, end]) => end!);
  const wall = (Math.max(...ends) - Math.min(...starts)) / 1000;
  const waited = ends.reduce((sum, end, i) => sum + end - starts[i]!, 0) / 1000 / atOnce;
  const cost = (100 * (wall - waited)) / waited;
  console.log(
    `${name}: ${runs} runs of ${seconds} s, ${atOnce} at once: ${wall.toFixed(2)} s, of which the runs themselves ${waited.toFixed(2)} s: ` +
      `${cost.toFixed(2)} % more (${((1000 * (wall - waited) * atOnce) / runs).toFixed(0)} ms a run)`,
  );
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "tiedlora-bench-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Agents that share a folder. */
export function claims(sweep: Sweep): Promise<void> {
  return inFolder(async (folder) => {
    const log = join(folder, "log");
    const store = new RunStore(join(folder, "out"));
    await store.prepare("name: waiting\n");
    const agents = await processes(sweep.atOnce, "agent.ts", store.directory, log, JSON.stringify(sweep));
    const ends = agents.map((agent) => once(agent, "exit"));
    for (const agent of agents) agent.send("go");
    await Promise.all(ends);
    report("claims", log, sweep);
  });
}

/** Workers of a queue. */
export function queue(sweep: Sweep): Promise<void> {
  return inFolder(async (folder) => {
    const log = join(folder, "log");
    const store = new RunStore(join(folder, "out"));
    await store.prepare("name: waiting\n");
    const valkey = await SERVERS.Valkey.start();
    const output = processOutput();
    const server = await QueueServer.open(valkey.url, output);
    const id = "bench";
    const workers = await processes(sweep.atOnce, "queue-worker.ts", valkey.url, log, id, String(sweep.seconds)); // prettier-ignore
    try {
      await sweepOnQueue(server, {
        schedule: fixedSchedule(waitingRuns(sweep.runs)),
        store,
        announcement: { kind: "sweep", id, version: productVersion(), host: "here", name: id, model: "base", modelDigest: "", data: [], largest: [], backend: "cpu" }, // prettier-ignore
        output,
        signal: new AbortController().signal,
        onDone: () => undefined,
        onFailed: ({ message }) => console.error(message),
      });
      report("queue", log, sweep);
    } finally {
      for (const worker of workers) worker.kill("SIGKILL");
      await server.close();
      await valkey.stop();
    }
  });
}
