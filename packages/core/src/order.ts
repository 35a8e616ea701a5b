/**
 * The order of steps: everything after what it needs, updates in place after the last reader of the old value, and
 * otherwise such that few bytes are live at a time.
 */
import { type Fused, type Work } from "./fuse.ts";
import { bytesOf } from "./fuse/storage.ts";
import { operandsOfStep } from "./kernel.ts";

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
    for (const { buffer } of reads) {
      const set = readers.get(buffer);
      if (set) set.add(work);
      else readers.set(buffer, new Set([work]));
    }
  }
  return { writer, readers };
}

/** Whether `work` has to run after `other`. */
export function runsAfter(work: Work, other: Work): boolean {
  const seen = new Set<Work>([work]);
  const stack = [work];
  for (let next = stack.pop(); next; next = stack.pop()) {
    for (const need of next.needs) {
      if (need === other) return true;
      if (!seen.has(need)) {
        seen.add(need);
        stack.push(need);
      }
    }
  }
  return false;
}

/** Orders the steps. `persistent` values are in memory before and after the program, so they do not count. */
export function schedule({ works, values }: Fused, persistent: ReadonlySet<number>): Work[] {
  const bytes = (value: number): number => (persistent.has(value) ? 0 : bytesOf(values[value]!));
  const uses = usesOf(works);
  const asSoonAsPossible = byDepth(works);
  const candidates = [works, asSoonAsPossible, delayed(asSoonAsPossible, uses, bytes)].map((order) =>
    respecting(order),
  );
  candidates.push(delayed(candidates[0]!, uses, bytes));
  const peaks = candidates.map((order) => peakBytes(order, uses, bytes));
  return candidates[peaks.indexOf(Math.min(...peaks))]!;
}

/** A topological order that takes ready steps in the order given. */
function respecting(preferred: readonly Work[]): Work[] {
  const order: Work[] = [];
  const done = new Set<Work>();
  const visit = (root: Work): void => {
    const stack = [root];
    while (stack.length > 0) {
      const work = stack.at(-1)!;
      const missing = done.has(work) ? [] : [...work.needs].filter((need) => !done.has(need));
      if (missing.length > 0) stack.push(missing[0]!);
      else {
        stack.pop();
        if (!done.has(work)) order.push(work);
        done.add(work);
      }
    }
  };
  preferred.forEach(visit);
  return order;
}

/** By the longest chain of steps before each; equals stay in their order. */
function byDepth(works: readonly Work[]): Work[] {
  const depth = new Map<Work, number>();
  for (const work of respecting(works)) {
    depth.set(work, Math.max(-1, ...[...work.needs].map((need) => depth.get(need)!)) + 1);
  }
  return [...works].sort((a, b) => depth.get(a)! - depth.get(b)!);
}

/** Moves each step that makes more than it lets go of to just before the first step that waits for it. */
function delayed(
  order: readonly Work[],
  { writer, readers }: Uses,
  bytes: (value: number) => number,
): Work[] {
  const result = [...order];
  const users = new Map<Work, Work[]>();
  for (const work of order)
    for (const need of work.needs) users.set(need, [...(users.get(need) ?? []), work]);
  for (let i = result.length - 1; i >= 0; i--) {
    const work = result[i]!;
    const { reads, writes } = operandsOfStep(work.step);
    const position = new Map(result.map((w, at) => [w, at]));
    const freed = [...new Set(reads.map((r) => r.buffer))].reduce((sum, value) => {
      const last = Math.max(...[...readers.get(value)!].map((w) => position.get(w)!));
      return last === i && writer.has(value) ? sum + bytes(value) : sum;
    }, 0);
    const made = [...new Set(writes.map((w) => w.buffer))].reduce((sum, value) => sum + bytes(value), 0);
    const first = Math.min(...(users.get(work) ?? []).map((w) => position.get(w)!));
    if (made <= freed || !Number.isFinite(first) || first <= i + 1) continue;
    result.splice(first, 0, work);
    result.splice(i, 1);
  }
  return result;
}

/** The most bytes that are live at once. */
function peakBytes(order: readonly Work[], { readers }: Uses, bytes: (value: number) => number): number {
  const position = new Map(order.map((work, at) => [work, at]));
  const changes = new Array<number>(order.length + 1).fill(0);
  order.forEach((work, at) => {
    for (const value of new Set(operandsOfStep(work.step).writes.map((w) => w.buffer))) {
      const last = Math.max(at, ...[...(readers.get(value) ?? [])].map((w) => position.get(w)!));
      changes[at]! += bytes(value);
      changes[last + 1]! -= bytes(value);
    }
  });
  let [live, peak] = [0, 0];
  for (const change of changes) peak = Math.max(peak, (live += change));
  return peak;
}
