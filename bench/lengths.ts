/**
 * What a sequence length that no step has had before costs: a training step of TL6 on a decoder of the shape of stories260K, of
 * new lengths and of known ones in turn, in CPU time of all threads together and in elapsed time. The lengths are 24 of 65 to 128. Then
 * a training of 192 steps, of 64 lengths in turn and padded to one: the functions that are compiled, and the CPU time of a token. On
 * WebGPU the same, with the pipelines that they compile.
 *
 *   npm run bench:lengths [-- webgpu]
 */
import { cpus } from "node:os";
import { cpu } from "@tiedlora/backend-cpu";
import { createWebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, type Tensor } from "@tiedlora/core";
import { decoderStep, STORIES } from "./decoder.ts";
import { prepare } from "./workloads.ts";

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

interface Training {
  /** CPU and elapsed milliseconds per token. */
  readonly perToken: Cost;
  readonly compiled: number;
  readonly planned: number;
}

/** 192 training steps on a device of their own, which is closed, and how many functions (or pipelines) they compile. */
async function trained(
  device: Device,
  lengthOf: (i: number) => number,
  compiled: () => number,
): Promise<Training> {
  const step = decoderStep(device, STORIES);
  const before = compiled();
  let tokens = 0;
  const { cpuMs, ms } = await timed(async () => {
    for (let i = 0; i < 192; i++) {
      await step(lengthOf(i), i).data();
      tokens += STORIES.batch * lengthOf(i);
    }
  });
  const { planned } = device.families.counts;
  const result = { perToken: { cpuMs: cpuMs / tokens, ms: ms / tokens }, compiled: compiled() - before };
  device.close();
  return { ...result, planned };
}

/** Prints what 64 lengths cost over one that all are padded to; `what` is compiled. */
function compareTrainings(many: Training, one: Training, what: string): void {
  const [cpuMs, ms] = [many.perToken.cpuMs / one.perToken.cpuMs, many.perToken.ms / one.perToken.ms];
  console.log(
    `64 lengths: ${many.compiled} ${what} compiled, those of one length ${one.compiled}; ${many.planned} lengths planned; ` +
      `a token over that of one length: CPU time ${cpuMs.toFixed(2)}, elapsed ${ms.toFixed(2)}`,
  );
}

async function onCpu(): Promise<void> {
  const functions = countFunctions();
  const device = await cpu();
  await compareSteps(decoderStep(device, STORIES), 24, [33, 34, 35, 36]);
  device.close();
  const many = await trained(await cpu(), lengthAt, functions);
  const one = await trained(await cpu(), () => 128, functions);
  compareTrainings(many, one, "functions");
}

async function onWebGpu(): Promise<void> {
  const backend = await createWebGpuBackend();
  console.log(backend.adapter.description);
  const device = new Device(backend);
  const step = decoderStep(device, STORIES);
  await step(33, 0).data();
  const first = backend.counters.pipelines;
  await compareSteps(step, 24, [34, 35, 36]);
  console.log(`28 lengths: ${backend.counters.pipelines} pipelines compiled, those of one length ${first}`);
  device.close();
  // the driver has these pipelines in its cache by now, so that both trainings get them from there
  const many = await trainedOnWebGpu(lengthAt);
  const one = await trainedOnWebGpu(() => 128);
  compareTrainings(many, one, "pipelines");
}

async function trainedOnWebGpu(lengthOf: (i: number) => number): Promise<Training> {
  const backend = await createWebGpuBackend();
  return trained(new Device(backend), lengthOf, () => backend.counters.pipelines);
}

/** The first step of LSTMs of new lengths over their cached steps. */
async function onLstm(): Promise<void> {
  const device = await cpu();
  const ratios: number[] = [];
  for (const length of [400, 401, 397, 402]) {
    const training = prepare(device, { kind: "lstm", length });
    const costs: Cost[] = [];
    for (let i = 0; i < 12; i++) costs.push(await timed(() => training.step(i).data()));
    const [first, cached] = [costs[0]!.ms, median(costs.slice(4).map(({ ms }) => ms))];
    console.log(
      `LSTM of ${length} steps: first step ${first.toFixed(0)} ms elapsed, cached step ${cached.toFixed(0)} ms`,
    );
    if (length !== 400) ratios.push(first / cached);
  }
  device.close();
  console.log(`a new length over its own cached step: ${median(ratios).toFixed(0)} in the median, goal 3`);
}

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
const measures = { cpu: onCpu, webgpu: onWebGpu, lstm: onLstm };
const wanted = process.argv[2] ?? "cpu";
if (!(wanted in measures)) throw new Error(`${wanted}: expected ${Object.keys(measures).join(", ")}`);
await measures[wanted as keyof typeof measures]();
