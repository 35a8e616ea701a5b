/**
 * The part of experiments that needs Node: the base model in this package, data sets in directories, pools of processes.
 * @module
 */
export { BASE_DIRECTORY, embeddedBase, loadBase } from "./node/base.ts";
export { lastingCache } from "./node/lasting-cache.ts";
export { FIGURE_FORMATS, type FigureFormat, writeReport, type WrittenReport } from "./node/report.ts";
export { runPool } from "./node/sweep/pool.ts";
export { scheduleOf } from "./node/sweep/schedule.ts";
export { folderSource, type FolderSource, type FolderSourceOptions } from "./node/sweep/folder-source.ts";
export {
  type Performing,
  type RunningRun,
  statusOf,
  sweepStatus,
  type SweepStatus,
} from "./node/sweep/status.ts";
export { largestRuns, stepTokens } from "./node/sweep/step-tokens.ts";
export { RunStore } from "./node/sweep/store.ts";
export { directorySource, NO_FILES } from "./node/tasks.ts";
