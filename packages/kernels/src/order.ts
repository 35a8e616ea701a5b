/**
 * The order of steps: each after the steps it needs, updates in place after the last reader of the old value, few bytes live.
 * @module
 */
import { type Operand, operandsOfStep, type Step } from "./kernel.ts";

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

/**
 * Orders the steps. It runs steps early so that their inputs can be freed; a step whose results would take more memory, for longer,
 * than inputs that are kept for it, waits for its first user. `bytes` are the sizes of the values; `persistent` values are in memory
 * before and after the program, so they do not count.
 */
export function schedule<W extends Work>(
  works: readonly W[],
  bytes: readonly number[],
  persistent: ReadonlySet<number>,
): W[] {
  const order = byDepth(works);
  const apart = order.length + 1; // so far that even a chain of steps that wait for one user comes after its predecessor
  const position = new Map<Work, number>(order.map((work, at) => [work, apart * at]));
  /** By value: where its last reader is; by step: where its first user is. Those that come later in the order are known. */
  const lastRead = new Float64Array(bytes.length).fill(-1);
  const firstUse = new Map<Work, number>();
  for (let at = order.length - 1; at >= 0; at--) {
    const work = order[at]!;
    const { reads, writes } = operandsOfStep(work.step);
    const now = apart * at;
    const first = firstUse.get(work) ?? Infinity;
    if (first < Infinity) {
      // bytes of results, times how long they would wait; and those of inputs that would have to stay, without other readers
      let [gain, cost, most] = [0, 0, 0];
      for (const value of temporary(writes, persistent)) gain += bytes[value]! * (first - now);
      for (const { buffer } of writes) most = Math.max(most, bytes[buffer]!);
      for (const value of temporary(reads, persistent)) {
        if (SMALL * bytes[value]! < most) continue;
        const until = Math.max(now, lastRead[value]!);
        cost += bytes[value]! * Math.max(0, first - until);
      }
      if (cost < gain) position.set(work, first - 1);
    }
    const own = position.get(work)!;
    for (const { buffer } of reads) lastRead[buffer] = Math.max(lastRead[buffer]!, own);
    for (const need of work.needs) firstUse.set(need, Math.min(firstUse.get(need) ?? Infinity, own));
  }
  return respecting([...order].sort((a, b) => position.get(a)! - position.get(b)!));
}

/** The values of operands, each once, but for the persistent ones. */
function temporary(operands: readonly Operand[], persistent: ReadonlySet<number>): number[] {
  const values: number[] = [];
  for (const { buffer } of operands) {
    if (!persistent.has(buffer) && !values.includes(buffer)) values.push(buffer);
  }
  return values;
}

/** A topological order that takes ready steps in the order given. */
function respecting<W extends Work>(preferred: readonly W[]): W[] {
  const order = new Set<Work>();
  const stack: Work[] = preferred.toReversed();
  while (stack.length > 0) {
    const work = stack.at(-1)!;
    const missing = order.has(work) ? undefined : missingOf(work, order);
    if (missing) stack.push(missing);
    else order.add(stack.pop()!);
  }
  return [...order] as W[];
}

/** The first of the steps that `work` needs that is not in `order`. */
function missingOf({ needs }: Work, order: ReadonlySet<Work>): Work | undefined {
  for (const need of needs) if (!order.has(need)) return need;
  return undefined;
}

/** Sorts steps by the longest chain of steps before each; steps of equal depth keep their order. */
function byDepth<W extends Work>(works: readonly W[]): W[] {
  const depth = new Map<Work, number>();
  for (const work of respecting(works)) {
    let own = 0;
    for (const need of work.needs) own = Math.max(own, depth.get(need)! + 1);
    depth.set(work, own);
  }
  return [...works].sort((a, b) => depth.get(a)! - depth.get(b)!);
}
