/** Shapes: sizes, broadcasting, axis checking. Strided views are in `views.ts` of the kernels. */
import { product } from "@tiedlora/kernels";
import { describeArgument, refuse } from "@tiedlora/kernels/arguments";
import { allSame } from "@tiedlora/kernels/family";
import type { Shape } from "./graph.ts";

export { product };

/** Whether two shapes have the same lengths. */
export const sameShape = (a: Shape, b: Shape): boolean => a === b || allSame(a, b);

/** `[2, 3]` as a message shows it. */
export function show(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Returns `shape` if it is an array of whole numbers >= 0; otherwise throws an error that names `what`. */
export function checkShape(what: string, shape: Shape): Shape {
  if (Array.isArray(shape) && shape.every((d) => Number.isSafeInteger(d) && d >= 0)) return shape;
  return refuse(what, shape, "shape", "an array of lengths, whole numbers from 0");
}

/** The shape to which both broadcast (aligned at the end, length 1 stretches); throws an error that names `what` if they do not. */
export function broadcastShapes(a: Shape, b: Shape, what: string): Shape {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const x = a[a.length - i] ?? 1;
    const y = b[b.length - i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new RangeError(
        `${what}: shapes ${show(a)} and ${show(b)} do not broadcast: axis ${-i} has lengths ${x} and ${y}; ` +
          `make them equal, or one of them 1`,
      );
    }
    out[rank - i] = x === 1 ? y : x;
  }
  return out;
}

/** The axis in 0 … rank-1 for an axis that may count from the end; throws if it is out of range. */
export function resolveAxis(axis: number, rank: number, what: string): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= rank) {
    throw new RangeError(
      `${what}: axis ${describeArgument(axis)} is not one of a tensor with ${rank} axes (${-rank} … ${rank - 1})`,
    );
  }
  return resolved;
}

/** The given axes, ascending; all axes if `axes` is undefined. Throws if one repeats or is out of range. */
export function resolveAxes(
  axes: number | readonly number[] | undefined,
  rank: number,
  what: string,
): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, i) => i);
  if (!Array.isArray(axes)) return [resolveAxis(axes as number, rank, what)];
  const list = (axes as readonly number[]).map((axis) => resolveAxis(axis, rank, what));
  const distinct = [...new Set(list)].sort((a, b) => a - b);
  if (distinct.length !== list.length)
    throw new RangeError(`${what}: axes [${list.join(", ")}] repeat; name each once`);
  return distinct;
}

/** `shape` with a length of -1, if there is one, inferred from the number of elements; throws if the numbers do not match. */
export function resolveShape(shape: Shape, from: Shape): Shape {
  const fine = Array.isArray(shape) && shape.every((d) => Number.isSafeInteger(d) && d >= -1);
  if (!fine) refuse("reshape", shape, "shape", "lengths, whole numbers from 0; one of them may be -1");
  const size = product(from);
  const known = shape.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const unknown = shape.filter((d) => d === -1).length;
  const fits = unknown === 0 ? known === size : unknown === 1 && known > 0 && size % known === 0;
  if (!fits) {
    throw new RangeError(
      `reshape: ${show(from)} has ${size} elements and cannot become ${show(shape)}; ` +
        `give lengths with that product (one of them may be -1)`,
    );
  }
  return unknown === 0 ? shape : shape.map((d) => (d === -1 ? size / known : d));
}

/** The order of axes that undoes `order`. */
export const inverse = (order: readonly number[]): number[] => order.map((_, axis) => order.indexOf(axis));
