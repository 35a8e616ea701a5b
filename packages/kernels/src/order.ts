/**
 * The order of steps: each after the steps it needs, updates in place after the last reader of the old value, few bytes live.
 * @module
 */
import { operandsOfStep, type Step } from "./kernel.ts";

/** A step over numbered values (operands' buffers are their numbers), and what must run before it. */
export interface Work {
  readonly step: Step;
  readonly needs: Set<Work>;
  /** The rules that shaped it, for reports. */
  readonly rules: ReadonlySet<string>;
}

/** Values by the step that writes them and the steps that read them. */
export interface Uses {
  readonly writer: ReadonlyMap<number, Work>;
  readonly readers: ReadonlyMap<number, ReadonlySet<Work>>;
}

/** The values of `works`, by their numbers: which step writes each, and which read it. */
export function usesOf(works: readonly Work[]): Uses {
  const writer = new Map<number, Work>();
  const readers = new Map<number, Set<Work>>();
  for (const work of works) {
    const { reads, writes } = operandsOfStep(work.step);
    for (const { buffer } of writes) writer.set(buffer, work);
    for (const { buffer } of reads) readers.set(buffer, (readers.get(buffer) ?? new Set<Work>()).add(work));
  }
  return { writer, readers };
}

/** Inputs so many times smaller than a step's largest result do not decide when it runs. */
const SMALL = 64;

/** Whether one of `works` has to run after `other`. */
export function runsAfter(works: readonly Work[], other: Work): boolean {
  const before = new Set(works.flatMap(({ needs }) => [...needs]));
  for (const { needs } of before) for (const need of needs) before.add(need); // the loop also visits what is added
  return before.has(other);
}

/** A step as its order and memory need it: the numbers of the steps that must run before, and of the values that it reads and writes. */
export interface Ordered {
  readonly needs: readonly number[];
  readonly reads: readonly number[];
  readonly writes: readonly number[];
}

/**
 * Orders steps, and returns their numbers. It runs steps early so that their inputs can be freed; a step whose results would take more
 * memory, for longer, than inputs that are kept for it, waits for its first user. `bytes` are the sizes of the values; `persistent` values
 * are in memory before and after the program, so they do not count.
 */
export function schedule(
  works: readonly Ordered[],
  bytes: readonly number[],
  persistent: ReadonlySet<number>,
): number[] {
  const order = byDepth(works);
  const apart = order.length + 1; // so far that even a chain of steps that wait for one user comes after its predecessor
  const position = new Float64Array(works.length);
  order.forEach((work, at) => (position[work] = apart * at));
  /** By value: where its last reader is; by step: where its first user is. Those that come later in the order are known. */
  const lastRead = new Float64Array(bytes.length).fill(-1);
  const firstUse = new Float64Array(works.length).fill(Infinity);
  for (let at = order.length - 1; at >= 0; at--) {
    const work = order[at]!;
    const { needs, reads, writes } = works[work]!;
    const now = apart * at;
    const first = firstUse[work]!;
    if (first < Infinity) {
      // bytes of results, times how long they would wait; and those of inputs that would have to stay, without other readers
      let gain = 0;
      let cost = 0;
      let most = 0;
      for (const value of writes) {
        if (!persistent.has(value)) gain += bytes[value]! * (first - now);
        most = Math.max(most, bytes[value]!);
      }
      for (const value of reads) {
        if (persistent.has(value) || SMALL * bytes[value]! < most) continue;
        const until = Math.max(now, lastRead[value]!);
        cost += bytes[value]! * Math.max(0, first - until);
      }
      if (cost < gain) position[work] = first - 1;
    }
    const own = position[work]!;
    for (const value of reads) lastRead[value] = Math.max(lastRead[value]!, own);
    for (const need of needs) firstUse[need] = Math.min(firstUse[need]!, own);
  }
  return respecting(works, [...order].sort((a, b) => position[a]! - position[b]!)); // prettier-ignore
}

/** A topological order that takes ready steps in the order given. */
function respecting(works: readonly Ordered[], preferred: readonly number[]): number[] {
  const order: number[] = [];
  const isPlaced = new Uint8Array(works.length);
  const stack = preferred.toReversed();
  while (stack.length > 0) {
    const work = stack.at(-1)!;
    const missing = isPlaced[work] ? undefined : works[work]!.needs.find((need) => !isPlaced[need]);
    if (missing !== undefined) {
      stack.push(missing);
      continue;
    }
    stack.pop();
    if (!isPlaced[work]) order.push(work);
    isPlaced[work] = 1;
  }
  return order;
}

/** The steps by the longest chain of steps before each; steps of equal depth keep their order. */
function byDepth(works: readonly Ordered[]): number[] {
  const all = works.map((_, i) => i);
  const depth = new Int32Array(works.length);
  for (const work of respecting(works, all))
    for (const need of works[work]!.needs) depth[work] = Math.max(depth[work]!, depth[need]! + 1);
  return all.sort((a, b) => depth[a]! - depth[b]!);
}
