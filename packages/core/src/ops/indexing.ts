/** Masking and indexing, composed from primitives. */
import { computeType, type DType } from "@tiedlora/kernels";
import { add, binary, broadcastTo, cast, constant, gather, iota, mul, reshape } from "../build.ts";
import { scatterAdd, where, within } from "../build.ts";
import type { Node, Range, Shape } from "../graph.ts";
import { product, sameShape, show } from "../shape.ts";

/** Ranges that take all of `shape` but [start, start + length) along one axis. */
export function narrowRanges(shape: Shape, axis: number, start: number, length: number): Range[] {
  return shape.map((d, i): Range => (i === axis ? [start, start + length, 1] : [0, d, 1]));
}

/** Elements where column - row <= diagonal ("lower") or >= diagonal ("upper"), zeros elsewhere. */
export function triangle(x: Node, side: "lower" | "upper", diagonal: number): Node {
  const rank = x.shape.length;
  if (rank < 2)
    throw new RangeError(`${side === "lower" ? "tril" : "triu"}: ${show(x.shape)} has no rows and columns`);
  const limit = add(iota(x.shape, rank - 2), constant(diagonal, "i32"));
  const column = iota(x.shape, rank - 1);
  const keep = side === "lower" ? binary("le", column, limit) : binary("le", limit, column);
  return where(keep, x, constant(0, computeType(x.dtype)));
}

function checkIndex(what: string, index: Node): Node {
  if (index.dtype !== "i32" && index.dtype !== "u32") {
    throw new TypeError(`${what}: the index is ${index.dtype}, but i32 is needed; use .cast("i32")`);
  }
  return cast(index, "i32");
}

/** Rows of axis 0 at an index of any shape: [...index.shape, ...x.shape[1:]]. */
export function take(x: Node, index: Node): Node {
  if (x.shape.length === 0)
    throw new RangeError(`take: a single number [] has no rows; give it an axis first`);
  const rest = x.shape.slice(1);
  const flat = gather(
    reshape(x, [x.shape[0]!, product(rest)]),
    reshape(checkIndex("take", index), [product(index.shape)]),
  );
  return reshape(flat, [...index.shape, ...rest]);
}

/** For every element of `index`, its position in a row-major tensor of `shape`, with `index` as its coordinate along `axis`. */
function linearIndex(index: Node, shape: Shape, axis: number): Node {
  let linear: Node = constant(0, "i32");
  shape.forEach((_, d) => {
    const stride = constant(product(shape.slice(d + 1)), "i32");
    linear = add(linear, mul(d === axis ? index : iota(index.shape, d), stride));
  });
  // An index outside the axis must not reach another row.
  const inside = within(index, shape[axis]!);
  const checked = where(inside, broadcastTo(linear, index.shape), constant(-1, "i32"));
  return reshape(checked, [product(index.shape)]);
}

function checkRanks(what: string, x: Shape, index: Shape, axis: number): void {
  if (x.length !== index.length || index.some((d, i) => i !== axis && d > x[i]!)) {
    throw new RangeError(
      `${what}: index ${show(index)} must have the rank of ${show(x)} and not exceed it beside axis ${axis}`,
    );
  }
}

/** out[i, j] = x[i, index[i, j]] for axis 1, and so on (torch.gather). */
export function gatherAlong(x: Node, axis: number, index: Node): Node {
  checkRanks("gather", x.shape, index.shape, axis);
  const table = reshape(x, [product(x.shape), 1]);
  return reshape(gather(table, linearIndex(checkIndex("gather", index), x.shape, axis)), index.shape);
}

/** x plus `values`, each added at the position along `axis` that `index` gives (torch.scatter_add). */
export function scatterAddAlong(x: Node, axis: number, index: Node, values: Node): Node {
  checkRanks("scatterAdd", x.shape, index.shape, axis);
  if (!sameShape(index.shape, values.shape)) {
    throw new RangeError(
      `scatterAdd: index ${show(index.shape)} and values ${show(values.shape)} must have one shape`,
    );
  }
  const linear = linearIndex(checkIndex("scatterAdd", index), x.shape, axis);
  const added = scatterAdd(linear, reshape(values, [product(values.shape), 1]), product(x.shape));
  return binary("add", x, reshape(added, x.shape), "scatterAdd");
}

/** 1 at position `index` of a new last axis of length `depth`, 0 elsewhere. */
export function oneHot(index: Node, depth: number, dtype: DType): Node {
  const shape = [...index.shape, depth];
  const target = reshape(checkIndex("oneHot", index), [...index.shape, 1]);
  return cast(binary("eq", iota(shape, shape.length - 1), target), dtype);
}
