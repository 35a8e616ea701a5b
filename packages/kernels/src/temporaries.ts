/**
 * Memory of temporaries: values whose lifetimes do not overlap share it; kernels overwrite operands that are not read later.
 * @module
 */
import { allSame, same } from "./family.ts";
import { type Instr, type Operand, operandsOfStep, partsOf, sameMoving, type Step, type View } from "./kernel.ts"; // prettier-ignore

/** The memory of each value, by number, or -1; and how large each memory is. */
export interface Temporaries {
  readonly tempOf: readonly number[];
  readonly bytes: readonly number[];
}

interface Lifetime {
  readonly values: number[];
  readonly first: number;
  last: number;
  readonly bytes: number;
}

interface Temporary {
  readonly bytes: number;
  /** The lifetimes of its values, in order; none overlaps another. */
  readonly taken: Lifetime[];
}

/** How many of `taken` begin before `life`. */
function placeOf(life: Lifetime, taken: readonly Lifetime[]): number {
  let low = 0;
  let high = taken.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (taken[middle]!.first < life.first) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The values that a step reads and writes, by their numbers, each once. */
export interface StepValues {
  readonly reads: readonly number[];
  readonly writes: readonly number[];
  /** For each result, the values that it may be written over. */
  readonly over: readonly (readonly number[])[];
}

/** The values of a step, whose buffers are their numbers. */
export function valuesOf(step: Step): StepValues {
  const operands = operandsOfStep(step);
  const [reads, writes] = [operands.reads, operands.writes].map((all) => [
    ...new Set(all.map(({ buffer }) => buffer)),
  ]) as [number[], number[]];
  return { reads, writes, over: writes.map((to) => reads.filter((from) => sharesViews(step, from, to))) };
}

/** Assigns memory to all values that `steps` write, except the values in `elsewhere`. `bytes` are the sizes of the values. */
export function assignTemporaries(
  steps: readonly StepValues[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Temporaries {
  const lifetimes = lifetimesOf(steps, bytes, elsewhere);
  const tempOf = bytes.map(() => -1);
  const temps: Temporary[] = [];
  // Largest first: each value then fits into every existing temporary, and best into the smallest free one: the first of its size.
  for (const life of lifetimes.sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    let best = -1;
    for (let i = temps.length - 1; i >= 0; i--) {
      if (best >= 0 && temps[i]!.bytes !== temps[best]!.bytes) break;
      if (isFree(temps[i]!, life)) best = i;
    }
    if (best < 0) best = temps.push({ bytes: life.bytes, taken: [] }) - 1;
    const { taken } = temps[best]!;
    taken.splice(placeOf(life, taken), 0, life);
    for (const value of life.values) tempOf[value] = best;
  }
  return { tempOf, bytes: temps.map((temp) => temp.bytes) };
}

function isFree({ taken }: Temporary, life: Lifetime): boolean {
  const place = placeOf(life, taken);
  if (place > 0 && taken[place - 1]!.last >= life.first) return false;
  return place === taken.length || life.last < taken[place]!.first;
}

function lifetimesOf(
  steps: readonly StepValues[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Lifetime[] {
  const lastUse = new Int32Array(bytes.length);
  steps.forEach(({ reads, writes }, at) => {
    for (const value of reads) lastUse[value] = at;
    for (const value of writes) lastUse[value] = at;
  });
  const lifeOf: (Lifetime | undefined)[] = bytes.map(() => undefined);
  const lifetimes: Lifetime[] = [];
  steps.forEach(({ writes, over }, at) => {
    const claimed: Lifetime[] = []; // lifetimes whose memory a result of this step has taken over
    writes.forEach((value, i) => {
      if (elsewhere.has(value) || lifeOf[value]) return;
      const [size, last] = [bytes[value]!, lastUse[value]!];
      const old = over[i]!.find((other) => {
        const life = lifeOf[other];
        return life?.last === at && !claimed.includes(life) && bytes[other] === size;
      });
      const life = old === undefined ? { values: [], first: at, last, bytes: size } : lifeOf[old]!;
      if (old === undefined) lifetimes.push(life);
      else claimed.push(life);
      life.values.push(value);
      life.last = last;
      lifeOf[value] = life;
    });
  });
  return lifetimes;
}

/** Whether all loads of `loaded` and the one store to `stored` go through the same view, so that both can share memory. */
export function sharesViews(step: Step, loaded: number, stored: number): boolean {
  const kernel = step.type === "loop" ? step : step.name === "matmul" ? step.params.epilogue : undefined;
  const factors = step.type === "library" ? [...step.inputs, ...step.inputs.flatMap(partsOf)] : [];
  if (!kernel || factors.some((input) => input.buffer === loaded)) return false;
  const stores = kernel.stores.map((s) => s.to).filter((to) => to.buffer === stored);
  const [store] = stores;
  const isApart = (i: Instr): boolean =>
    i.op === "load" && i.from.buffer === loaded && !sameOperandView(i.from, store!);
  return stores.length === 1 && !kernel.body.some(isApart);
}

/** Whether a load reads, at every point, the element that the store writes; a store of one value per row has only outer axes. */
function sameOperandView(load: Operand, store: Operand): boolean {
  const [from, to] = [load.view, store.view];
  if (load.dtype !== store.dtype || !same(from.offset, to.offset)) return false;
  if (!from.strides.every((stride, axis) => same(stride, to.strides[axis] ?? 0))) return false;
  if (!sameMoving(from.moving, to.moving)) return false;
  if (!from.valid && !to.valid) return true;
  const rangeOf = ({ valid }: View, axis: number): readonly number[] => valid?.[axis] ?? [];
  return from.strides.every((_, axis) => allSame(rangeOf(from, axis), rangeOf(to, axis)));
}
