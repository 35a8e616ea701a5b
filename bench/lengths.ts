/**
 * What a sequence length that no step has had before costs: a training step of TL6 on a decoder of the shape of stories260K, of
 * new lengths and of known ones in turn, in CPU time of all threads together and in elapsed time. The lengths are 24 of 65 to 128. Then
 * a training of 192 steps, of 64 lengths in turn and padded to one: the functions that are compiled, and the CPU time of a token. On
 * WebGPU, 8 lengths, and the pipelines that they compile.
 *
 *   npm run bench:lengths [-- webgpu]
 */
import { cpus } from "node:os";
import { cpu } from "@tiedlora/backend-cpu";
import { createWebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, type Tensor } from "@tiedlora/core";
import { decoderStep, STORIES } from "./decoder.ts";

type Step = (length: number, seed: number) => Tensor;

interface Cost {
  readonly cpuMs: number;
  readonly ms: number;
}

async function timed(work: () => Promise<unknown>): Promise<Cost> {
  const [before, start] = [process.cpuUsage(), performance.now()];
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpuMs: (user + system) / 1000, ms: performance.now() - start };
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Length `i` of the lengths from 65 to 128. */
const lengthAt = (i: number): number => 65 + ((i * 37) % 64);

/** Prints the cost of the first step of `count` lengths, and that of cached steps. */
async function compareSteps(step: Step, count: number, known: readonly number[]): Promise<void> {
  for (const length of known) await step(length, 0).data();
  const [first, cached]: [Cost[], Cost[]] = [[], []];
  for (let i = 0; i < count; i++) {
    const length = lengthAt(i);
    first.push(await timed(() => step(length, 1).data()));
    for (let j = 0; j < 3; j++) await step(length, 2).data();
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
}

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
async function trained(
  lengthOf: (i: number) => number,
  functions: () => number,
): Promise<{ perToken: number; compiled: number }> {
  const device = await cpu();
  const step = decoderStep(device, STORIES);
  const before = functions();
  let tokens = 0;
  const { cpuMs } = await timed(async () => {
    for (let i = 0; i < 192; i++) {
      await step(lengthOf(i), i).data();
      tokens += STORIES.batch * lengthOf(i);
    }
  });
  device.close();
  return { perToken: cpuMs / tokens, compiled: functions() - before };
}

async function onCpu(): Promise<void> {
  const functions = countFunctions();
  const device = await cpu();
  await compareSteps(decoderStep(device, STORIES), 24, [33, 34, 35, 36]);
  device.close();
  const many = await trained(lengthAt, functions);
  const one = await trained(() => 128, functions);
  console.log(
    `64 lengths: ${many.compiled} functions compiled, those of one length ${one.compiled}; ` +
      `CPU time of a token over that of one length: ${(many.perToken / one.perToken).toFixed(2)}`,
  );
}

async function onWebGpu(): Promise<void> {
  const backend = await createWebGpuBackend();
  console.log(backend.adapter.description);
  const device = new Device(backend);
  const step = decoderStep(device, STORIES);
  await step(33, 0).data();
  const one = backend.counters.pipelines;
  await compareSteps(step, 8, [34, 35, 36]);
  console.log(`12 lengths: ${backend.counters.pipelines} pipelines compiled, those of one length ${one}`);
  device.close();
}

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
await (process.argv[2] === "webgpu" ? onWebGpu() : onCpu());
