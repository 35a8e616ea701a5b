/** A worker of a queue, as a process, whose runs do almost nothing: for tests of what a queue does with hundreds of them. */
import { join } from "node:path";
import { QueueServer } from "../../src/queue/server.ts";
import { Workplace } from "../../src/queue/workplace.ts";
import { processOutput } from "../../src/output.ts";

const [url, log] = process.argv.slice(2);
process.env["TIEDLORA_RUN_LOG"] = log!;
const output = processOutput();
const server = await QueueServer.open(url!, output);
const runModule = join(import.meta.dirname, "queue-idle-run.ts");
const { signal } = new AbortController();
await new Workplace(server, { parallel: 1, runModule, revectorize: false, output }, signal).work();
