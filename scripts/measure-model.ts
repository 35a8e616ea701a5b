/**
 * Measures memory and time of a model: loads it, takes steps of TL6 on random tokens, and prints one JSON object.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/measure-model.ts DIR [--backend cpu] [--rank 8] [--tokens 64] [--steps 2]
 *     [--checkpoint]
 *
 * `bytes` is the size of the weights' files, `loadedBytes` the resident memory of the process when the model has been loaded;
 * `loadPeakBytes` and `peakBytes` are the peaks until then and until the end.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { key, uniformArray } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { loadModel } from "@tiedlora/models/node";
import { adapt, methods } from "tiedlora";
import { BACKENDS, isBackendName } from "./backends.ts";

export interface Measurement {
  readonly bytes: number;
  readonly loadSeconds: number;
  readonly loadedBytes: number;
  readonly loadPeakBytes: number;
  /** The time of each step; the first includes compilation. */
  readonly stepSeconds: readonly number[];
  readonly losses: readonly number[];
  readonly peakBytes: number;
  readonly trainable: number;
}

interface Options {
  readonly backend: keyof typeof BACKENDS;
  readonly rank: number;
  readonly tokens: number;
  readonly steps: number;
  /** Whether each layer's values are computed again in the backward pass instead of kept. */
  readonly checkpoint: boolean;
}

const rss = (): number => process.memoryUsage.rss();
const peak = (): number => process.resourceUsage().maxRSS * 1024;

async function measure(directory: string, options: Options): Promise<Measurement> {
  const { backend, rank, tokens, steps, checkpoint } = options;
  const device = await BACKENDS[backend]();
  const bytes = await weightBytes(directory);
  let before = performance.now();
  const seconds = (): number => {
    const now = performance.now();
    const elapsed = (now - before) / 1000;
    before = now;
    return elapsed;
  };
  const model = await loadModel(directory, { device });
  const loaded = { loadSeconds: seconds(), loadedBytes: rss(), loadPeakBytes: peak() };

  model.checkpointing = checkpoint;
  const adapter = adapt(model, methods.tl6({ rank, target: "qkv" }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-3 });
  const { vocab } = model.config;
  const inputIds = [Int32Array.from(uniformArray(key(1), tokens, 0, vocab), Math.floor)];
  const stepSeconds: number[] = [];
  const losses: number[] = [];
  seconds();
  for (let step = 0; step < steps; step++) {
    const loss = model.loss({ inputIds });
    optimizer.step(loss);
    losses.push(await loss.item());
    await device.sync();
    stepSeconds.push(seconds());
  }
  const trainable = adapter.parameters().reduce((sum, { size }) => sum + size, 0);
  device.close();
  return { bytes, ...loaded, stepSeconds, losses, peakBytes: peak(), trainable };
}

async function weightBytes(directory: string): Promise<number> {
  const files = (await readdir(directory)).filter((name) => name.endsWith(".safetensors"));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(directory, name))).size));
  return sizes.reduce((a, b) => a + b, 0);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: "string", default: "cpu" },
    rank: { type: "string", default: "8" },
    tokens: { type: "string", default: "64" },
    steps: { type: "string", default: "2" },
    checkpoint: { type: "boolean", default: false },
  },
});
const [directory] = positionals;
const { backend, checkpoint } = values;
if (directory === undefined || positionals.length !== 1) throw new Error("give the directory of one model");
if (!isBackendName(backend))
  throw new Error(`--backend ${backend}: need one of ${Object.keys(BACKENDS).join(", ")}`);
const [rank, tokens, steps] = [Number(values.rank), Number(values.tokens), Number(values.steps)];
console.log(JSON.stringify(await measure(directory, { backend, rank, tokens, steps, checkpoint })));
