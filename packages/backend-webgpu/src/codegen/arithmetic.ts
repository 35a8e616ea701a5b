/**
 * The WGSL of every operation. Operands are names of `let` variables, never literals: WGSL evaluates constant
 * expressions while compiling, and rejects those that overflow.
 */
import type { BinaryOp, ComputeType, DType, ReduceOp, UnaryOp } from "@tiedlora/kernels";
import type { Helper } from "./helpers.ts";

/** Lanes of a value: one element, or four neighbors along the vector axis. */
export type Width = 1 | 4;

/** The type of a value, and how an operation on it calls a helper function. */
export interface Typed {
  readonly type: ComputeType;
  readonly width: Width;
  readonly call: (helper: Helper, ...args: string[]) => string;
}

const SCALAR: { readonly [T in ComputeType]: string } = {
  f32: "f32",
  f64: "f64", // never rendered: `caps.dtypes` leaves f64 out
  i32: "i32",
  u32: "u32",
  bool: "bool",
};

/** The WGSL type of `width` values of `type`. */
export function wgslType(type: ComputeType, width: Width): string {
  return width === 1 ? SCALAR[type] : `vec4<${SCALAR[type]}>`;
}

/**
 * The condition that all tests hold, or undefined if there are none. It uses `&`, not `&&`: SwiftShader, Chromium's software
 * adapter, needs time and memory exponential in the number of `&&` to compile a loop.
 */
export function allOf(tests: readonly [string, ...string[]]): string;
export function allOf(tests: readonly string[]): string | undefined;
export function allOf(tests: readonly string[]): string | undefined {
  return tests.length > 1 ? tests.map((test) => `(${test})`).join(" & ") : tests[0];
}

/**
 * A number as an expression of `type`. Numbers that have no literal are read from the uniform's header (see HEADER), and so
 * is the float 0, because compilers assume that anything times 0 is 0.
 */
export function literal(value: number, type: ComputeType): string {
  switch (type) {
    case "bool":
      return value === 0 ? "false" : "true";
    case "u32":
      return `${value >>> 0}u`;
    case "i32":
      return `i32(${value | 0})`; // -2147483648i would be the negation of a literal that is out of range
    default: {
      const x = Math.fround(value);
      if (Number.isNaN(x)) return "bitcast<f32>(P[0].y)";
      if (!Number.isFinite(x)) return `bitcast<f32>(P[0].${x > 0 ? "z" : "w"})`;
      if (x === 0) return Object.is(x, -0) ? "-bitcast<f32>(P[0].x)" : "bitcast<f32>(P[0].x)";
      return `${x}f`;
    }
  }
}

const unary =
  (name: string) =>
  (a: string): string =>
    `${name}(${a})`;

const helped =
  (helper: Helper) =>
  (a: string, t: Typed): string =>
    t.call(helper, a);

export const UNARY: { readonly [K in UnaryOp]: (a: string, t: Typed) => string } = {
  neg: (a, t) => (t.type === "u32" ? `(~${a} + ${wgslType("u32", t.width)}(1u))` : `-${a}`),
  exp: helped("exp"),
  expm1: helped("expm1"),
  log: helped("log"),
  log1p: helped("log1p"),
  sqrt: unary("sqrt"),
  rsqrt: unary("inverseSqrt"),
  recip: (a) => `1f / ${a}`,
  sin: (a, t) => t.call("sine", a, "0"),
  cos: (a, t) => t.call("sine", a, "1"),
  tanh: helped("tanh"),
  erf: helped("erf"),
  floor: unary("floor"),
  abs: unary("abs"),
  not: (a, t) => (t.type === "bool" ? `!${a}` : `${a} == ${wgslType(t.type, t.width)}()`),
};

const infix =
  (operator: string) =>
  (a: string, b: string): string =>
    `${a} ${operator} ${b}`;

/** Comparisons and extrema; bools are compared like 0 and 1. */
const ordered =
  (number: (a: string, b: string, t: Typed) => string, bool: (a: string, b: string) => string) =>
  (a: string, b: string, t: Typed): string =>
    t.type === "bool" ? bool(a, b) : number(a, b, t);

const logic =
  (integer: string, bool: string) =>
  (a: string, b: string, t: Typed): string =>
    `${a} ${t.type === "bool" ? bool : integer} ${b}`;

/** `operator` for integers, with 0 as the result where `b` is 0; WGSL defines a / 0 as a. */
const division =
  (operator: string) =>
  (a: string, b: string, t: Typed): string => {
    const T = wgslType(t.type, t.width);
    return `select(${a} ${operator} ${b}, ${T}(), ${b} == ${T}())`;
  };

const shift =
  (operator: string) =>
  (a: string, b: string, t: Typed): string =>
    `${a} ${operator} (${wgslType("u32", t.width)}(${b}) & ${wgslType("u32", t.width)}(31u))`;

export const BINARY: { readonly [K in BinaryOp]: (a: string, b: string, t: Typed) => string } = {
  add: logic("+", "|"),
  sub: logic("-", "!="),
  mul: logic("*", "&"),
  div: (a, b, t) => (t.type === "f32" ? `${a} / ${b}` : division("/")(a, b, t)),
  mod: (a, b, t) => (t.type === "f32" ? t.call("remainder", a, b) : division("%")(a, b, t)),
  max: ordered(
    (a, b, t) => (t.type === "f32" ? t.call("largest", a, b) : `max(${a}, ${b})`),
    (a, b) => `${a} | ${b}`,
  ),
  min: ordered(
    (a, b, t) => (t.type === "f32" ? t.call("smallest", a, b) : `min(${a}, ${b})`),
    (a, b) => `${a} & ${b}`,
  ),
  lt: ordered(infix("<"), (a, b) => `!${a} & ${b}`),
  le: ordered(infix("<="), (a, b) => `!${a} | ${b}`),
  eq: (a, b, t) => (a === b && t.type === "f32" ? `!${t.call("isNaN", a)}` : `${a} == ${b}`),
  and: logic("&", "&"),
  or: logic("|", "|"),
  xor: logic("^", "!="),
  shl: shift("<<"),
  shr: shift(">>"),
};

/** For each reduction: the operation that folds, the subgroup function that folds across lanes, and the number it starts from. */
export const REDUCE: {
  readonly [K in ReduceOp]: {
    readonly fold: BinaryOp;
    readonly subgroup: string;
    readonly start: (t: ComputeType) => number;
  };
} = {
  sum: { fold: "add", subgroup: "subgroupAdd", start: () => 0 },
  prod: { fold: "mul", subgroup: "subgroupMul", start: () => 1 },
  max: {
    fold: "max",
    subgroup: "subgroupMax",
    start: (t) => (t === "i32" ? -(2 ** 31) : t === "u32" || t === "bool" ? 0 : -Infinity),
  },
  min: {
    fold: "min",
    subgroup: "subgroupMin",
    start: (t) => (t === "i32" ? 2 ** 31 - 1 : t === "u32" ? 2 ** 32 - 1 : t === "bool" ? 1 : Infinity),
  },
};

/** `a` of type `from` converted to `to`; for f16 and bf16, it is rounded but stays f32. */
export function convert(a: string, from: ComputeType, to: DType, t: Typed): string {
  const type = (c: ComputeType): string => wgslType(c, t.width);
  switch (to) {
    case "bool": // by its bits, so that NaN is true whatever compilers assume
      if (from === "f32") return `(bitcast<${type("u32")}>(${a}) << ${type("u32")}(1u)) != ${type("u32")}()`;
      return from === "bool" ? a : `${a} != ${type(from)}()`;
    case "i32":
    case "u32":
      if (from === "f32") return t.call(to === "i32" ? "toI32" : "toU32", a);
      return from === to ? a : `${type(to)}(${a})`;
    case "f16":
      return t.call("roundToF16", from === "f32" ? a : `${type("f32")}(${a})`);
    case "bf16":
      return t.call("roundToBf16", from === "f32" ? a : `${type("f32")}(${a})`);
    default:
      return from === to ? a : `${type(to)}(${a})`;
  }
}
