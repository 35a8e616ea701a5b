/**
 * How far the result of one float operation of a correct backend may be from the exact one. This table decides what is an
 * error, not a tolerance tuned until a test passes: the bounds of whole kernels follow from it (arithmetic.ts).
 */
import type { BinaryOp, UnaryOp } from "@tiedlora/core";

export type FloatOp =
  | Exclude<UnaryOp, "neg" | "abs" | "floor" | "not">
  | Extract<BinaryOp, "add" | "sub" | "mul" | "div" | "mod">;

/** Absolute error of `op` at argument `x` with exact result `y`, where `u` is half the distance from 1 to the next number. */
export type Precision = { readonly [op in FloatOp]: (x: number, y: number, u: number) => number } & {
  /** Matrix products may round their factors to this type first. */
  readonly factors?: "f16";
};

/** `n` units in the last place. */
const ulps =
  (n: number) =>
  (_x: number, y: number, u: number): number =>
    2 * n * u * Math.abs(y);

/**
 * The accuracy that WGSL requires of an implementation (its section "Floating Point Accuracy"), which is looser than IEEE 754.
 * The table is stricter where WGSL requires too little to be useful (exp, log near 1, sin, cos, tanh) or nothing (erf).
 */
export const PRECISION: Precision = {
  add: ulps(1),
  sub: ulps(1),
  mul: ulps(1),
  div: ulps(2.5),
  recip: ulps(2.5),
  // x - y * trunc(x / y): the product is rounded at the magnitude of x
  mod: (x, y, u) => 4 * u * (Math.abs(x) + Math.abs(y)),
  sqrt: ulps(4), // WGSL: inherited from 1 / inverseSqrt(x)
  rsqrt: ulps(2),
  // WGSL allows 3 + 2 |x| ulp, too few digits for a probability; the error is relative even where the result is near 0
  exp: ulps(4),
  expm1: ulps(4),
  log: ulps(4),
  log1p: ulps(4),
  // for arguments of any size, which must be reduced with as many digits of pi as that needs
  sin: (x, _y, u) => 8 * u * Math.min(1, Math.abs(x)),
  cos: (_x, _y, u) => 8 * u,
  tanh: ulps(4),
  // rational approximations (Abramowitz and Stegun 7.1.26) have errors up to 1.5e-7; rounding adds to that
  erf: (_x, _y, u) => 16 * u,
};

/** Half the distance from 1 to the next number. */
export const UNIT: { readonly f32: number; readonly f64: number } = { f32: 2 ** -24, f64: 2 ** -53 };
