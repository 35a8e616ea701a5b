/** The part of the library that needs Node's file system. */
export { initFrom, loadAdapter, saveAdapter, saveAdapters, saveMerged, textFile } from "./node/files.ts";
export { FolderInUseError } from "./node/lock.ts";
export { METRIC_FORMATS, type MetricFormat } from "./node/metrics.ts";
export { run, type RunOptions, type RunResult } from "./node/run.ts";
export { directorySource } from "./node/tasks.ts";
