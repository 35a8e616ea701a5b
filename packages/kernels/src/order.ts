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

/** Whether `work` has to run after `other`. */
export function runsAfter(work: Work, other: Work): boolean {
  const before = new Set(work.needs);
  for (const { needs } of before) for (const need of needs) before.add(need); // the loop also visits what is added
  return before.has(other);
}

/**
 * Orders the steps. It runs steps early so that their inputs can be freed; a step whose results would take more memory, for longer,
 * than inputs that are kept for it, waits for its first user. `bytes` are the sizes of the values; `persistent` values are in memory
 * before and after the program, so they do not count.
 */
export function schedule(
  works: readonly Work[],
  bytes: readonly number[],
  persistent: ReadonlySet<number>,
): Work[] {
  const order = byDepth(works);
  const { readers } = usesOf(works);
  const users = new Map<Work, Work[]>(order.map((work) => [work, []]));
  for (const work of order) for (const need of work.needs) users.get(need)!.push(work);
  const apart = order.length + 1; // so far that even a chain of steps that wait for one user comes after its predecessor
  const position = new Map(order.map((work, at) => [work, apart * at]));
  const temporary = (list: readonly Operand[]): number[] =>
    [...new Set(list.map(({ buffer }) => buffer))].filter((value) => !persistent.has(value));
  for (const work of order.toReversed()) {
    const now = position.get(work)!;
    const first = Math.min(...users.get(work)!.map((user) => position.get(user)!));
    if (first === Infinity) continue;
    const { reads, writes } = operandsOfStep(work.step);
    // bytes of results, times how long they would wait; and those of inputs that would have to stay, without other readers
    let [gain, cost] = [0, 0];
    for (const value of temporary(writes)) gain += bytes[value]! * (first - now);
    const most = Math.max(...writes.map(({ buffer }) => bytes[buffer]!));
    for (const value of temporary(reads).filter((read) => SMALL * bytes[read]! >= most)) {
      let until = now;
      for (const reader of readers.get(value)!) until = Math.max(until, position.get(reader)!);
      cost += bytes[value]! * Math.max(0, first - until);
    }
    if (cost < gain) position.set(work, first - 1);
  }
  return respecting([...order].sort((a, b) => position.get(a)! - position.get(b)!));
}

/** A topological order that takes ready steps in the order given. */
function respecting(preferred: readonly Work[]): Work[] {
  const order = new Set<Work>();
  const stack = preferred.toReversed();
  while (stack.length > 0) {
    const work = stack.at(-1)!;
    const missing = order.has(work) ? undefined : [...work.needs].find((need) => !order.has(need));
    if (missing) stack.push(missing);
    else order.add(stack.pop()!);
  }
  return [...order];
}

/** Sorts steps by the longest chain of steps before each; steps of equal depth keep their order. */
function byDepth(works: readonly Work[]): Work[] {
  const depth = new Map<Work, number>();
  for (const work of respecting(works)) {
    depth.set(work, Math.max(-1, ...[...work.needs].map((need) => depth.get(need)!)) + 1);
  }
  return [...works].sort((a, b) => depth.get(a)! - depth.get(b)!);
}
