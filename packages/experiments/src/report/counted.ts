/** Selects the results in a sweep's folder that count: the results of runs in the sweep's file, which is stored with them. */
import { type RunConfig, type RunFailure, runId, type RunResult } from "../sweep/config.ts";
import { expandSweep } from "../sweep/expand.ts";
import { parseSweep } from "../sweep/spec.ts";

/** The results and failures that count, and the ids of runs that are missing or do not count. */
export interface Counted {
  readonly results: readonly RunResult[];
  readonly failures: readonly RunFailure[];
  /** Runs of the file that have neither succeeded nor failed yet. */
  readonly missing: readonly string[];
  /** Runs in the folder, but not in the file: from an earlier version of the file, or from another one. */
  readonly leftOut: readonly string[];
}

/**
 * Sorts results by `spec`, the text of the sweep's file; if it is null, there is no file, and all count. Throws YamlError,
 * which names `file`, if the text is not a valid sweep.
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
