/** An agent of a sweep in a shared folder, as a process. */
import { once } from "node:events";
import { fixedSchedule } from "../../packages/experiments/src/sweep/source.ts";
import { folderSource } from "../../packages/experiments/src/node/sweep/folder-source.ts";
import { RunStore } from "../../packages/experiments/src/node/sweep/store.ts";
import type { Sweep } from "./sweeps.ts";
import { wait, waitingRuns } from "./waiting.ts";

const [directory, log, given] = process.argv.slice(2) as [string, string, string];
const { runs, seconds } = JSON.parse(given) as Sweep;
process.send!("ready");
await once(process, "message");
await wait(await folderSource(new RunStore(directory), fixedSchedule(waitingRuns(runs))), seconds, log);
process.disconnect();
