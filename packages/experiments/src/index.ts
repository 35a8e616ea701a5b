/**
 * Sweeps over methods, ranks, tasks and seeds, and their reports.
 * @module
 */
export { choiceText, chosenText, type Group, measureOf, qualityOf } from "./report/summary.ts";
export { type RunConfig, type RunFailure, runId, type RunResult } from "./sweep/config.ts";
export { expandSweep } from "./sweep/expand.ts";
export { parseSweep, type SweepSpec } from "./sweep/spec.ts";
export { readYaml, YamlError } from "./yaml.ts";
