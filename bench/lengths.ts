/**
 * What a sequence length that no step has had before costs: a training step of TL6 on a decoder of the shape of stories260K, of
 * new lengths and of known ones in turn, in CPU time of all threads together and in elapsed time. The lengths are 24 of 65 to 128. Then
 * a training of 192 steps, of 64 lengths in turn and padded to one: the functions that are compiled, and the CPU time of a token.
 *
 *   npm run bench:lengths
 */
import { cpus } from "node:os";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device, Tensor } from "@tiedlora/core";
import { configFrom, createModel } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";

const BATCH = 8;
const LENGTHS = Array.from({ length: 24 }, (_, i) => 65 + ((i * 37) % 64));

interface Cost {
  readonly cpuMs: number;
  readonly ms: number;
}

function stepOf(device: Device): (length: number, seed: number) => Tensor {
  const config = configFrom({
    model_type: "llama",
    vocab_size: 512,
    hidden_size: 64,
    intermediate_size: 172,
    num_hidden_layers: 5,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    max_position_embeddings: 512,
    tie_word_embeddings: true,
  });
  const model = createModel(config, { device, seed: 1 });
  const adapter = adapt(model, methods.tl6({ rank: 8 }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.01 });
  return (length, seed) => {
    const token = (_: unknown, i: number): number => (seed + 7 * i) % 512;
    const x = Int32Array.from({ length: BATCH * length }, token);
    const logits = model.forward(device.tensor(x, { shape: [BATCH, length] }));
    const loss = nn.crossEntropy(logits.reshape([BATCH * length, 512]), device.tensor(x));
    optimizer.step(loss);
    return loss;
  };
}

async function timed(work: () => Promise<unknown>): Promise<Cost> {
  const [before, start] = [process.cpuUsage(), performance.now()];
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpuMs: (user + system) / 1000, ms: performance.now() - start };
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Counts the functions of modules that are compiled on this thread from now on. */
function countFunctions(): () => number {
  let functions = 0;
  const { Module } = WebAssembly;
  WebAssembly.Module = class extends Module {
    constructor(bytes: BufferSource) {
      super(bytes);
      functions += Module.exports(this).length;
    }
  };
  return () => functions;
}

/** CPU milliseconds per token of 192 training steps, and how many functions they compile, on a device of their own. */
async function trained(lengthOf: (i: number) => number): Promise<{ perToken: number; compiled: number }> {
  const device = await cpu();
  const step = stepOf(device);
  const before = functions();
  let tokens = 0;
  const { cpuMs } = await timed(async () => {
    for (let i = 0; i < 192; i++) {
      await step(lengthOf(i), i).data();
      tokens += BATCH * lengthOf(i);
    }
  });
  device.close();
  return { perToken: cpuMs / tokens, compiled: functions() - before };
}

const functions = countFunctions();
console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
const device = await cpu();
const step = stepOf(device);
for (const length of [33, 34, 35, 36]) await step(length, 0).data();
const [first, cached]: [Cost[], Cost[]] = [[], []];
for (const length of LENGTHS) {
  first.push(await timed(() => step(length, 1).data()));
  for (let i = 0; i < 3; i++) await step(length, 2).data();
  cached.push(await timed(() => step(length, 3).data()));
}
for (const [name, of] of [
  ["CPU time", (cost: Cost) => cost.cpuMs],
  ["elapsed", (cost: Cost) => cost.ms],
] as const) {
  const [a, b] = [median(first.map(of)), median(cached.map(of))];
  console.log(
    `${name}: first step of a length ${a.toFixed(0)} ms, cached step ${b.toFixed(0)} ms, ratio ${(a / b).toFixed(1)}`,
  );
}
device.close();
const many = await trained((i) => 65 + ((i * 37) % 64));
const one = await trained(() => 128);
console.log(
  `64 lengths: ${many.compiled} functions compiled, those of one length ${one.compiled}; ` +
    `CPU time of a token over that of one length: ${(many.perToken / one.perToken).toFixed(2)}`,
);
