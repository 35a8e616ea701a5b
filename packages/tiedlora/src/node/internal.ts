/** As `tiedlora/internal`, for Node: checkpoints, and the contents of folders. */
export {
  checkpointName,
  checkpointSteps,
  damageOf,
  pruneCheckpoints,
  readState,
  removeUnfinished,
  restoreAdapter,
  restoreCheckpoint,
  type RunState,
  saveCheckpoint,
} from "./checkpoint.ts";
export { DATA_PARTS, dataFile, type DataPart } from "./data.ts";
export { digestOf } from "./digests.ts";
export {
  checkFree,
  CHECKPOINTS,
  checkTarget,
  type Holding,
  HOLDINGS,
  holdingsOf,
  LOGS,
  RUN_FILE,
  RUN_FILE_BEGINS,
  RUN_FILE_ENDS,
  runFileKind,
  writtenByRun,
} from "./holdings.ts";
export { isAliveSince, startOf } from "./process-start.ts";
export { isWriteError, writeError, writing } from "./writing.ts";
