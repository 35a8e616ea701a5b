/** The order of steps: each after the steps it needs, updates in place after the last reader of the old value, few bytes live. */
import { operandsOfStep, type Step } from "@tiedlora/kernels";
import { getOrCreate, reachable } from "../collections.ts";

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

export function usesOf(works: readonly Work[]): Uses {
  const writer = new Map<number, Work>();
  const readers = new Map<number, Set<Work>>();
  for (const work of works) {
    const { reads, writes } = operandsOfStep(work.step);
    for (const { buffer } of writes) writer.set(buffer, work);
    for (const { buffer } of reads) getOrCreate(readers, buffer, () => new Set()).add(work);
  }
  return { writer, readers };
}

/** Whether `work` has to run after `other`. */
export function runsAfter(work: Work, other: Work): boolean {
  return reachable(work.needs, ({ needs }) => needs).has(other);
}

/**
 * Orders the steps. It runs steps early so that their inputs can be freed; a step that writes more bytes than would have to be
 * kept for it waits for its first user. `bytes` are the sizes of the values; `persistent` values are in memory before and after the program, so they
 * do not count.
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
  const position = new Map(order.map((work, at) => [work, at]));
  const total = (values: Iterable<number>): number =>
    [...values].reduce((sum, value) => sum + (persistent.has(value) ? 0 : bytes[value]!), 0);
  for (const work of order.toReversed()) {
    const first = Math.min(...users.get(work)!.map((user) => position.get(user)!));
    const { reads, writes } = operandsOfStep(work.step);
    // inputs that would have to stay for it, since all their other readers come earlier
    const isHeld = (value: number): boolean =>
      !persistent.has(value) &&
      [...readers.get(value)!].every((reader) => reader === work || position.get(reader)! < first);
    const held = new Set(reads.map(({ buffer }) => buffer).filter(isHeld));
    if (total(new Set(writes.map(({ buffer }) => buffer))) > total(held) && first < Infinity)
      position.set(work, first - 0.5);
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
