/**
 * Memory of temporaries: values whose lifetimes do not overlap share it; kernels overwrite operands that are not read later.
 * @module
 */
import { allSame, same } from "./family.ts";
import { type Instr, type Operand, operandsOfStep, partsOf, sameMoving, type Step, type View } from "./kernel.ts"; // prettier-ignore

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

interface Temporary {
  readonly bytes: number;
  /** The lifetimes of its values, in order; none overlaps another. */
  readonly taken: Lifetime[];
}

/** How many of `taken` begin before `life`. */
function placeOf(life: Lifetime, taken: readonly Lifetime[]): number {
  let [low, high] = [0, taken.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (taken[middle]!.first < life.first) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Assigns memory to all values that `steps` write, except the values in `elsewhere`. `bytes` are the sizes of the values. */
export function assignTemporaries(
  steps: readonly Step[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Temporaries {
  const lifetimes = lifetimesOf(steps, bytes, elsewhere);
  const tempOf = new Map<number, number>();
  const temps: Temporary[] = [];
  // Largest first: each value then fits into every existing temporary, and best into the smallest free one: the first of its size.
  for (const life of lifetimes.sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const isFree = ({ taken }: Temporary): boolean => {
      const place = placeOf(life, taken);
      const [before, after] = [taken[place - 1], taken[place]];
      return !(before && before.last >= life.first) && !(after && life.last >= after.first);
    };
    const size = temps.findLast(isFree)?.bytes;
    let best = temps.findIndex((temp) => temp.bytes === size && isFree(temp));
    if (best < 0) best = temps.push({ bytes: life.bytes, taken: [] }) - 1;
    const { taken } = temps[best]!;
    taken.splice(placeOf(life, taken), 0, life);
    for (const value of life.values) tempOf.set(value, best);
  }
  return { tempOf, bytes: temps.map((temp) => temp.bytes) };
}

function lifetimesOf(
  steps: readonly Step[],
  bytes: readonly number[],
  elsewhere: ReadonlySet<number>,
): Lifetime[] {
  const lastUse = new Int32Array(bytes.length);
  const operands = steps.map(operandsOfStep);
  operands.forEach(({ reads, writes }, at) => {
    for (const { buffer } of reads) lastUse[buffer] = at;
    for (const { buffer } of writes) lastUse[buffer] = at;
  });
  const lifeOf: (Lifetime | undefined)[] = bytes.map(() => undefined);
  const lifetimes: Lifetime[] = [];
  steps.forEach((step, at) => {
    const { reads, writes } = operands[at]!;
    const claimed: Lifetime[] = []; // lifetimes whose memory a result of this step has taken over
    for (const { buffer: value } of writes) {
      if (elsewhere.has(value) || lifeOf[value]) continue;
      const [size, last] = [bytes[value]!, lastUse[value]!];
      const over = reads.find(({ buffer }) => {
        const life = lifeOf[buffer];
        const dies = life?.last === at && !claimed.includes(life);
        return dies && bytes[buffer] === size && sharesViews(step, buffer, value);
      });
      const life = over ? lifeOf[over.buffer]! : { values: [], first: at, last, bytes: size };
      if (over) claimed.push(life);
      else lifetimes.push(life);
      life.values.push(value);
      life.last = last;
      lifeOf[value] = life;
    }
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
