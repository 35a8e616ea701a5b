/** Comparison of numbers, always with a message: without one, node:assert parses the whole file to create a message. */
import assert from "node:assert/strict";

/** The largest absolute difference; infinite if a value is not a number, or if the lengths differ. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= max)) max = Number.isNaN(d) ? Infinity : d;
  }
  return max;
}

/** Fails unless all numbers are within `tolerance` of the expected ones. */
export function assertNear(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = "values",
): void {
  const difference = maxDifference(actual, expected);
  assert.ok(difference <= tolerance, `${what}: largest difference ${difference}, allowed ${tolerance}`);
}
