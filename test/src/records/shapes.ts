/** Shapes for op records: any rank, lengths 0, 1, primes, tile sizes; pairs and triples that broadcast. */
import type { Shape } from "@tiedlora/core";
import fc from "fast-check";
import { within } from "../generate/dims.ts";

export interface ShapeOptions {
  readonly limit: number;
  readonly zeros: boolean;
  readonly minRank?: number;
  readonly maxRank?: number;
}

/** The length of one axis. A small limit gives small lengths. */
export function axis(limit: number, zeros: boolean): fc.Arbitrary<number> {
  const small = fc.integer({ min: 1, max: 5 });
  const odd = fc.constantFrom(7, 8, 11, 16, 17, 31, 32, 33, 64, 65, 100, 128, 257);
  return fc.oneof(
    { withCrossShrink: true },
    { arbitrary: small, weight: 6 },
    ...(limit > 100 ? [{ arbitrary: odd, weight: 4 }] : []),
    ...(zeros ? [{ arbitrary: fc.constant(0), weight: 1 }] : []),
  );
}

export function shapes(options: ShapeOptions): fc.Arbitrary<number[]> {
  const { limit, zeros, minRank = 0, maxRank = 4 } = options;
  const dims = fc.array(axis(limit, zeros), { minLength: minRank, maxLength: maxRank });
  return dims.map((d) => within(d, limit));
}

/** `count` shapes that broadcast together: some axes have length 1, and leading axes may be omitted. */
export function broadcastable(options: ShapeOptions, count: number): fc.Arbitrary<Shape[]> {
  const changes = fc.array(fc.record({ ones: fc.nat({ max: 15 }), drop: fc.nat({ max: 4 }) }), {
    minLength: count,
    maxLength: count,
  });
  return fc.tuple(shapes(options), changes).map(([shape, list]) =>
    list.map(({ ones, drop }) => {
      // a mask of 8 or more selects no axis, so that equal shapes are common
      const narrowed = shape.map((d, i) => (ones < 8 && ((ones >> i) & 1) === 1 ? 1 : d));
      return drop > 2 ? narrowed.slice(drop - 2) : narrowed;
    }),
  );
}

/** The axes whose bits are set in `mask`; at least one, unless the rank is 0. */
export function axesOf(mask: number, rank: number): number[] {
  const all = Array.from({ length: rank }, (_, i) => i);
  const chosen = all.filter((i) => ((mask >> i) & 1) === 1);
  return chosen.length > 0 ? chosen : all;
}
