/** The scalar meaning of every unary, binary and reduction operation. */
import type { ComputeType } from "../dtype.ts";
import type { BinaryOp, ReduceOp, UnaryOp } from "../kernel.ts";

/** The error function by Kummer's series, whose terms all have the same sign, accurate to about 1e-15. */
function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** Unary operations on floats; on integers only `neg`, `abs`, `not` occur, and the caller wraps their results. */
export const UNARY: { readonly [K in UnaryOp]: (a: number) => number } = {
  neg: (a) => -a,
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sqrt: Math.sqrt,
  rsqrt: (a) => 1 / Math.sqrt(a),
  recip: (a) => 1 / a,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
  floor: Math.floor,
  abs: Math.abs,
  not: (a) => (a === 0 ? 1 : 0),
};

type Fold = (a: number, b: number) => number;

const FLOAT_BINARY: { readonly [K in BinaryOp]: Fold } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  mod: (a, b) => a % b,
  max: Math.max,
  min: Math.min,
  lt: (a, b) => Number(a < b),
  le: (a, b) => Number(a <= b),
  eq: (a, b) => Number(a === b),
  and: (a, b) => Number(a !== 0 && b !== 0),
  or: (a, b) => Number(a !== 0 || b !== 0),
  xor: (a, b) => Number((a !== 0) !== (b !== 0)),
  shl: (a) => a,
  shr: (a) => a,
};

const I32_BINARY: { readonly [K in BinaryOp]: Fold } = {
  ...FLOAT_BINARY,
  add: (a, b) => (a + b) | 0,
  sub: (a, b) => (a - b) | 0,
  mul: Math.imul,
  div: (a, b) => (a / b) | 0,
  mod: (a, b) => (a % b) | 0,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << b,
  shr: (a, b) => a >> b,
};

const U32_BINARY: { readonly [K in BinaryOp]: Fold } = {
  ...FLOAT_BINARY,
  add: (a, b) => (a + b) >>> 0,
  sub: (a, b) => (a - b) >>> 0,
  mul: (a, b) => Math.imul(a, b) >>> 0,
  div: (a, b) => Math.trunc(a / b) >>> 0,
  mod: (a, b) => (a % b) >>> 0,
  and: (a, b) => (a & b) >>> 0,
  or: (a, b) => (a | b) >>> 0,
  xor: (a, b) => (a ^ b) >>> 0,
  shl: (a, b) => (a << b) >>> 0,
  shr: (a, b) => a >>> b,
};

/** Binary operations by the type of their operands. */
export const BINARY: { readonly [T in ComputeType]: { readonly [K in BinaryOp]: Fold } } = {
  f32: FLOAT_BINARY,
  f64: FLOAT_BINARY,
  bool: FLOAT_BINARY,
  i32: I32_BINARY,
  u32: U32_BINARY,
};

/** The initial value of a reduction, which is also its result over no elements. */
export function reduceIdentity(kind: ReduceOp, dtype: ComputeType): number {
  if (kind === "sum") return 0;
  if (kind === "prod") return 1;
  const [lowest, highest] =
    dtype === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : dtype === "u32" ? [0, 2 ** 32 - 1] : [-Infinity, Infinity];
  return kind === "max" ? lowest : highest;
}

/** The binary operation of each reduction. */
export const FOLD: { readonly [K in ReduceOp]: BinaryOp } = {
  sum: "add",
  prod: "mul",
  max: "max",
  min: "min",
};
