/** Which of the results in a sweep's folder count: those of its file, as it is stored with them. */
import { type RunConfig, type RunFailure, runId, type RunResult } from "../sweep/config.ts";
import { expandSweep } from "../sweep/expand.ts";
import { parseSweep } from "../sweep/spec.ts";

/** The results that count, and what does not. */
export interface Counted {
  readonly results: readonly RunResult[];
  readonly failures: readonly RunFailure[];
  /** Runs of the file that have neither succeeded nor failed yet. */
  readonly missing: readonly string[];
  /** Runs that are in the folder, but not in the file: of an earlier version of it, or of another. */
  readonly leftOut: readonly string[];
}

/**
 * Sorts results by the text of the sweep's file; null: there is none, and all count. Throws SpecError, which names `file`, if
 * the text is no sweep.
 */
export function countedRuns(
  results: readonly RunResult[],
  failures: readonly RunFailure[],
  spec: string | null,
  file: string,
): Counted {
  if (spec === null) return { results, failures, missing: [], leftOut: [] };
  const wanted = expandSweep(parseSweep(spec, file)).map(runId);
  const counts = ({ id, config }: { readonly id: string; readonly config: RunConfig }): boolean =>
    wanted.includes(id) && runId(config) === id;
  const there = new Set([...results, ...failures].filter(counts).map(({ id }) => id));
  return {
    results: results.filter(counts),
    failures: failures.filter(counts),
    missing: wanted.filter((id) => !there.has(id)),
    leftOut: [...new Set([...results, ...failures].filter((one) => !counts(one)).map(({ id }) => id))],
  };
}
