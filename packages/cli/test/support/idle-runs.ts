/** Runs that do nothing for a while, for tests of what hands them out. */
import { type RunConfig, runId } from "../../../experiments/src/sweep/config.ts";
import { expandSweep } from "../../../experiments/src/sweep/expand.ts";
import { parseSweep } from "../../../experiments/src/sweep/spec.ts";

export const SPEC = `name: idle
on: { model: base, tasks: [choice] }
out: idle
vary: { method: [tl6], rank: [2] }
evaluate: { baseline: false }
`;

/** So many runs, told apart by their seeds. */
export function idleRuns(count: number): RunConfig[] {
  const [config] = expandSweep(parseSweep(SPEC, "idle.yaml"));
  return Array.from({ length: count }, (_, seed) => ({ ...config!, seed }));
}

export const idleId = (seed: number): string => runId({ ...idleRuns(1)[0]!, seed });
