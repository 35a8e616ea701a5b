/**
 * The loop of a process under measurement: it sets one training up, then does as many steps as a line of its input asks
 * for, and answers with losses and times. So the parent can let several frameworks take turns.
 */
import { createInterface } from "node:readline";
import type { Work } from "../problems.ts";

/** What a process is told on its command line, as JSON. */
export interface Task {
  readonly work: Work;
  readonly backend: "cpu" | "webgpu";
  /** How the framework is to be used, where it matters; see participants.ts. */
  readonly mode?: string;
}

/** The answer to a request for steps. */
export interface Answer {
  readonly losses: readonly number[];
  readonly ms: readonly number[];
  /** The most memory that the process has held so far. */
  readonly peakMb: number;
}

/** Does step i to the end and resolves to its loss (before the update). */
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
  process.exit(0); // workers of some frameworks would keep the process
}
