/**
 * Measures training with the weights in their file: makes a model of a given shape with random weights, takes steps of TL6 on
 * random tokens layer by layer, prints the figures, and removes the model.
 *
 *   npm run scale -- 7b|1b [--quantize nf4] [--layers N] [--tokens 128] [--steps 3] [--directory DIR]
 *
 * `1b` also trains the model in memory, and compares the adapters. `--quantize nf4`: the layers' matrices are stored as bitsandbytes
 * does, in 4 bits. `--directory`: where the model is made (default: the system's
 * folder for temporary files). It takes 13.5 GB of disk for 7b, and 2.2 GB for 1b.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { configFrom, countParameters, preset } from "@tiedlora/models";
import { makeModel } from "./make-model.ts";
import type { Measurement } from "./measure-model.ts";

const SHAPES: Readonly<Record<string, { readonly preset: string; readonly compare: boolean }>> = {
  "7b": { preset: "llama-2-7b", compare: false },
  "1b": { preset: "tinyllama-1.1b", compare: true },
};
const ROOT = resolve(import.meta.dirname, "..");
const GIB = 2 ** 30;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    layers: { type: "string" },
    quantize: { type: "string" },
    tokens: { type: "string", default: "128" },
    steps: { type: "string", default: "3" },
    directory: { type: "string", default: tmpdir() },
  },
});
const shape = SHAPES[positionals[0] ?? ""];
if (shape === undefined || positionals.length !== 1)
  throw new Error(`give one shape, of ${Object.keys(SHAPES).join(" and ")}`);
const { quantize } = values;
if (quantize !== undefined && quantize !== "nf4") throw new Error(`--quantize ${quantize}: need nf4`);
const whole = preset(shape.preset)!;
const layers = values.layers === undefined ? whole.layers : Number(values.layers);
const config = configFrom({ ...whole.raw, num_hidden_layers: layers });
// in bitsandbytes' form, most numbers take four bits and a share of a scale
checkDisk(values.directory, (quantize === undefined ? 2 : 0.75) * countParameters(config));
const directory = mkdtempSync(join(values.directory, "tiedlora-scale-"));
process.once("SIGINT", () => process.exit(130));
process.once("exit", () => rmSync(directory, { recursive: true, force: true }));

console.log(`making a model of ${shape.preset}'s shape with ${layers} layers in ${directory}`);
await makeModel(config, directory, { dtype: "f16", quantize, maxShardBytes: 2e9 });
const streamed = measure(["--stream"]);
report(streamed);
if (shape.compare) {
  const resident = measure([]);
  const equal = resident.adapter === streamed.adapter;
  console.log(`the adapter after ${values.steps} steps, streamed and in memory: ${equal ? "equal bits" : "different bits"}`); // prettier-ignore
  console.log(`losses streamed ${streamed.losses.join(", ")}; in memory ${resident.losses.join(", ")}`);
}

function checkDisk(at: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(at);
  const [free, needed] = [bavail * bsize, bytes + GIB];
  if (free >= needed) return;
  throw new Error(
    `${at} has ${(free / GIB).toFixed(1)} GiB of free disk; the model takes ${(needed / GIB).toFixed(1)} GiB: give another place with --directory`,
  );
}

/** Trains in a process of its own, whose memory is its own, from a cold page cache where the system can empty it. */
function measure(flags: readonly string[]): Measurement {
  for (const name of readdirSync(directory))
    execFileSync(
      "dd",
      [`of=${join(directory, name)}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"],
      {
        stdio: "ignore",
      },
    );
  const script = join(ROOT, "scripts/measure-model.ts");
  const args = [directory, "--checkpoint", `--tokens=${values.tokens}`, `--steps=${values.steps}`, ...flags];
  const node = ["--import=tsx", "--conditions=@tiedlora/source", script, ...args];
  return JSON.parse(execFileSync(process.execPath, node, { cwd: ROOT, encoding: "utf8" })) as Measurement;
}

function report({
  flop,
  gflops,
  stepSeconds,
  readBytesPerSecond,
  stepReadBytes,
  streamedBytes,
  peakBytes,
  programs,
}: Measurement): void {
  const compute = flop / gflops / 1e9;
  const reading = (2 * streamedBytes) / readBytesPerSecond;
  const [first = 0, ...rest] = stepSeconds;
  const mean = rest.reduce((a, b) => a + b, 0) / Math.max(1, rest.length);
  const rows = {
    "work of a step": `${(flop / 1e12).toFixed(2)} TFLOP`,
    "products of this shape in this run": `${gflops.toFixed(0)} GFLOP/s`,
    "later steps": `${mean.toFixed(1)} s, ${(mean / compute).toFixed(2)} times the work at that rate`,
    "reading the layers once, from the page cache": `${(reading / 2).toFixed(1)} s`,
    "first step, files not cached": `${first.toFixed(1)} s, ${(first / Math.max(compute, reading)).toFixed(2)} times the larger of both`,
    "read from files in a step": `${(stepReadBytes / 1e9).toFixed(2)} GB`,
    "peak of resident memory": `${(peakBytes / GIB).toFixed(2)} GiB`,
    "compiled programs": String(programs),
  };
  for (const [name, value] of Object.entries(rows)) console.log(`${name.padEnd(48)}${value}`);
}
