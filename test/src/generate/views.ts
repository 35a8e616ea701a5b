/**
 * Random views. fast-check generates and shrinks genes (plain numbers), which are decoded against an iteration space; so every
 * shrunk gene is again a legal view. A gene of zeros is the contiguous view.
 */
import type { View } from "@tiedlora/core";
import fc from "fast-check";
import { choice } from "./dims.ts";

export interface ViewGene {
  /** The number of the permutation that orders the axes in memory. */
  readonly order: number;
  /** `broadcast`, `flip`, `gap` and `pad` are bit masks of the axes that are broadcast, flipped, spaced out and padded. */
  readonly broadcast: number;
  readonly flip: number;
  readonly gap: number;
  readonly pad: number;
  readonly offset: number;
}

const bits = (): fc.Arbitrary<number> =>
  fc.oneof(
    { withCrossShrink: true },
    { arbitrary: fc.constant(0), weight: 3 },
    { arbitrary: fc.nat({ max: 31 }), weight: 1 },
  );

export const viewGene: fc.Arbitrary<ViewGene> = fc.record({
  order: choice,
  broadcast: bits(),
  flip: bits(),
  gap: bits(),
  pad: bits(),
  offset: fc.nat({ max: 3 }),
});

export interface DecodedView {
  readonly view: View;
  /** The number of elements that the buffer must have. */
  readonly extent: number;
}

/** A view for loads, which may have every feature. */
export function loadView(gene: ViewGene, dims: readonly number[]): DecodedView {
  return decode(gene, dims, gene.broadcast);
}

/** A view for stores: no two indices share an element; indices in the padding are skipped. */
export function storeView(gene: ViewGene, dims: readonly number[]): DecodedView {
  return decode(gene, dims, 0);
}

/** A view that covers the whole of a buffer, each element once: contiguous except for the order of the axes. */
export function denseView(gene: ViewGene, dims: readonly number[]): DecodedView {
  return decode({ ...gene, broadcast: 0, flip: 0, gap: 0, pad: 0, offset: 0 }, dims, 0);
}

function decode(gene: ViewGene, dims: readonly number[], broadcast: number): DecodedView {
  const has = (mask: number, axis: number): boolean => ((mask >> axis) & 1) === 1;
  const strides = new Array<number>(dims.length).fill(0);
  const valid = dims.map((): [number, number] | null => null);
  let offset = gene.offset;
  let stride = 1;
  for (const axis of permutation(gene.order, dims.length)) {
    if (has(broadcast, axis)) continue;
    const n = dims[axis]!;
    const padded = has(gene.pad, axis) && n >= 3;
    const range: [number, number] = padded ? [1, n - Math.floor(n / 3)] : [0, n];
    if (padded) valid[axis] = range;
    if (has(gene.gap, axis)) stride *= 2;
    const flipped = has(gene.flip, axis);
    strides[axis] = flipped ? -stride : stride;
    // element range[0] (or, flipped, range[1] - 1) is the first in memory
    offset += flipped ? stride * (range[1] - 1) : -stride * range[0];
    stride *= range[1] - range[0];
  }
  const view = valid.some((range) => range !== null) ? { offset, strides, valid } : { offset, strides };
  return { view, extent: gene.offset + stride };
}

/** Permutation number `index` of 0 … n-1, with the identity order (last axis innermost) as number 0. */
export function permutation(index: number, n: number): number[] {
  const rest = Array.from({ length: n }, (_, i) => n - 1 - i);
  const out: number[] = [];
  let code = index;
  while (rest.length > 0) {
    out.push(rest.splice(code % rest.length, 1)[0]!);
    code = Math.floor(code / (rest.length + 1));
  }
  return out;
}
