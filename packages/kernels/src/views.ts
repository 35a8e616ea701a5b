/**
 * The arithmetic of views: how a point of a kernel's iteration space reaches an element of a value, as affine functions of
 * the point, and the strided operand that results. An index that is not affine may yield the split of the space that makes it so.
 * @module
 */
import type { DType } from "./dtype.ts";
import { allSame, divides, less, quotient as floored, same } from "./family.ts";
import { type Moving, type Operand, sameMoving } from "./kernel.ts";
import { contiguousStrides } from "./shape.ts";

type Shape = readonly number[];

/** `offset + Σ coeffs[axis] · i[axis]` over the axes of an iteration space, and what `moving` adds at run time. */
export interface Affine {
  offset: number;
  moving: readonly Moving[];
  readonly coeffs: number[];
}

/** The indices of an axis at which there is a value, from `from` up to but not including `to`; null: at all of them. */
export type Valid = readonly [from: number, to: number] | null;

/** Where a point of an iteration space reads a value: one affine index per axis of the value. */
export interface Access {
  readonly index: Affine[];
  /** Per axis of the iteration space `[from, to)`, or null for all: outside of it the element is a zero of a padding. */
  readonly valid: Valid[];
}

/** A request to split iteration axis `axis` into `[length / inner, inner]` and begin again: the index will then be affine. */
export interface Split {
  readonly axis: number;
  readonly inner: number;
}

/** a · factor + plus, with `moves` added at run time. */
export const scaled = (a: Affine, factor: number, plus: number, moves: readonly Moving[] = []): Affine => ({
  offset: factor * a.offset + plus,
  moving: [...a.moving.map((m) => ({ ...m, factor: factor * m.factor })), ...moves],
  coeffs: a.coeffs.map((c) => (c === 0 ? 0 : factor * c)),
});

/** The index 0 at every point of a space of `n` axes. */
export const zero = (n: number): Affine => ({ offset: 0, moving: [], coeffs: new Array<number>(n).fill(0) });

/** The access in which axis i of the iteration space is axis i of the value. */
export function identityAccess(shape: Shape): Access {
  const index = shape.map((_, axis) => {
    const affine = zero(shape.length);
    affine.coeffs[axis] = 1;
    return affine;
  });
  return { index, valid: shape.map(() => null) };
}

/** The smallest and largest value over the valid part of the space: 3i - j + 1 with i, j in 0 … 2 is -1 … 7. */
function rangeOf(affine: Affine, extents: Shape, valid: readonly Valid[]): [low: number, high: number] {
  let [low, high] = [affine.offset, affine.offset];
  affine.coeffs.forEach((c, axis) => {
    if (c === 0) return;
    const [from, to] = valid[axis] ?? [0, extents[axis]!];
    low += Math.min(c * from, c * (to - 1));
    high += Math.max(c * from, c * (to - 1));
  });
  return [low, high];
}

/** `affine` as quotient · radix + rest, rest in [0, radix), as 4i + j by 4 if j is in 0 … 3; or the Split it takes; or null. */
function divide(
  affine: Affine,
  radix: number,
  extents: Shape,
  valid: readonly Valid[],
): { quotient: Affine; rest: Affine } | Split | null {
  if (!affine.moving.every(({ factor }) => divides(radix, factor))) return null; // it may move by more than whole multiples of radix
  const [quotient, rest] = [zero(extents.length), zero(extents.length)];
  quotient.moving = affine.moving.map(({ slot, factor }) => ({ slot, factor: factor / radix }));
  rest.offset = affine.offset;
  affine.coeffs.forEach((c, axis) => {
    if (c === 0 || divides(radix, c)) quotient.coeffs[axis] = c / radix;
    else rest.coeffs[axis] = c;
  });
  const [low, high] = rangeOf(rest, extents, valid);
  const whole = floored(radix, low);
  if (less(high, (whole + 1) * radix)) {
    quotient.offset = whole;
    rest.offset -= whole * radix;
    return { quotient, rest };
  }
  for (let axis = 0; axis < extents.length; axis++) {
    const step = Math.abs(rest.coeffs[axis]!);
    if (step === 0 || !divides(step, radix)) continue;
    const inner = radix / step;
    if (less(inner, extents[axis]!) && divides(inner, extents[axis]!)) return { axis, inner };
  }
  return null;
}

/** Σ strides[axis] · index[axis]: the linear index under the given strides. */
export function linearize(index: readonly Affine[], strides: readonly number[], rank: number): Affine {
  const out = zero(rank);
  index.forEach((affine, axis) => {
    const stride = strides[axis]!;
    if (stride === 0) return;
    out.offset += stride * affine.offset;
    if (affine.moving.length > 0) out.moving = [...out.moving, ...scaled(affine, stride, 0).moving];
    for (let i = 0; i < rank; i++) out.coeffs[i]! += stride * affine.coeffs[i]!;
  });
  return out;
}

/**
 * The access through a reshape: turns indices along axes of `from` into indices along axes of `to` of the same elements. With
 * i, j the indices of [6, 4], the index of [24] is 4i + j. The indices of [12, 2], 2i + ⌊j / 2⌋ and j mod 2, are not affine
 * until the axis of j is split into [2, 2].
 */
export function regroup(access: Access, from: Shape, to: Shape, extents: Shape): Access | Split | null {
  const index = to.map(() => zero(extents.length));
  for (const [sources, targets] of commonGroups(from, to)) {
    const strides = contiguousStrides(sources.map((axis) => from[axis]!));
    const radices = contiguousStrides(targets.map((axis) => to[axis]!));
    const indices = sources.map((axis) => access.index[axis]!);
    let rest = linearize(indices, strides, extents.length);
    for (const [t, axis] of targets.entries()) {
      const digits = divide(rest, radices[t]!, extents, access.valid);
      if (digits === null || "axis" in digits) return digits;
      index[axis] = digits.quotient;
      rest = digits.rest;
    }
  }
  return { index, valid: access.valid };
}

/** Axes of two shapes in the smallest groups of equal products: [2, 3, 4] and [6, 2, 2] are [2, 3] and [6], [4] and [2, 2]. */
function commonGroups(from: Shape, to: Shape): [sources: number[], targets: number[]][] {
  const [a, b] = [from, to].map((shape) => [...shape.keys()].filter((axis) => shape[axis] !== 1));
  const groups: [number[], number[]][] = [];
  for (let i = 0, j = 0; i < a!.length;) {
    const [sources, targets] = [[a![i++]!], [b![j++]!]];
    let [m, n] = [from[sources[0]!]!, to[targets[0]!]!];
    while (m !== n) {
      if (m < n) m *= from[sources[sources.push(a![i++]!) - 1]!]!;
      else n *= to[targets[targets.push(b![j++]!) - 1]!]!;
    }
    for (const x of productsOf(sources, from)) for (const y of productsOf(targets, to)) same(x, y); // in an order that does not depend on sizes
    groups.push([sources, targets]);
  }
  return groups;
}

/** The products of the first axis, of the first two, and so on. */
function productsOf(axes: readonly number[], shape: Shape): number[] {
  let n = 1;
  return axes.map((axis) => (n *= shape[axis]!));
}

/**
 * The points where `from <= affine <= last`: all, none, or a range of one axis of the space; null if it is neither.
 * With j in 0 … 2, 3 <= 3i + j <= 8 is i in [1, 3) for every j; 4 <= 3i + j <= 8 depends on j.
 */
function axisRange(
  affine: Affine,
  [from, last]: readonly [number, number],
  extents: Shape,
  valid: readonly Valid[],
): { axis: number; range: readonly [number, number] } | "all" | "none" | null {
  if (affine.moving.length > 0) return null; // it is known only at run time
  const [low, high] = rangeOf(affine, extents, valid);
  if (!less(low, from) && !less(last, high)) return "all";
  if (less(high, from) || less(last, low)) return "none";
  for (const [axis, c] of affine.coeffs.entries()) {
    if (c === 0) continue;
    // from <= c · i + others <= last, for the smallest and the largest value of the other terms
    const others = rangeOf({ ...affine, coeffs: affine.coeffs.with(axis, 0) }, extents, valid);
    const [atStart, atEnd] = c > 0 ? [from, last] : [last, from];
    const below = (value: number): number => (c > 0 ? floored(c, value) : floored(-c, -value));
    const [start, otherStart] = others.map((value) => -below(value - atStart)) as [number, number];
    const [end, otherEnd] = others.map((value) => below(atEnd - value) + 1) as [number, number];
    if (!same(start, otherStart) || !same(end, otherEnd)) continue;
    const [lower, upper] = valid[axis] ?? [0, extents[axis]!];
    return { axis, range: [less(start, lower) ? lower : start, less(upper, end) ? upper : end] };
  }
  return null;
}

/** The access through zeros of `widths` [before, after] around a value of `shape`; null where its ranges are not affine. */
export function throughPad(
  access: Access,
  widths: readonly (readonly [number, number])[],
  shape: Shape,
  extents: Shape,
): Access | null {
  const valid = [...access.valid];
  for (const [axis, affine] of access.index.entries()) {
    const [before] = widths[axis]!;
    const inside = axisRange(affine, [before, before + shape[axis]! - 1], extents, valid);
    if (inside === null) return null;
    if (inside === "all") continue;
    if (inside === "none" || !less(...inside.range)) return nowhere(shape, extents.length);
    valid[inside.axis] = inside.range;
  }
  return { index: access.index.map((affine, axis) => scaled(affine, 1, -widths[axis]![0])), valid };
}

/** Whether no point of an access is valid: all that it reads is padding. */
export const isNowhere = ({ valid }: Access): boolean => valid.some((r) => r !== null && !less(...r));

/** An access without valid points; null in a space without axes, which has no ranges to say so. */
function nowhere(shape: Shape, rank: number): Access | null {
  if (rank === 0) return null;
  const valid: Valid[] = new Array<Valid>(rank).fill(null);
  valid[0] = [0, 0];
  return { index: shape.map(() => zero(rank)), valid };
}

/** Whether two accesses to one value reach the same element at every point. */
export function sameAccess(a: Access, b: Access): boolean {
  return (
    a.index.every(({ offset, coeffs, moving }, i) => {
      const other = b.index[i]!;
      return same(offset, other.offset) && sameMoving(moving, other.moving) && allSame(coeffs, other.coeffs);
    }) && a.valid.every((range, axis) => range === b.valid[axis] || allSame(range ?? [], b.valid[axis] ?? []))
  );
}

/** The operand that reads or writes a value of `shape`, which lies in row-major order in a buffer, at an access. */
export function operandAt(shape: Shape, dtype: DType, { index, valid }: Access, buffer: number): Operand {
  const { offset, coeffs, moving } = linearize(index, contiguousStrides(shape), valid.length);
  const view = { offset, strides: coeffs, ...(moving.length > 0 && { moving }) };
  const whole = valid.every((range) => range === null);
  return { buffer, dtype, view: whole ? view : { ...view, valid } };
}

type Ranges = readonly (readonly [start: number, stop: number, step: number])[];

/** Whether a slice of a value of `shape` leaves out whole rows only, those before and after it: its elements are next to each other. */
export function takesRows(ranges: Ranges, shape: readonly number[]): boolean {
  return ranges.every(
    ([start, stop, step], axis) => step === 1 && (axis === 0 || (start === 0 && stop === shape[axis])),
  );
}

/** The one axis, not the first, along which a slice of a value of `shape` leaves something out, in one run; 0 if there is none. */
export function innerAxis(ranges: Ranges, shape: readonly number[]): number {
  const isPart = ranges.map(([start, stop], axis) => start > 0 || stop < shape[axis]!);
  const axis = isPart.indexOf(true);
  return axis === isPart.lastIndexOf(true) && ranges.every(([, , step]) => step === 1)
    ? Math.max(axis, 0)
    : 0;
}
