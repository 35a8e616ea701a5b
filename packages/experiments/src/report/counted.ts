/** Selects the results in a sweep's folder that count: the results of runs in the sweep's file, which is stored with them. */
import {
  isWhole,
  type Outcome,
  type RunConfig,
  type RunFailure,
  runId,
  type RunResult,
} from "../sweep/config.ts";
import { expandSweep } from "../sweep/expand.ts";
import { HalvingSchedule } from "../sweep/halving.ts";
import { halvingOf } from "../sweep/search.ts";
import { parseSweep } from "../sweep/spec.ts";
import { type Searched, searched } from "./searched.ts";

/** The results and failures that count, and the ids of runs that are missing or do not count. */
export interface Counted {
  /** The results of whole runs. */
  readonly results: readonly RunResult[];
  /** All results, those that a search ended early among them. */
  readonly outcomes: readonly Outcome[];
  readonly failures: readonly RunFailure[];
  /** Runs of the file that have neither succeeded nor failed yet. */
  readonly missing: readonly string[];
  /** Runs in the folder, but not in the file: from an earlier version of the file, or from another one. */
  readonly leftOut: readonly string[];
  /** What a search has stopped early; null if the sweep does not search. */
  readonly search: Searched | null;
}

/**
 * Sorts results by `spec`, the text of the sweep's file; if it is null, there is no file, and all count. `decided` are the ids that
 * name the decisions of a search. Throws YamlError, which names `file`, if the text is not a valid sweep.
 */
export function countedRuns(
  given: {
    readonly outcomes: readonly Outcome[];
    readonly failures: readonly RunFailure[];
    readonly decided: ReadonlySet<string>;
  },
  text: string | null,
  file: string,
): Counted {
  const { outcomes, failures, decided } = given;
  if (text === null)
    return { results: outcomes.filter(isWhole), outcomes, failures, missing: [], leftOut: [], search: null };
  const spec = parseSweep(text, file);
  const schedule = halvingOf(spec) === null ? null : new HalvingSchedule(spec, { decided });
  const isConsistent = ({ id, config }: { readonly id: string; readonly config: RunConfig }): boolean =>
    runId(config) === id;
  schedule?.learn(outcomes.filter(isConsistent), failures.filter(isConsistent).map(({ id }) => id)); // prettier-ignore
  const wanted = new Set(schedule?.ids() ?? expandSweep(spec).map(runId));
  const counts = (one: { readonly id: string; readonly config: RunConfig }): boolean =>
    wanted.has(one.id) && isConsistent(one);
  const [own, ownFailures] = [outcomes.filter(counts), failures.filter(counts)];
  const there = new Set([...own, ...ownFailures].map(({ id }) => id));
  const others = [...outcomes, ...failures].map(({ id }) => id).filter((id) => !there.has(id));
  return {
    results: own.filter(isWhole),
    outcomes: own,
    failures: ownFailures,
    missing: [...wanted].filter((id) => !there.has(id)),
    leftOut: [...new Set(others)],
    search: schedule && searched(spec, schedule.standings(), own),
  };
}
