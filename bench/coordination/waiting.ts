/** Runs that only wait, and write down when. */
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Outcome, RunConfig } from "@tiedlora/experiments";
import { idleRuns } from "../../packages/cli/test/support/idle-runs.ts";
import { idleResult } from "../../packages/cli/test/support/queue-idle-result.ts";
import type { ClaimedRun, RunSource } from "../../packages/experiments/src/sweep/source.ts";

/** So many different runs. */
export const waitingRuns: (count: number) => RunConfig[] = idleRuns;

/** Performs the runs of a source, one after another: each waits, and has a made-up result. */
export async function wait(source: RunSource, seconds: number, log: string): Promise<void> {
  const { signal } = new AbortController();
  for (let run: ClaimedRun | null; (run = await source.next(signal)) !== null;) {
    const start = Date.now();
    await sleep(1000 * seconds);
    const end = Date.now();
    const result: Outcome = idleResult(run.config);
    appendFileSync(log, `${start} ${end}\n`);
    await run.publish(result);
  }
}
