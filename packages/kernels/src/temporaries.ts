/**
 * Memory of temporaries: values whose lifetimes do not overlap share it; kernels overwrite operands that are not read later.
 * @module
 */
import { type Operand, operandsOfStep, partsOf, type Step, type View } from "./kernel.ts";

/** The memory of each value, by number, and how large each memory is. */
export interface Temporaries {
  readonly tempOf: ReadonlyMap<number, number>;
  readonly bytes: readonly number[];
}

interface Lifetime {
  readonly values: number[];
  readonly first: number;
  last: number;
  readonly bytes: number;
}

/** Assigns memory to all values that `steps` write, except the values in `elsewhere`. `bytes` are the sizes of the values. */
export function assignTemporaries(
  steps: readonly Step[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Temporaries {
  const lifetimes = lifetimesOf(steps, bytes, elsewhere);
  const tempOf = new Map<number, number>();
  const temps: { bytes: number; taken: Lifetime[] }[] = [];
  // Largest first: each value then fits into every existing temporary, and best into the smallest free one: the first of its size.
  for (const life of lifetimes.sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const isFree = (other: Lifetime): boolean => other.last < life.first || life.last < other.first;
    const size = temps.findLast((temp) => temp.taken.every(isFree))?.bytes;
    let best = temps.findIndex((temp) => temp.bytes === size && temp.taken.every(isFree));
    if (best < 0) best = temps.push({ bytes: life.bytes, taken: [] }) - 1;
    temps[best]!.taken.push(life);
    for (const value of life.values) tempOf.set(value, best);
  }
  return { tempOf, bytes: temps.map((temp) => temp.bytes) };
}

function lifetimesOf(
  steps: readonly Step[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Lifetime[] {
  const lastUse = new Map<number, number>();
  const operands = steps.map(operandsOfStep);
  operands.forEach(({ reads, writes }, at) => {
    for (const { buffer } of reads) lastUse.set(buffer, at);
    for (const { buffer } of writes) lastUse.set(buffer, at);
  });
  const lifeOf = new Map<number, Lifetime>();
  const lifetimes: Lifetime[] = [];
  steps.forEach((step, at) => {
    const { reads, writes } = operands[at]!;
    const claimed = new Set<Lifetime>(); // lifetimes whose memory a result of this step has taken over
    for (const { buffer: value } of writes) {
      if (elsewhere.has(value) || lifeOf.has(value)) continue;
      const [size, last] = [bytes[value]!, lastUse.get(value)!];
      const over = reads.find(({ buffer }) => {
        const life = lifeOf.get(buffer);
        const dies = life?.last === at && !claimed.has(life);
        return dies && bytes[buffer] === size && sharesViews(step, buffer, value);
      });
      const life = over ? lifeOf.get(over.buffer)! : { values: [], first: at, last, bytes: size };
      if (over) claimed.add(life);
      else lifetimes.push(life);
      life.values.push(value);
      life.last = last;
      lifeOf.set(value, life);
    }
  });
  return lifetimes;
}

/** Whether all loads of `loaded` and the one store to `stored` go through the same view, so that both can share memory. */
export function sharesViews(step: Step, loaded: number, stored: number): boolean {
  const kernel = step.type === "loop" ? step : step.name === "matmul" ? step.params.epilogue : undefined;
  const factors = step.type === "library" ? [...step.inputs, ...step.inputs.flatMap(partsOf)] : [];
  if (!kernel || factors.some((input) => input.buffer === loaded)) return false;
  const loads = kernel.body.flatMap((i) => (i.op === "load" && i.from.buffer === loaded ? [i.from] : []));
  const stores = kernel.stores.map((s) => s.to).filter((to) => to.buffer === stored);
  const [store] = stores;
  return stores.length === 1 && loads.every((load) => sameOperandView(load, store!));
}

/** Whether a load reads, at every point, the element that the store writes; a store of one value per row has only outer axes. */
function sameOperandView(load: Operand, store: Operand): boolean {
  const [from, to] = [load.view, store.view];
  if (load.dtype !== store.dtype || from.offset !== to.offset) return false;
  if (!from.strides.every((stride, axis) => stride === (to.strides[axis] ?? 0))) return false;
  const restOf = ({ moving, valid }: View): string =>
    JSON.stringify([moving, valid?.some((range) => range !== null) ? valid : null]);
  return restOf(from) === restOf(to);
}
