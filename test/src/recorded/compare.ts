/**
 * Whether a result agrees with the recorded one: its relative error may be at most 1e-4, or four times the error of float32
 * PyTorch if that is larger. Integers, bool, NaN and infinities must be exact.
 */
import { isFloat, type TypedArray } from "@tiedlora/core";
import type { Expected } from "./format.ts";
import { positions } from "./values.ts";

const TOLERANCE = 1e-4;
const TIMES_OWN = 4;
/**
 * Numbers below 2^-126 have few digits in f32, and devices may flush them to zero, operands too: what is computed of such an operand, as 2xg in the
 * gradient of x², then loses a few times as much. WGSL allows it; Mesa's driver did it in one run of three.
 */
const SMALLEST = 4 * 2 ** -126;

const same = (a: number, b: number): boolean => a === b || (Number.isNaN(a) && Number.isNaN(b));

/** What is wrong with `found`, or null. */
export function difference(found: TypedArray, want: Expected, by: "element" | "tensor"): string | null {
  const at = positions(found.length);
  if (at.length !== want.values.length)
    return `${want.what}: ${found.length} elements, of which ${want.values.length} are recorded`;
  const finite = want.values.map((v) => (v !== null && Number.isFinite(v) ? Math.abs(v) : 0));
  const largest = Math.max(0, ...finite);
  for (const [i, position] of at.entries()) {
    const right = want.values[i]!;
    const value = found[position]!;
    if (right === null || same(value, right) || same(value, want.own.instead.get(i) ?? right)) continue;
    const error = Math.abs(value - right);
    const allowed = isFloat(want.dtype)
      ? Math.max(TOLERANCE, TIMES_OWN * (want.own.at.get(i) ?? want.own.all))
      : 0;
    const scale = by === "element" ? Math.abs(right) : largest;
    if (error <= Math.max(SMALLEST, allowed * scale) && isFloat(want.dtype)) continue;
    return `${want.what}, element ${position} of ${found.length}: ${value}, recorded ${right} ± ${(allowed * scale).toExponential(1)}`;
  }
  return null;
}
