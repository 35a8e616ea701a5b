/**
 * The loop of a process under measurement: it sets up one training; then each line of its input is a number of steps to do,
 * and it answers with their losses and times. So the parent can let several frameworks take turns.
 */
import { createInterface } from "node:readline";
import type { Work } from "../problems.ts";

/** The command-line argument of a process, as JSON. */
export interface Task {
  readonly work: Work;
  readonly backend: "cpu" | "webgpu";
  /** How the framework is used, if there is a choice; see participants.ts. */
  readonly mode?: string;
  /** The folder of the cache across processes, if there is one. */
  readonly cache?: string;
}

/** The answer to a request for steps. */
export interface Answer {
  readonly losses: readonly number[];
  readonly ms: readonly number[];
  /** The peak memory of the process so far. */
  readonly peakMb: number;
}

/** Finishes step i, and resolves to its loss (before the update). */
export type Step = (i: number) => Promise<number>;

export async function serve(setup: (task: Task) => Promise<Step>): Promise<void> {
  const step = await setup(JSON.parse(process.argv[2]!) as Task);
  let i = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = { losses: [] as number[], ms: [] as number[] };
    for (let n = Number(line); n > 0; n--) {
      const started = performance.now();
      answer.losses.push(await step(i++));
      answer.ms.push(performance.now() - started);
    }
    const peakMb = process.resourceUsage().maxRSS / 1024;
    console.log(JSON.stringify({ ...answer, peakMb } satisfies Answer));
  }
  process.exit(0); // workers of some frameworks would keep the process alive
}
