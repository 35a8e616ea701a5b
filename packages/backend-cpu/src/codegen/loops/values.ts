/** The SIMD code of each instruction of a kernel body. A value is four lanes; a bool is a lane mask (all ones or zero). */
import type { BinaryOp, ComputeType, DType, ReduceOp, UnaryOp } from "@tiedlora/kernels";
import type { Expr, Fn } from "../assembler.ts";
import { f32x4, i32, i32x4, v128 } from "../instructions.ts";
import type { VectorMath } from "../math.ts";

/** The compute types this backend has. */
export type LaneType = Exclude<ComputeType, "f64">;

function unsupported(op: string, type: LaneType): never {
  throw new Error(`the CPU backend has no "${op}" on ${type}; cast the operands first`);
}

/** Applies a scalar function to every lane. */
function perLane(f: Fn, a: Expr, b: Expr, op: (x: Expr, y: Expr) => Expr): Expr {
  const [x, y] = [f.bind(a), f.bind(b)];
  let out: Expr = i32x4.splat(op(i32x4.extract_lane(x, 0), i32x4.extract_lane(y, 0)));
  for (let lane = 1; lane < 4; lane++) {
    out = i32x4.replace_lane(out, lane, op(i32x4.extract_lane(x, lane), i32x4.extract_lane(y, lane)));
  }
  return out;
}

/** Integer division and remainder that never trap: division by zero gives 0, and -2^31 / -1 wraps. */
function integerDivision(f: Fn, op: "div" | "mod", signed: boolean): (x: Expr, y: Expr) => Expr {
  return (x, y) => {
    const [n, d] = [f.bind(x), f.bind(y)];
    const zero = f.bind(i32.eqz(d));
    if (!signed) {
      const safe = i32.or(d, zero);
      return i32.select(0, op === "div" ? i32.div_u(n, safe) : i32.rem_u(n, safe), zero);
    }
    const minusOne = f.bind(i32.eq(d, -1));
    const safe = i32.select(1, d, i32.or(zero, minusOne));
    if (op === "mod") return i32.select(0, i32.rem_s(n, safe), zero);
    const quotient = i32.select(i32.sub(0, n), i32.div_s(n, safe), minusOne);
    return i32.select(0, quotient, zero);
  };
}

type Table = Partial<Record<BinaryOp, (a: Expr, b: Expr) => Expr>>;

const BITS: Table = { and: v128.and, or: v128.or, xor: v128.xor };

const FLOAT: Table = {
  add: f32x4.add,
  sub: f32x4.sub,
  mul: f32x4.mul,
  div: f32x4.div,
  lt: f32x4.lt,
  le: f32x4.le,
  eq: f32x4.eq,
};

const INTEGER: Table = { ...BITS, add: i32x4.add, sub: i32x4.sub, mul: i32x4.mul, eq: i32x4.eq };

const BY_TYPE: { readonly [T in LaneType]: Table } = {
  f32: FLOAT,
  i32: { ...INTEGER, max: i32x4.max_s, min: i32x4.min_s, lt: i32x4.lt_s, le: i32x4.le_s },
  u32: { ...INTEGER, max: i32x4.max_u, min: i32x4.min_u, lt: i32x4.lt_u, le: i32x4.le_u },
  // bools are masks: true is all ones, which is the largest unsigned number
  bool: {
    ...BITS,
    add: v128.or,
    sub: v128.xor,
    mul: v128.and,
    max: v128.or,
    min: v128.and,
    lt: i32x4.lt_u,
    le: i32x4.le_u,
    eq: i32x4.eq,
  },
};

/**
 * The larger or smaller of `a` and `b`, NaN if either is NaN. Takes fewer instructions than `f32x4.max` does on x86, and only
 * one if `b` is a constant (`number`) other than NaN.
 */
function extreme(f: Fn, op: "max" | "min", a: Expr, b: Expr, number: number | null = null): Expr {
  if (number !== null && !Number.isNaN(number)) return op === "max" ? f32x4.pmax(a, b) : f32x4.pmin(a, b);
  const right = f.bind(b);
  return v128.or(op === "max" ? f32x4.pmax(a, right) : f32x4.pmin(a, right), f32x4.ne(right, right));
}

/** `number` is the value of the right operand if that is a constant, otherwise null. */
export function binary(
  f: Fn,
  math: VectorMath,
  op: BinaryOp,
  type: LaneType,
  a: Expr,
  b: Expr,
  number: number | null,
): Expr {
  const direct = BY_TYPE[type][op];
  if (direct !== undefined) return direct(a, b);
  if (type === "f32") {
    if (op === "max" || op === "min") return extreme(f, op, a, b, number);
    return op === "mod" ? math.mod(a, b) : unsupported(op, type);
  }
  if (type === "bool") return unsupported(op, type);
  if (op === "div" || op === "mod") return perLane(f, a, b, integerDivision(f, op, type === "i32"));
  const right = type === "i32" ? i32x4.shr_s : i32x4.shr_u;
  if (op === "shl") return number !== null ? i32x4.shl(a, number & 31) : perLane(f, a, b, i32.shl);
  if (op === "shr")
    return number !== null ? right(a, number & 31) : perLane(f, a, b, type === "i32" ? i32.shr_s : i32.shr_u);
  return unsupported(op, type);
}

export function unary(f: Fn, math: VectorMath, op: UnaryOp, type: LaneType, a: Expr): Expr {
  if (op === "not") return type === "bool" ? v128.not(a) : isZero(math, type, a);
  if (type === "f32") return UNARY_FLOAT[op](math, f, a);
  if (type !== "bool") {
    if (op === "neg") return i32x4.neg(a);
    if (op === "abs") return type === "i32" ? i32x4.abs(a) : a;
    if (op === "floor") return a;
  }
  return unsupported(op, type);
}

/** Logical not of a number: 1 where it is zero, in the number's own type. */
function isZero(math: VectorMath, type: LaneType, a: Expr): Expr {
  if (type === "f32") return v128.and(f32x4.eq(a, math.k(0)), math.k(1));
  return v128.and(i32x4.eq(a, math.ki(0)), math.ki(1));
}

const UNARY_FLOAT: { readonly [K in Exclude<UnaryOp, "not">]: (math: VectorMath, f: Fn, a: Expr) => Expr } = {
  neg: (_m, _f, a) => f32x4.neg(a),
  abs: (_m, _f, a) => f32x4.abs(a),
  floor: (_m, _f, a) => f32x4.floor(a),
  sqrt: (_m, _f, a) => f32x4.sqrt(a),
  rsqrt: (m, _f, a) => f32x4.div(m.k(1), f32x4.sqrt(a)),
  recip: (m, _f, a) => f32x4.div(m.k(1), a),
  exp: (m, _f, a) => m.exp(a),
  expm1: (m, _f, a) => m.expm1(a),
  log: (m, _f, a) => m.log(a),
  log1p: (m, _f, a) => m.log1p(a),
  sin: (m, _f, a) => m.sin(a),
  cos: (m, _f, a) => m.cos(a),
  tanh: (m, _f, a) => m.tanh(a),
  erf: (m, _f, a) => m.erf(a),
};

/** Converts lanes of compute type `from` to the compute type of `to`, rounded to the precision of `to`. */
export function cast(math: VectorMath, a: Expr, from: LaneType, to: DType): Expr {
  switch (to) {
    case "f32":
      return toFloat(math, a, from);
    case "f16":
      return math.fromF16(math.toF16(toFloat(math, a, from)));
    case "bf16":
      return math.fromBf16(math.toBf16(toFloat(math, a, from)));
    case "i32":
      return from === "f32" ? i32x4.trunc_sat_f32x4_s(a) : fromBool(math, a, from);
    case "u32":
      return from === "f32" ? i32x4.trunc_sat_f32x4_u(a) : fromBool(math, a, from);
    case "bool":
      if (from === "bool") return a;
      return from === "f32" ? f32x4.ne(a, math.k(0)) : i32x4.ne(a, math.ki(0));
    case "f64":
      return unsupported("cast to f64", from);
  }
}

function fromBool(math: VectorMath, a: Expr, from: LaneType): Expr {
  return from === "bool" ? v128.and(a, math.ki(1)) : a;
}

function toFloat(math: VectorMath, a: Expr, from: LaneType): Expr {
  switch (from) {
    case "f32":
      return a;
    case "i32":
      return f32x4.convert_i32x4_s(a);
    case "u32":
      return f32x4.convert_i32x4_u(a);
    case "bool":
      return v128.and(a, math.k(1));
  }
}

/** A number as four lanes of `type`. */
export function constant(math: VectorMath, value: number, type: LaneType): Expr {
  if (type === "f32") return math.k(value);
  return math.ki(type === "bool" ? (value !== 0 ? -1 : 0) : Math.trunc(value));
}

const FOLD: { readonly [K in ReduceOp]: BinaryOp } = { sum: "add", prod: "mul", max: "max", min: "min" };

export function fold(f: Fn, kind: ReduceOp, type: LaneType, a: Expr, b: Expr): Expr {
  if (type === "f32" && (kind === "max" || kind === "min")) return extreme(f, kind, a, b);
  const op = BY_TYPE[type][FOLD[kind]];
  return op === undefined ? unsupported(kind, type) : op(a, b);
}

const LOWEST: { readonly [T in LaneType]: number } = { f32: -Infinity, i32: -(2 ** 31), u32: 0, bool: 0 };
const HIGHEST: { readonly [T in LaneType]: number } = {
  f32: Infinity,
  i32: 2 ** 31 - 1,
  u32: 2 ** 32 - 1,
  bool: 1,
};

export function identity(kind: ReduceOp, type: LaneType): number {
  switch (kind) {
    case "sum":
      return 0;
    case "prod":
      return 1;
    case "max":
      return LOWEST[type];
    case "min":
      return HIGHEST[type];
  }
}

/** Folds the four lanes into one value, which every lane of the result holds. */
export function horizontal(f: Fn, kind: ReduceOp, type: LaneType, a: Expr): Expr {
  const x = f.bind(a);
  const y = f.bind(fold(f, kind, type, x, v128.shuffle32(x, x, [2, 3, 0, 1])));
  return fold(f, kind, type, y, v128.shuffle32(y, y, [1, 0, 3, 2]));
}
