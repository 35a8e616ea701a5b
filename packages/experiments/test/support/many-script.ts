/**
 * Performs a sweep whose runs do nothing, in the folder of the first argument, and writes its report. Prints what it took: calls of the
 * file system for each run that is claimed and published, seconds of computing, and the most memory, in MB. The sweep's file is the
 * second argument.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { writeReport } from "../../src/node/report.ts";
import { folderSource } from "../../src/node/sweep/folder-source.ts";
import { PUBLISHED_AT_ONCE, Publishing } from "../../src/node/sweep/publishing.ts";
import { scheduleOf } from "../../src/node/sweep/schedule.ts";
import { RunStore } from "../../src/node/sweep/store.ts";
import { parseSweep } from "../../src/sweep/spec.ts";
import { pretended } from "./pretended.ts";

/** How often each function of the file system was called since the last look. */
const calls = new Map<string, number>();

/** Makes the functions of an object count their calls. */
function counting(functions: object): void {
  const table = functions as Record<string, unknown>;
  for (const name of Object.keys(table)) {
    const original = table[name];
    if (typeof original !== "function" || /^[A-Z_]|Stream$/.test(name)) continue;
    table[name] = Object.assign(function (this: unknown, ...given: unknown[]): unknown {
      calls.set(name, (calls.get(name) ?? 0) + 1);
      return (original as (...all: unknown[]) => unknown).apply(this, given);
    }, original); // with its form that promisify gives
  }
}
counting(fs);
counting(fs.promises);
syncBuiltinESMExports();

const [folder, file] = process.argv.slice(2) as [string, string];
const text = fs.readFileSync(file, "utf8");
const store = new RunStore(folder);
await store.prepare(text);
const source = await folderSource(store, await scheduleOf(parseSweep(text, file), store));
const { signal } = new AbortController();
calls.clear();
let runs = 0;
const publishing = new Publishing(PUBLISHED_AT_ONCE, () => undefined); // as the pool of processes does
for (;;) {
  const run = await source.next(signal);
  if (run === null) break;
  await publishing.add(async () => {
    const { counts } = await run.publish(pretended(run.config));
    if (!counts) throw new Error(`the result of ${run.config.method} does not count`);
    runs++;
  });
}
await publishing.end();
const perRun = Object.fromEntries([...calls].map(([name, count]) => [name, count / runs]));
const { runs: reported } = await writeReport(folder, join(folder, "report"), { title: "many" });
const { user, system } = process.cpuUsage();
const megabytes = process.resourceUsage().maxRSS / 1e3;
console.log(JSON.stringify({ runs, reported, perRun, seconds: (user + system) / 1e6, megabytes }));
