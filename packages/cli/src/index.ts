/**
 * The command line as functions: its entry point, and training into a run folder.
 * @module
 */
export { main } from "./main.ts";
export type { Output } from "./output.ts";
export { FolderInUseError } from "./run/lock.ts";
export { METRIC_FORMATS, type MetricFormat, type Metrics } from "./run/metrics.ts";
export type { Callbacks, RunStart } from "./run/callbacks.ts";
export { run, type RunOptions, type RunResult } from "./run/run.ts";
