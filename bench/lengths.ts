/**
 * What a sequence length that no step has had before costs: a training step of TL6 on a decoder of the shape of stories260K, of
 * new lengths and of known ones in turn, in CPU time of all threads together and in elapsed time. The lengths are 24 of 65 to 128. Then
 * a training of 64 lengths and one padded to one length, by turns: the functions that are compiled, and what a token costs in the first
 * 192 steps, and in 576. On WebGPU the same, with the pipelines that they compile. With "lstm", what another number of steps of an LSTM costs.
 *
 *   npm run bench:lengths [-- webgpu | lstm | lstm batch-first | lstm webgpu]
 */
import { cpus } from "node:os";
import { cpu } from "@tiedlora/backend-cpu";
import { createWebGpuBackend, webgpu } from "@tiedlora/backend-webgpu";
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
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

const MEASURES = [
  ["CPU time", (cost: Cost) => cost.cpuMs],
  ["elapsed", (cost: Cost) => cost.ms],
] as const;

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
  for (const [name, of] of MEASURES) {
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

/** A training, and what its steps cost so far. */
interface Training {
  readonly device: Device;
  readonly step: Step;
  readonly lengthOf: (i: number) => number;
  readonly costs: Cost[];
  /** The steps that were planned, not made of plans of other lengths. */
  readonly planned: Set<number>;
  /** How many functions (or pipelines) its steps compiled. */
  compiled: number;
}

const LENGTHS = 64;
/** After so many steps it is printed what a token has cost. */
const STEPS = [3 * LENGTHS, 9 * LENGTHS];

const training = (device: Device, lengthOf: (i: number) => number): Training => {
  const step = decoderStep(device, STORIES);
  return { device, step, lengthOf, costs: [], planned: new Set(), compiled: 0 };
};

/** Takes step `i`; `counted` is how many functions (or pipelines) were compiled by now. */
async function advance(training: Training, i: number, counted: () => number): Promise<void> {
  const { device, step, lengthOf, costs } = training;
  const [compiled, planned] = [counted(), device.families.counts.planned];
  costs.push(await timed(() => step(lengthOf(i), i).data()));
  training.compiled += counted() - compiled;
  if (device.families.counts.planned > planned) training.planned.add(i);
}

/** Trains 64 lengths and one that all are padded to, step by step in turn, and prints what a token costs. `what` is compiled. */
async function compareTrainings(
  many: Training,
  one: Training,
  counters: readonly [() => number, () => number],
  what: string,
): Promise<void> {
  for (let i = 0; i < STEPS.at(-1)!; i++) {
    await advance(many, i, counters[0]);
    await advance(one, i, counters[1]);
    if (STEPS.includes(i + 1)) compareTokens(many, one);
  }
  console.log(
    `64 lengths: ${many.compiled} ${what} compiled, those of one length ${one.compiled}; ${many.planned.size} lengths planned`,
  );
  many.device.close();
  one.device.close();
}

/** Prints what a token has cost so far in steps of 64 lengths, over one in steps of one length. */
function compareTokens(many: Training, one: Training): void {
  const rounds = many.costs.length / LENGTHS;
  for (const [name, of] of MEASURES) {
    const [ofMany, ofOne] = [many, one].map(({ costs }) => costs.map(of)) as [number[], number[]];
    const tokensOf = ({ lengthOf }: Training): number => sum(ofMany.map((_, i) => lengthOf(i)));
    const padded = (sum(ofOne) * tokensOf(many)) / tokensOf(one); // what as many tokens cost in steps of one length
    const share = (more: number): string => `${((100 * more) / padded).toFixed(1)} %`;
    const later = (n: number): number =>
      sum(ofMany.filter((_, i) => i !== n && i % LENGTHS === n)) / (rounds - 1);
    const firsts = ofMany.slice(0, LENGTHS).map((cost, n) => cost - later(n)); // what the first step of a length costs more
    const start = ofOne[0]! - median(ofOne);
    const planned = sum(firsts.filter((_, n) => many.planned.has(n))) - start;
    const made = sum(firsts.filter((_, n) => !many.planned.has(n)));
    const rest = sum(ofMany) - padded - planned - made;
    console.log(
      `${name}, ${ofMany.length} steps: a token over that of one length ${(sum(ofMany) / padded).toFixed(2)}; of what it costs more, first ` +
        `steps of lengths that are planned ${share(planned)}, of others ${share(made)}, later steps ${share(rest)}`,
    );
  }
}

async function onCpu(): Promise<void> {
  const functions = countFunctions();
  const device = await cpu();
  await compareSteps(decoderStep(device, STORIES), 24, [33, 34, 35, 36]);
  device.close();
  const [many, one] = [training(await cpu(), lengthAt), training(await cpu(), () => 128)];
  await compareTrainings(many, one, [functions, functions], "functions");
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
  const [a, b] = [await createWebGpuBackend(), await createWebGpuBackend()];
  const [many, one] = [training(new Device(a), lengthAt), training(new Device(b), () => 128)];
  const counters = [() => a.counters.pipelines, () => b.counters.pipelines] as const;
  await compareTrainings(many, one, counters, "pipelines");
}

/** The first step of LSTMs of new lengths over their cached steps. */
async function onLstm(device: Device, others: number, batchFirst?: true): Promise<void> {
  const ratios: number[] = [];
  const lengths = [400, 401, 397, 402, 395, 407, 390, 411, 399, 404].slice(0, others + 1);
  const trainings = lengths.map((length) =>
    prepare(device, { kind: "lstm", length, ...(batchFirst && { batchFirst }) }),
  ); // before: making data is no part of a step
  for (const [n, length] of lengths.entries()) {
    const training = trainings[n]!;
    const costs: Cost[] = [];
    for (let i = 0; i < 12; i++) costs.push(await timed(() => training.step(i).data()));
    const [first, cached] = [costs[0]!.ms, median(costs.slice(4).map(({ ms }) => ms))];
    console.log(
      `LSTM of ${length} steps: first step ${first.toFixed(0)} ms elapsed, cached step ${cached.toFixed(0)} ms`,
    );
    if (n > 0) ratios.push(first / cached);
  }
  device.close();
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
  console.log(
    `a new length over its own cached step: ${median(ratios).toFixed(1)} in the median (${least.toFixed(1)} to ${most.toFixed(1)}), goal 3`,
  );
}

console.log(`${cpus()[0]?.model.trim() ?? "?"}, Node ${process.versions.node}`);
const measures = {
  cpu: onCpu,
  webgpu: onWebGpu,
  lstm: async () => onLstm(await cpu(), 9),
  "lstm batch-first": async () => onLstm(await cpu(), 9, true),
  "lstm webgpu": async () => onLstm(await webgpu(), 3),
};
const wanted = process.argv.slice(2).join(" ") || "cpu";
if (!(wanted in measures)) throw new Error(`${wanted}: expected ${Object.keys(measures).join(", ")}`);
await measures[wanted as keyof typeof measures]();
