/**
 * An agent whose runs do nothing (see idle-worker.ts): arguments are the folder, the number of runs, and the seconds after which an
 * agent without a sign of life is taken for dead. Prints a line of JSON for what happens.
 */
import { join } from "node:path";
import { fixedSchedule } from "@tiedlora/experiments";
import { folderSource, runPool, RunStore } from "@tiedlora/experiments/node";
import { idleRuns, SPEC } from "./idle-runs.ts";

const [directory, runs, seconds] = process.argv.slice(2) as [string, string, string];
const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);

const store = new RunStore(directory);
await store.prepare(SPEC);
const source = await folderSource(store, fixedSchedule(idleRuns(Number(runs))), {
  staleSeconds: Number(seconds),
  onTakenOver: (id, attempt) => say({ takenOver: id, attempt }),
});
await runPool(source, {
  parallel: 1,
  backend: "cpu",
  threads: 1,
  worker: join(import.meta.dirname, "idle-worker.ts"),
  onStart: ({ seed }) => say({ started: seed }),
  onDone: ({ config }, publication) => say({ done: config.seed, ...publication }),
  onFailed: ({ config, message }) => say({ failed: config.seed, message }),
  onLeft: ({ seed }, lost) => say({ left: seed, lost }),
});
say({ over: source.left, failures: source.failures });
