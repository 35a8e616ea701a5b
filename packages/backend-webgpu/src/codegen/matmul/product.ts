/**
 * A matrix product, or a part of one. Where a buffer is too large for one binding, the product is cut into parts that need less of it.
 */
import type { Epilogue, Operand, View } from "@tiedlora/kernels";
import { usesOf } from "../body.ts";
import { axisToSplit, narrowView, wantsSplit } from "../space.ts";
import { ceilDiv, range, type Target } from "../target.ts";

/** A product over a part of its rows and columns: `index` along an axis of the epilogue starts at `origin[axis]`. */
export interface Product {
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly k: readonly number[];
  readonly inputs: readonly Operand[];
  readonly epilogue: Epilogue;
  readonly origin: readonly number[];
}

/** Halves batch, m and n until every operand of an oversize buffer fits one binding, if that is possible. */
export function splitProduct(p: Product, bufferBytes: readonly number[], target: Target): Product[] {
  const rank = p.batch.length;
  const outer = [...p.batch, p.m, p.n];
  // an operand's view over the axes [...batch, m, n]: the depth is not split
  const asOuter = (o: Operand, missing: number): Operand => {
    const strides = o.view.strides.map((s, d) => (d === missing ? 0 : s));
    if (missing === rank) strides[rank + 1] = o.view.strides[rank + 1]!;
    const { valid: _, ...start } = o.view;
    return { ...o, view: { ...start, strides } };
  };
  const isOversize = (o: Operand, lengths: readonly number[], outerRank: number): boolean =>
    !o.quantized && wantsSplit(o, lengths, outerRank, bufferBytes[o.buffer]!, target);
  const oversize = [
    ...p.inputs.flatMap((o, i) => {
      const depth = p.k[i >> 1]!;
      const [lines, missing] = i % 2 === 0 ? [p.m, rank + 1] : [p.n, rank];
      // the view with the depth last, whatever the operand's order
      const view = i % 2 === 0 ? o.view : swapLast(o.view);
      return isOversize({ ...o, view }, [...p.batch, lines, depth], rank + 1) ? [asOuter(o, missing)] : [];
    }),
    ...usesOf({ ...p.epilogue, lengths: outer, vectorAxis: undefined }).flatMap((u) =>
      isOversize(u.operand, outer, outer.length) ? [u.operand] : [],
    ),
  ];
  const axis = oversize.length === 0 ? undefined : axisToSplit(oversize, outer, range(outer.length));
  if (axis === undefined) return [p];
  const length = outer[axis]!;
  const half = length >= 64 ? ceilDiv(length, 64) * 32 : ceilDiv(length, 2);
  return [narrowed(p, axis, 0, half), narrowed(p, axis, half, length - half)].flatMap((q) =>
    splitProduct(q, bufferBytes, target),
  );
}

/** The view with its last two axes exchanged. */
function swapLast(view: View): View {
  const { strides, valid } = view;
  const swap = <T>(of: readonly T[]): T[] => [...of.slice(0, -2), of[of.length - 1]!, of[of.length - 2]!];
  return { ...view, strides: swap(strides), ...(valid ? { valid: swap(valid) } : {}) };
}

function narrowed(p: Product, axis: number, start: number, length: number): Product {
  const rank = p.batch.length;
  const move = (o: Operand, at: number | undefined): Operand =>
    at === undefined ? o : { ...o, view: narrowView(o.view, at, start) };
  const atA = axis <= rank ? axis : undefined;
  const atB = axis < rank || axis === rank + 1 ? axis : undefined;
  return {
    batch: p.batch.map((b, d) => (d === axis ? length : b)),
    m: axis === rank ? length : p.m,
    n: axis === rank + 1 ? length : p.n,
    k: p.k,
    inputs: p.inputs.map((o, i) => move(o, i % 2 === 0 ? atA : atB)),
    epilogue: {
      body: p.epilogue.body.map((i) => (i.op === "load" ? { ...i, from: move(i.from, axis) } : i)),
      stores: p.epilogue.stores.map((s) => ({ ...s, to: move(s.to, axis) })),
    },
    origin: p.origin.map((o, d) => (d === axis ? o + start : o)),
  };
}
