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
  type RunFailure,
  type RungResult,
  runId,
  type RunResult,
  validationLoss,
} from "./sweep/config.ts";
export { expandSweep } from "./sweep/expand.ts";
export {
  type ClaimedRun,
  fixedSchedule,
  type Publication,
  type RunSource,
  type Schedule,
} from "./sweep/source.ts";
export { parseSweep, type SweepSpec } from "./sweep/spec.ts";
export { readYaml, YamlError } from "./yaml.ts";
