/**
 * What it costs that several processes share a sweep or a training: on this machine, with a Valkey server of its own on loopback.
 *
 *   npm run bench:coordination                     all of it, in about four minutes; most of it is waiting
 *   npm run bench:coordination -- claims queue     parts of it: claims, queue, training
 *
 * The first two parts perform runs that only wait, so many seconds each (--seconds 10), four at once, and compare the time from the
 * first start to the last end with the time that the runs took themselves. The third compares the steps of a training that one worker
 * computes with those of the same training in one process, by turns.
 */
import { parseArgs } from "node:util";
import { claims, queue, type Sweep } from "./coordination/sweeps.ts";
import { training } from "./coordination/training.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "10" },
    runs: { type: "string", default: "24" },
    steps: { type: "string", default: "40" },
    rounds: { type: "string", default: "3" },
  },
});
const sweep: Sweep = { runs: Number(values.runs), seconds: Number(values.seconds), atOnce: 4 };
const parts: Readonly<Record<string, () => Promise<void>>> = {
  claims: () => claims(sweep),
  queue: () => queue(sweep),
  training: () => training({ steps: Number(values.steps), rounds: Number(values.rounds) }),
};
const other = positionals.find((name) => !(name in parts));
if (other !== undefined) throw new Error(`${other}: expected ${Object.keys(parts).join(", ")}`);
for (const [name, part] of Object.entries(parts))
  if (positionals.length === 0 || positionals.includes(name)) await part();
