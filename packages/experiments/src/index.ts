/**
 * Sweeps over methods, ranks, tasks and seeds, and their reports.
 * @module
 */
export { choiceText, chosenText, type Group, measureOf, qualityOf } from "./report/summary.ts";
export {
  isWhole,
  type Outcome,
  type Point,
  type RunConfig,
  type SweepRanks,
  type RunFailure,
  type RungResult,
  runId,
  type RunResult,
  validationLoss,
  wholeId,
} from "./sweep/config.ts";
export { differenceOf } from "./sweep/difference.ts";
export { expandSweep } from "./sweep/expand.ts";
export {
  type ClaimedRun,
  fixedSchedule,
  type Publication,
  type RunSource,
  type Schedule,
} from "./sweep/source.ts";
export type { Halving, Search } from "./sweep/search.ts";
export { parseSweep, type SweepSpec } from "./sweep/spec.ts";
export { readYaml, YamlError } from "./yaml.ts";
