/**
 * Measures memory and time of a model: loads it, takes steps of TL6 on random tokens, and prints one JSON object.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/measure-model.ts DIR [--backend cpu] [--rank 8] [--tokens 64] [--steps 2]
 *     [--checkpoint] [--stream]
 *
 * `bytes` is the size of the weights' files, `loadedBytes` the resident memory of the process when the model has been loaded;
 * `loadPeakBytes` and `peakBytes` are the peaks until then and until the end.
 */
import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Device, type Files, key, realize, type Source, uniformArray } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { type Decoder, type DecoderConfig, linearSpecs, loadModelFrom } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
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
  /** The programs that were compiled for the steps. */
  readonly programs: number;
  /** The operations of a step's products, those of recomputation included. */
  readonly flop: number;
  /** The rate of products of this model's shape, measured between loading and training. */
  readonly gflops: number;
  /** The bytes that the last step has read from files. */
  readonly stepReadBytes: number;
  /** The bytes of weights that are read from files while training, and the rate at which they are read once they are cached. */
  readonly streamedBytes: number;
  readonly readBytesPerSecond: number;
  /** A digest of the adapter after the last step. */
  readonly adapter: string;
}

interface Options {
  readonly backend: keyof typeof BACKENDS;
  readonly rank: number;
  readonly tokens: number;
  readonly steps: number;
  /** Whether each layer's values are computed again in the backward pass instead of kept. */
  readonly checkpoint: boolean;
  /** Whether the layers' weights are read from their files while training. */
  readonly stream: boolean;
}

const rss = (): number => process.memoryUsage.rss();
const peak = (): number => process.resourceUsage().maxRSS * 1024;

async function measure(directory: string, options: Options): Promise<Measurement> {
  const { backend, rank, tokens, steps, checkpoint, stream } = options;
  const device = await BACKENDS[backend]();
  const bytes = await weightBytes(directory);
  let before = performance.now();
  const seconds = (): number => {
    const now = performance.now();
    const elapsed = (now - before) / 1000;
    before = now;
    return elapsed;
  };
  const disk = counted(await directoryFiles(directory));
  const model = await loadModelFrom(disk.files, { device, stream });
  const loaded = { loadSeconds: seconds(), loadedBytes: rss(), loadPeakBytes: peak() };

  model.checkpointing = checkpoint;
  const adapter = adapt(model, methods.tl6({ rank, target: "qkv" }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-3 });
  const { vocab } = model.config;
  // one token more than is computed: the last one is only predicted
  const inputIds = [Int32Array.from(uniformArray(key(1), tokens + 1, 0, vocab), Math.floor)];
  const gflops = await productRate(device, model.config, tokens);
  const compiled = device.memory().cachedPrograms;
  const stepSeconds: number[] = [];
  const losses: number[] = [];
  seconds();
  let stepReadBytes = 0;
  for (let step = 0; step < steps; step++) {
    const earlier = disk.bytes();
    losses.push(await takeStep(model, optimizer, inputIds));
    await device.sync();
    stepSeconds.push(seconds());
    stepReadBytes = disk.bytes() - earlier;
  }
  const programs = device.memory().cachedPrograms - compiled;
  const [peakBytes, trainable] = [peak(), adapter.count().total];
  const digest = createHash("sha256");
  for (const parameter of adapter.parameters())
    digest.update(new Uint8Array((await parameter.data()).buffer));
  const streamedBytes = model.streamed?.streamedBytes ?? 0;
  seconds();
  if (model.streamed) for (const [, { weight }] of model.linears()) await model.streamed.resident([weight], () => Promise.resolve()); // prettier-ignore
  const readBytesPerSecond = streamedBytes / Math.max(seconds(), 1e-9);
  device.close();
  return {
    bytes,
    ...loaded,
    stepSeconds,
    losses,
    peakBytes,
    trainable,
    programs,
    flop: flopOf(model.config, tokens),
    gflops,
    stepReadBytes,
    streamedBytes,
    readBytesPerSecond,
    adapter: digest.digest("hex"),
  };
}

/** Files that count the bytes that are read from them. */
function counted(files: Files): { readonly files: Files; bytes(): number } {
  let bytes = 0;
  const count = (source: Source): Source => ({
    ...source,
    read: async (offset, length) => {
      const found = await source.read(offset, length);
      bytes += found.byteLength;
      return found;
    },
    readInto: async (offset, target) => {
      const found = await source.readInto!(offset, target);
      bytes += found;
      return found;
    },
  });
  const open: Files["open"] = async (name) => {
    const source = await files.open(name);
    return source && count(source);
  };
  return { files: { ...files, open }, bytes: () => bytes };
}

async function takeStep(
  model: Decoder,
  optimizer: optim.Optimizer,
  inputIds: readonly Int32Array[],
): Promise<number> {
  if (model.streamed) {
    const { loss, gradients } = await model.streamed.gradients({ inputIds }, optimizer.parameters);
    optimizer.step(gradients);
    return loss;
  }
  const loss = model.loss({ inputIds });
  optimizer.step(loss);
  return loss.item();
}

/** Per token: each layer forward twice and its input's gradient; the head forward and its input's gradient. */
function flopOf(config: DecoderConfig, tokens: number): number {
  const weights = linearSpecs(config).map((spec) => spec.in * spec.out);
  const head = weights.pop()!;
  return tokens * (6 * weights.reduce((a, b) => a + b, 0) + 4 * head);
}

/** The rate of the largest product of a layer, in billions of operations per second: the best of three. */
async function productRate(device: Device, config: DecoderConfig, tokens: number): Promise<number> {
  const { hidden, intermediate } = config;
  const values = (n: number): Float32Array => new Float32Array(n).fill(0.01);
  const x = device.tensor(values(tokens * hidden), { shape: [tokens, hidden] });
  const weight = nn.Parameter.from(device, values(hidden * intermediate), [intermediate, hidden], "f16");
  let best = 0;
  for (let i = 0; i < 4; i++) {
    const sums = Array.from({ length: 8 }, (_, k) => x.mul(k + 1).matmul(weight.transpose()));
    await device.sync();
    const start = performance.now();
    realize(...sums);
    await device.sync();
    const rate = (8 * 2 * tokens * hidden * intermediate) / (performance.now() - start) / 1e6;
    if (i > 0) best = Math.max(best, rate);
  }
  weight.storage.buffer.free();
  return best;
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
    stream: { type: "boolean", default: false },
  },
});
const [directory] = positionals;
const { backend, checkpoint, stream } = values;
if (directory === undefined || positionals.length !== 1) throw new Error("give the directory of one model");
if (!isBackendName(backend))
  throw new Error(`--backend ${backend}: need one of ${Object.keys(BACKENDS).join(", ")}`);
const [rank, tokens, steps] = [Number(values.rank), Number(values.tokens), Number(values.steps)];
console.log(JSON.stringify(await measure(directory, { backend, rank, tokens, steps, checkpoint, stream })));
