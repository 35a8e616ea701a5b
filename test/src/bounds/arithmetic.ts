/**
 * Arithmetic on a value with an error bound: computes the exact result, and how far a correct backend may be from it.
 *
 * A bound of 0 means that every backend has exactly this value, NaN and infinities included, so that the outcome of a comparison
 * is certain. A bound of Infinity allows any value: rounding may lead either way (to the largest number or beyond it, to
 * either outcome of `a < b` when a and b differ only by rounding, to 1/0 or -1/0).
 */
import {
  bf16ToF32,
  type BinaryOp,
  type ComputeType,
  type DType,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  type UnaryOp,
} from "@tiedlora/core";
import { erf } from "./erf.ts";
import { type FloatOp, type Precision, UNIT } from "./precision.ts";

const MAX: { readonly f32: number; readonly f64: number } = {
  f32: 3.4028234663852886e38,
  f64: Number.MAX_VALUE,
};
/** The smallest normal number. A device may flush smaller ones to zero. */
const TINY: { readonly f32: number; readonly f64: number } = { f32: 2 ** -126, f64: 2 ** -1022 };

/** Every operation returns the exact value and leaves the bound of its error in `error`. */
export class Arithmetic {
  error = 0;
  readonly #precision: Precision;

  constructor(precision: Precision) {
    this.#precision = precision;
  }

  unary(op: UnaryOp, dtype: ComputeType, x: number, e: number): number {
    if (!isFloatType(dtype)) return this.#integerUnary(op, dtype, x, e);
    if (e === 0 && !Number.isFinite(x) && op !== "not") return this.#certain(SPECIAL[op](x));
    switch (op) {
      case "neg":
        return this.#exact(-x, e);
      case "abs":
        return this.#exact(Math.abs(x), e);
      case "floor":
        return this.#exact(Math.floor(x), spread(Math.floor, x, e));
      case "not":
        throw new Error(`the IR has no "not" of ${dtype}`);
      case "exp":
      case "expm1":
      case "tanh":
      case "erf":
      case "sin":
      case "cos":
        return this.#rounded(dtype, FUNCTION[op](x), op, x, spread(FUNCTION[op], x, e));
      case "log":
      case "log1p":
      case "sqrt":
      case "rsqrt":
      case "recip":
        return this.#partial(dtype, op, x, e);
      default: // name a new operation above: among those defined everywhere, or those defined on a part of the line
        return op satisfies never;
    }
  }

  /** `dtype` is the type of the operands. */
  binary(op: BinaryOp, dtype: ComputeType, a: number, ea: number, b: number, eb: number): number {
    if (isFloatType(dtype)) {
      const isNaN = (Number.isNaN(a) && ea === 0) || (Number.isNaN(b) && eb === 0);
      if (isNaN) return this.#certain(op === "lt" || op === "le" || op === "eq" ? 0 : NaN);
      const certain = ea === 0 && eb === 0 && !(Number.isFinite(a) && Number.isFinite(b));
      if (certain) return this.#certain(ofInfinities(op, a, b));
    }
    switch (op) {
      case "lt":
        return this.#compare(a < b, a, ea, b, eb);
      case "le":
        return this.#compare(a <= b, a, ea, b, eb);
      case "eq":
        return this.#compare(a === b, a, ea, b, eb);
      case "max":
      case "min": {
        const pick = op === "max" ? Math.max : Math.min;
        const y = pick(a, b);
        return this.#exact(y, Math.max(pick(a + ea, b + eb) - y, y - pick(a - ea, b - eb)));
      }
      case "add":
      case "sub":
      case "mul":
      case "div":
      case "mod":
      case "and":
      case "or":
      case "xor":
      case "shl":
      case "shr":
        if (!isFloatType(dtype)) return this.#integerBinary(op, dtype, a, ea, b, eb);
        return this.#floatBinary(op, dtype, a, ea, b, eb);
    }
  }

  where(c: number, ec: number, a: number, ea: number, b: number, eb: number): number {
    const y = c ? a : b;
    const e = c ? ea : eb;
    if (ec === 0) return e === 0 ? this.#certain(y) : this.#exact(y, e);
    return this.#exact(y, Math.max(e, Math.abs(a - b) + (c ? eb : ea)));
  }

  cast(from: ComputeType, to: DType, x: number, e: number): number {
    if (e === 0 && !Number.isFinite(x) && (to === "f32" || to === "f64" || to === "f16" || to === "bf16"))
      return this.#certain(x);
    switch (to) {
      case "f32":
      case "f64":
        if (from === "f32" || from === to) return this.#exact(x, e);
        return to === "f64" || (Math.fround(x) === x && e === 0)
          ? this.#exact(x, e)
          : this.#finish("f32", x, e + 2 * UNIT.f32 * Math.abs(x));
      case "f16":
        return this.#toHalf((v) => f16ToF32(f32ToF16(v)), x, e, 65504, 2 ** -14);
      case "bf16":
        return this.#toHalf((v) => bf16ToF32(f32ToBf16(v)), x, e, MAX.f32, TINY.f32);
      case "bool":
        return this.#exact(Number(x !== 0), e === 0 || Math.abs(x) > e ? 0 : Infinity);
      case "i32":
      case "u32":
        return isFloatType(from)
          ? this.#truncate(to, x, e)
          : this.#exact(to === "i32" ? x | 0 : x >>> 0, certain(e));
    }
  }

  /** A factor of a matrix product. A backend may round it to half precision if the precision table says so. */
  factor(x: number, e: number): number {
    if (this.#precision.factors === undefined) return this.#exact(x, e);
    const y = this.cast("f32", "f16", x, e);
    return this.#exact(x, this.error + Math.abs(y - x));
  }

  /** A sum `y` of `n` values or products, added in any order; their absolute values sum to `size`. */
  sum(dtype: ComputeType, y: number, size: number, n: number, e: number, exact: boolean): number {
    if (!isFloatType(dtype)) return this.#exact(dtype === "u32" ? y >>> 0 : y | 0, certain(e));
    // NaN and infinities are certain if all errors are finite and no partial sum of the finite values can overflow
    if (!Number.isFinite(y) && e < Infinity && size <= MAX[dtype] / 2) return this.#certain(y);
    if (exact && e === 0 && size < 2 ** 24) return this.#exact(y, 0);
    return this.#finish(dtype, y, e + 2 * (n + 1) * UNIT[dtype] * size);
  }

  /** The product `y` of `n` values; `high` is the product of their largest possible absolute values. */
  product(dtype: ComputeType, y: number, high: number, n: number, e: number): number {
    if (!isFloatType(dtype)) return this.#exact(y, certain(e));
    if (n === 1 && e === 0) return this.#certain(y);
    return this.#finish(dtype, y, high - Math.abs(y) + 2 * n * UNIT[dtype] * high);
  }

  #certain(y: number): number {
    this.error = 0;
    return y;
  }

  #exact(y: number, e: number): number {
    this.error = Number.isNaN(y) || Number.isNaN(e) ? Infinity : e;
    return y;
  }

  /** Accounts for overflow and underflow of a rounded float result. */
  #finish(dtype: "f32" | "f64", y: number, e: number): number {
    const size = Math.abs(y);
    if (!(size + e <= MAX[dtype])) return this.#exact(y, Infinity);
    return this.#exact(y, size < TINY[dtype] ? e + TINY[dtype] : e);
  }

  #rounded(dtype: "f32" | "f64", y: number, op: FloatOp, x: number, e: number): number {
    return this.#finish(dtype, y, e + this.#precision[op](x, y, UNIT[dtype]));
  }

  /** Functions that are not defined everywhere. There is no bound where the argument may lie outside the domain. */
  #partial(
    dtype: "f32" | "f64",
    op: "log" | "log1p" | "sqrt" | "rsqrt" | "recip",
    x: number,
    e: number,
  ): number {
    const f = FUNCTION[op];
    // outside the domain, whatever the error
    if (op !== "recip" && (op === "log1p" ? 1 + x : x) + e < -TINY[dtype]) return this.#certain(NaN);
    const low = op === "recip" ? Math.abs(x) - e : op === "log1p" ? 1 + x - e : x - e;
    if (op === "sqrt" && x === 0 && e === 0) return this.#exact(0, 0);
    if (!(low >= TINY[dtype])) {
      // near zero a square root is off by the square root of the error
      if (op === "sqrt" && low >= -e && x >= 0)
        return this.#exact(Math.sqrt(x), Math.sqrt(x + e) + TINY[dtype]);
      return this.#exact(f(x), Infinity);
    }
    return this.#rounded(dtype, f(x), op, x, spread(f, x, e));
  }

  #floatBinary(op: BinaryOp, dtype: "f32" | "f64", a: number, ea: number, b: number, eb: number): number {
    switch (op) {
      case "add":
        return this.#basic(dtype, "add", a + b, ea, eb, ea + eb);
      case "sub":
        return this.#basic(dtype, "sub", a - b, ea, eb, ea + eb);
      case "mul":
        return this.#basic(dtype, "mul", a * b, ea, eb, Math.abs(a) * eb + Math.abs(b) * ea + ea * eb);
      case "div": {
        const low = Math.abs(b) - eb;
        if (!(low >= TINY[dtype])) return this.#exact(a / b, Infinity);
        return this.#rounded(dtype, a / b, "div", b, (ea + (Math.abs(a) * eb) / Math.abs(b)) / low);
      }
      case "mod": {
        const y = a % b;
        if (ea === 0 && eb === 0 && Number.isInteger(a) && Number.isInteger(b) && b !== 0) {
          if (Math.abs(a) < 2 ** 20) return this.#exact(y, 0);
        }
        const quotient = a / b;
        const e = ea + eb * (Math.abs(quotient) + 1) + this.#precision.mod(a, y, UNIT[dtype]);
        // the remainder jumps by b where the quotient passes an integer
        const jump = Math.abs(y) <= e || Math.abs(b) - Math.abs(y) <= e;
        return this.#finish(dtype, y, jump ? Math.abs(b) + e : e);
      }
      default:
        throw new Error(`the IR has no "${op}" of ${dtype}`);
    }
  }

  /** Correctly rounded operations: exact where the exact result is a number of the type. */
  #basic(
    dtype: "f32" | "f64",
    op: "add" | "sub" | "mul",
    y: number,
    ea: number,
    eb: number,
    e: number,
  ): number {
    if (
      ea === 0 &&
      eb === 0 &&
      dtype === "f32" &&
      Math.fround(y) === y &&
      (y === 0 || Math.abs(y) >= TINY.f32)
    ) {
      return this.#exact(y, 0);
    }
    return this.#rounded(dtype, y, op, 0, e);
  }

  #compare(outcome: boolean, a: number, ea: number, b: number, eb: number): number {
    const sure = (ea === 0 && eb === 0 && !Number.isNaN(a) && !Number.isNaN(b)) || Math.abs(a - b) > ea + eb;
    return this.#exact(Number(outcome), sure ? 0 : Infinity);
  }

  #integerUnary(op: UnaryOp, dtype: "i32" | "u32" | "bool", x: number, e: number): number {
    switch (op) {
      case "not":
        return this.#exact(dtype === "bool" ? Number(x === 0) : wrap(dtype, ~x), certain(e));
      case "neg":
        return this.#exact(wrap(dtype, -x), certain(e));
      case "abs":
        return this.#exact(wrap(dtype, Math.abs(x)), certain(e));
      case "floor":
        return this.#exact(x, certain(e));
      default:
        throw new Error(`the IR has no "${op}" of ${dtype}`);
    }
  }

  #integerBinary(
    op: BinaryOp,
    dtype: "i32" | "u32" | "bool",
    a: number,
    ea: number,
    b: number,
    eb: number,
  ): number {
    const e = certain(ea + eb);
    switch (op) {
      case "add":
        return this.#exact(wrap(dtype, a + b), e);
      case "sub":
        return this.#exact(wrap(dtype, a - b), e);
      case "mul":
        return this.#exact(wrap(dtype, Math.imul(a, b)), e);
      case "div":
      case "mod": {
        const y = op === "div" ? Math.trunc(a / b) : a % b;
        return this.#exact(b === 0 ? 0 : wrap(dtype, y), e);
      }
      case "and":
        return this.#exact(wrap(dtype, a & b), e);
      case "or":
        return this.#exact(wrap(dtype, a | b), e);
      case "xor":
        return this.#exact(wrap(dtype, a ^ b), e);
      case "shl":
        return this.#exact(wrap(dtype, a << b), e);
      case "shr":
        return this.#exact(dtype === "u32" ? a >>> b : a >> b, e);
      default:
        throw new Error(`the IR has no "${op}" of ${dtype}`);
    }
  }

  #truncate(to: "i32" | "u32", x: number, e: number): number {
    const [low, high] = to === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
    const saturate = (v: number): number => Math.min(Math.max(Math.trunc(v), low), high) || 0; // NaN is 0
    const sure = e === 0 || (e < Infinity && saturate(x - e) === saturate(x + e));
    return this.#exact(saturate(x), sure ? 0 : Infinity);
  }

  /** Rounding to a storage type is a step function too: the bound covers every number that a possible value may round to. */
  #toHalf(round: (v: number) => number, x: number, e: number, max: number, tiny: number): number {
    const y = round(x);
    if (e === 0 && !Number.isFinite(y) && Math.fround(x) === x) return this.#certain(y);
    if (!(Math.abs(x) + e <= max)) return this.#exact(y, Infinity);
    const flush = Math.abs(y) < tiny && y !== 0 ? Math.abs(y) : 0;
    // an argument that was rounded to f32 first may round to the next number above or below
    const slack = e === 0 && Math.fround(x) === x ? 0 : UNIT.f32 * Math.abs(x) + e;
    return this.#exact(y, spread(round, x, slack) + flush);
  }
}

export function isFloatType(dtype: ComputeType): dtype is "f32" | "f64" {
  return dtype === "f32" || dtype === "f64";
}

/** The bound of an integer result: it is exact, or it may be anything. */
function certain(e: number): number {
  return e === 0 ? 0 : Infinity;
}

function wrap(dtype: "i32" | "u32" | "bool", x: number): number {
  return dtype === "i32" ? x | 0 : x >>> 0;
}

/** How much f changes when its argument changes by up to `e`. f is monotone, or has slopes of at most 1 (sin, cos). */
function spread(f: (x: number) => number, x: number, e: number): number {
  if (e === 0) return 0;
  if (e === Infinity) return Infinity; // the argument may be anything, even NaN
  if (f === Math.sin || f === Math.cos) return Math.min(e, 2);
  const y = f(x);
  return Math.max(Math.abs(f(x + e) - y), Math.abs(f(x - e) - y));
}

const FUNCTION: {
  readonly [op in Exclude<UnaryOp, "neg" | "abs" | "floor" | "not">]: (x: number) => number;
} = {
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  recip: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
};

/** The value of every function at NaN and infinities. */
const SPECIAL: { readonly [op in Exclude<UnaryOp, "not">]: (x: number) => number } = {
  ...FUNCTION,
  neg: (x) => -x,
  abs: Math.abs,
  floor: Math.floor,
};

/** The result of an operation on floats, of which at least one is infinite and none is NaN. */
function ofInfinities(op: BinaryOp, a: number, b: number): number {
  switch (op) {
    case "add":
      return a + b;
    case "sub":
      return a - b;
    case "mul":
      return a * b;
    case "div":
      return a / b;
    case "mod":
      return a % b;
    case "max":
      return Math.max(a, b);
    case "min":
      return Math.min(a, b);
    case "lt":
      return Number(a < b);
    case "le":
      return Number(a <= b);
    case "eq":
      return Number(a === b);
    default:
      throw new Error(`the IR has no "${op}" of floats`);
  }
}
