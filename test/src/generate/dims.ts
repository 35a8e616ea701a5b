/** Lengths of axes that reveal mistakes: 1, primes, tile sizes and their neighbors. */
import fc from "fast-check";

/** A length of at least 1; most are small. */
export const length: fc.Arbitrary<number> = fc.oneof(
  { withCrossShrink: true },
  { arbitrary: fc.integer({ min: 1, max: 6 }), weight: 5 },
  { arbitrary: fc.constantFrom(7, 8, 9, 11, 13, 15, 16, 17), weight: 3 },
  { arbitrary: fc.constantFrom(31, 32, 33, 37, 63, 64, 65), weight: 2 },
  { arbitrary: fc.constantFrom(127, 128, 129, 255, 256, 257, 1000), weight: 1 },
);

export function lengths(maxRank: number, minRank = 0): fc.Arbitrary<number[]> {
  return fc.array(length, { minLength: minRank, maxLength: maxRank });
}

/** `dims` with the largest halved until their product is at most `limit`. */
export function within(dims: readonly number[], limit: number): number[] {
  const out = [...dims];
  while (out.reduce((n, d) => n * d, 1) > limit) {
    const at = out.indexOf(Math.max(...out));
    out[at] = Math.ceil(out[at]! / 2);
  }
  return out;
}

/** A natural number that a decoder reduces modulo the number of choices it has. */
export const choice: fc.Arbitrary<number> = fc.nat({ max: 719 }); // 720 = 6!, so that moduli up to 6 are uniform
