/**
 * The arithmetic of views: how a point of a kernel's iteration space reaches an element of a value, as affine functions of
 * the point, and the strided operand that comes of it. What is not affine says how the space would have to be split.
 */
import { type DType, type Moving, type Operand, sameMoving } from "@tiedlora/kernels";

type Shape = readonly number[];

/** `offset + Σ coeffs[axis] · i[axis]` over the axes of an iteration space, and what `moving` adds at run time. */
export interface Affine {
  offset: number;
  moving: readonly Moving[];
  readonly coeffs: number[];
}

export type Valid = readonly [from: number, to: number] | null;

/** Where a point of an iteration space reads a value: one affine index per axis of the value. */
export interface Access {
  readonly index: Affine[];
  /** Per axis of the iteration space `[from, to)`, or null for all: outside of it the element is a zero of a padding. */
  readonly valid: Valid[];
}

/** "Split iteration axis `axis` into `[length / inner, inner]`, begin again, and it will be affine." */
export interface Split {
  readonly axis: number;
  readonly inner: number;
}

/** a · factor + plus, and what else it `moves` by. */
export const scaled = (a: Affine, factor: number, plus: number, moves: readonly Moving[] = []): Affine => ({
  offset: factor * a.offset + plus,
  moving: [...a.moving.map((m) => ({ ...m, factor: factor * m.factor })), ...moves],
  coeffs: a.coeffs.map((c) => (c === 0 ? 0 : factor * c)),
});

export const zero = (n: number): Affine => ({ offset: 0, moving: [], coeffs: new Array<number>(n).fill(0) });

/** Every axis of the iteration space is the axis of the value with the same number. */
export function identityAccess(shape: Shape): Access {
  const index = shape.map((_, axis) => {
    const affine = zero(shape.length);
    affine.coeffs[axis] = 1;
    return affine;
  });
  return { index, valid: shape.map(() => null) };
}

/** The smallest and largest value over the valid part of the space. */
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

/** `affine` as `quotient · radix + rest` with rest in [0, radix); a Split that makes it possible; or null. */
function divide(
  affine: Affine,
  radix: number,
  extents: Shape,
  valid: readonly Valid[],
): { quotient: Affine; rest: Affine } | Split | null {
  if (affine.moving.some(({ factor }) => factor % radix !== 0)) return null; // nobody knows the digits
  const [quotient, rest] = [zero(extents.length), zero(extents.length)];
  quotient.moving = affine.moving.map(({ slot, factor }) => ({ slot, factor: factor / radix }));
  rest.offset = affine.offset;
  affine.coeffs.forEach((c, axis) => {
    if (c % radix === 0) quotient.coeffs[axis] = c / radix;
    else rest.coeffs[axis] = c;
  });
  const [low, high] = rangeOf(rest, extents, valid);
  const whole = Math.floor(low / radix);
  if (high < (whole + 1) * radix) {
    quotient.offset = whole;
    rest.offset -= whole * radix;
    return { quotient, rest };
  }
  for (let axis = 0; axis < extents.length; axis++) {
    const step = Math.abs(rest.coeffs[axis]!);
    if (step === 0 || radix % step !== 0) continue;
    const inner = radix / step;
    if (inner < extents[axis]! && extents[axis]! % inner === 0) return { axis, inner };
  }
  return null;
}

/** Row-major strides. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  for (let axis = shape.length - 1, n = 1; axis >= 0; n *= shape[axis]!, axis--) strides[axis] = n;
  return strides;
}

/** Σ strides[axis] · index[axis]: the linear index under the given strides. */
export function linearize(index: readonly Affine[], strides: readonly number[], rank: number): Affine {
  const out = zero(rank);
  index.forEach((affine, axis) => {
    const stride = strides[axis]!;
    if (stride === 0) return;
    out.offset += stride * affine.offset;
    out.moving = [...out.moving, ...scaled(affine, stride, 0).moving];
    for (let i = 0; i < rank; i++) out.coeffs[i]! += stride * affine.coeffs[i]!;
  });
  return out;
}

/**
 * Regroups digits: the axes of `from` (which `access` is about) become those of `to`. Both are cut into the smallest
 * groups of equal products, and each group is converted.
 */
export function regroup(access: Access, from: Shape, to: Shape, extents: Shape): Access | Split | null {
  const rank = extents.length;
  const [a, b] = [from, to].map((shape) => shape.flatMap((d, axis) => (d === 1 ? [] : [axis])));
  const index = to.map(() => zero(rank));
  for (let i = 0, j = 0; i < a!.length;) {
    const [sources, targets] = [[a![i++]!], [b![j++]!]];
    let [m, n] = [from[sources[0]!]!, to[targets[0]!]!];
    while (m !== n) {
      if (m < n) m *= from[sources[sources.push(a![i++]!) - 1]!]!;
      else n *= to[targets[targets.push(b![j++]!) - 1]!]!;
    }
    const group = sources.map((axis) => access.index[axis]!);
    const strides = contiguousStrides(sources.map((axis) => from[axis]!));
    let rest = linearize(group, strides, rank);
    for (let t = 0; t < targets.length - 1; t++) {
      n /= to[targets[t]!]!;
      const digits = divide(rest, n, extents, access.valid);
      if (digits === null || "axis" in digits) return digits;
      index[targets[t]!] = digits.quotient;
      rest = digits.rest;
    }
    index[targets.at(-1)!] = rest;
  }
  return { index, valid: access.valid };
}

/**
 * `from <= affine <= last` as a range of one iteration axis, or null where it is none. With 3i + j, j in 0 … 2, the condition
 * 3 <= 3i + j <= 8 is i in [1, 3), for any j; 4 <= 3i + j depends on both.
 */
function condition(
  affine: Affine,
  [from, last]: readonly [number, number],
  extents: Shape,
  valid: readonly Valid[],
): { axis: number; range: readonly [number, number] } | "always" | "never" | null {
  if (affine.moving.length > 0) return null;
  const [low, high] = rangeOf(affine, extents, valid);
  if (low >= from && high <= last) return "always";
  if (high < from || low > last) return "never";
  for (const [axis, c] of affine.coeffs.entries()) {
    if (c === 0) continue;
    const [atFrom, atLast] = c > 0 ? [from, last] : [last, from];
    const others = rangeOf({ ...affine, coeffs: affine.coeffs.with(axis, 0) }, extents, valid);
    const [start, otherStart] = others.map((value) => Math.ceil((atFrom - value) / c)) as [number, number];
    const [end, otherEnd] = others.map((value) => Math.floor((atLast - value) / c) + 1) as [number, number];
    if (start !== otherStart || end !== otherEnd) continue; // it depends on the other axes, too
    const [lower, upper] = valid[axis] ?? [0, extents[axis]!];
    return { axis, range: [Math.max(start, lower), Math.min(end, upper)] };
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
    const inside = condition(affine, [before, before + shape[axis]! - 1], extents, valid);
    if (inside === null) return null;
    if (inside === "always") continue;
    if (inside === "never" || inside.range[0] >= inside.range[1]) return nowhere(shape, extents.length);
    valid[inside.axis] = inside.range;
  }
  return { index: access.index.map((affine, axis) => scaled(affine, 1, -widths[axis]![0])), valid };
}

/** An access none of whose points is valid. In a space without axes that cannot be said, so null. */
function nowhere(shape: Shape, rank: number): Access | null {
  if (rank === 0) return null;
  const valid: Valid[] = new Array<Valid>(rank).fill(null);
  valid[0] = [0, 0];
  return { index: shape.map(() => zero(rank)), valid };
}

/** Whether two accesses to one value are the same. */
export function sameAccess(a: Access, b: Access): boolean {
  return (
    a.index.every(({ offset, coeffs, moving }, i) => {
      const other = b.index[i]!;
      const still = offset === other.offset && coeffs.every((c, axis) => c === other.coeffs[axis]);
      return still && sameMoving(moving, other.moving);
    }) &&
    a.valid.every((range, axis) => range?.[0] === b.valid[axis]?.[0] && range?.[1] === b.valid[axis]?.[1])
  );
}

/** The operand that reads or writes a value of `shape`, which lies in row-major order in a buffer, at an access. */
export function operandAt(shape: Shape, dtype: DType, { index, valid }: Access, buffer: number): Operand {
  const { offset, coeffs, moving } = linearize(index, contiguousStrides(shape), valid.length);
  const view = { offset, strides: coeffs, ...(moving.length > 0 && { moving }) };
  const whole = valid.every((range) => range === null);
  return { buffer, dtype, view: whole ? view : { ...view, valid } };
}
