/** A worker of a queue's sweep, as a process. */
import { processOutput } from "../../packages/cli/src/output.ts";
import { QueueServer } from "../../packages/cli/src/queue/server.ts";
import { QueueRunSource } from "../../packages/cli/src/queue/sweep/source.ts";
import { wait } from "./waiting.ts";

const [url, log, id, seconds] = process.argv.slice(2) as [string, string, string, string];
const server = await QueueServer.open(url, processOutput());
const source = await QueueRunSource.open(server, {
  announcement: { kind: "sweep", id, version: "", host: "", name: id, model: "base", modelDigest: "", data: [], largest: [], backend: "cpu" }, // prettier-ignore
  here: (config) => config,
  leave: () => Promise.resolve(false),
  say: () => undefined,
});
process.send!("ready");
await wait(source, Number(seconds), log);
