/** Reductions composed of primitives. Axes are resolved (ascending, distinct) and stay with length 1. */
import { computeType } from "@tiedlora/kernels";
import { add, binary, broadcastTo, cast, constant, div, iota, reduce, reshape } from "../build.ts";
import { scale, square, sub, sum, unary, where } from "../build.ts";
import type { Node, Shape } from "../node.ts";
import { product } from "../shape.ts";

const count = (x: Node, axes: readonly number[]): number => product(axes.map((axis) => x.shape[axis]!));

export const mean = (x: Node, axes: readonly number[]): Node => scale(sum(x, axes), 1 / count(x, axes));

/** Mean squared distance from the mean; divided by n - correction. */
export function variance(x: Node, axes: readonly number[], correction: number): Node {
  const centred = sub(x, mean(x, axes));
  return scale(sum(square(centred), axes), 1 / (count(x, axes) - correction));
}

/** exp(x - max) and the sum of it. */
function shiftedExp(
  input: Node,
  axes: readonly number[],
): { shifted: Node; e: Node; total: Node; max: Node } {
  const x = cast(input, computeType(input.dtype));
  const max = reduce("reduceMax", x, axes);
  max.gradient = max === x ? null : "stop"; // the shift cancels out: its gradient is zero in exact arithmetic
  const shifted = sub(x, max);
  const e = unary("exp", shifted);
  return { shifted, e, total: sum(e, axes), max };
}

export function softmax(x: Node, axes: readonly number[]): Node {
  const { e, total } = shiftedExp(x, axes);
  return div(e, total);
}

export function logSoftmax(x: Node, axes: readonly number[]): Node {
  const { shifted, total } = shiftedExp(x, axes);
  return sub(shifted, unary("log", total));
}

/** log Σ exp(x). */
export function logSumExp(x: Node, axes: readonly number[]): Node {
  const { max, total } = shiftedExp(x, axes);
  return add(unary("log", total), max);
}

/** The index (i32) of the first element that attains the extreme. */
export function argExtreme(op: "reduceMax" | "reduceMin", x: Node, axis: number): Node {
  const extreme = reduce(op, x, [axis]);
  const candidates = where(binary("eq", x, extreme), iota(x.shape, axis), constant(x.shape[axis]!, "i32"));
  return reduce("reduceMin", candidates, [axis]);
}

/** Σ of the elements up to and including each, along `axis`: O(n²) work, but one kernel. */
export function cumsum(x: Node, axis: number): Node {
  const n = x.shape[axis]!;
  const before = x.shape.slice(0, axis);
  const after = x.shape.slice(axis + 1);
  const pairs: Shape = [...before, n, n, ...after]; // [.., i, j, ..]
  const from = broadcastTo(reshape(x, [...before, 1, n, ...after]), pairs);
  const seen = binary("le", iota(pairs, axis + 1), iota(pairs, axis));
  const type = computeType(x.dtype);
  return reshape(sum(where(seen, from, constant(0, type)), [axis + 1]), x.shape);
}
