/**
 * The WebAssembly instructions that the generators use, as functions on expressions, named as in the specification
 * (https://webassembly.github.io/spec/core/appendix/index-instructions.html).
 */
import type { Code, Fn, Int, ValueType } from "./assembler.ts";
import { Expr, toExpr, uleb } from "./assembler.ts";

const simd = (opcode: number): number[] => [0xfd, ...uleb(opcode)];

type Unary = (a: Expr) => Expr;
type Binary = (a: Expr, b: Expr) => Expr;
type Ternary = (a: Expr, b: Expr, c: Expr) => Expr;
type IntBinary = (a: Int, b: Int) => Expr;

const unary =
  (type: ValueType, op: Code): Unary =>
  (a) =>
    new Expr(type, [a.code, op]);
const binary =
  (type: ValueType, op: Code): Binary =>
  (a, b) =>
    new Expr(type, [a.code, b.code, op]);
const intBinary =
  (op: number): IntBinary =>
  (a, b) =>
    new Expr("i32", [toExpr(a).code, toExpr(b).code, op]);
const ternary =
  (op: Code): Ternary =>
  (a, b, c) =>
    new Expr("v128", [a.code, b.code, c.code, op]);

/**
 * Address and static offset of a memory access. A memarg offset is added without wrapping, so a negative one has to
 * be added to the address.
 */
function address(p: Expr, offset: number, align: number): { readonly base: Code; readonly arg: Code } {
  return offset >= 0
    ? { base: p.code, arg: [align, ...uleb(offset)] }
    : { base: i32.add(p, offset).code, arg: [align, 0] };
}

type Load = (p: Expr, offset?: number) => Expr;
type Store = (f: Fn, p: Expr, value: Expr, offset?: number) => void;
type LaneStore = (f: Fn, p: Expr, value: Expr, lane: number, offset?: number) => void;

const load =
  (type: ValueType, op: Code, align: number): Load =>
  (p, offset = 0) => {
    const { base, arg } = address(p, offset, align);
    return new Expr(type, [base, op, arg]);
  };
const store =
  (op: Code, align: number): Store =>
  (f, p, value, offset = 0) => {
    const { base, arg } = address(p, offset, align);
    f.emit(base, value.code, op, arg);
  };
const laneStore =
  (op: Code, align: number): LaneStore =>
  (f, p, value, lane, offset = 0) => {
    const { base, arg } = address(p, offset, align);
    f.emit(base, value.code, op, arg, lane);
  };

export const i32: { readonly [K in "eqz" | "trunc_sat_f64_s" | "trunc_sat_f64_u"]: Unary } & {
  readonly [
    K in
      | "eq"
      | "ne"
      | "lt_s"
      | "lt_u"
      | "gt_s"
      | "le_s"
      | "le_u"
      | "ge_s"
      | "add"
      | "sub"
      | "mul"
      | "div_s"
      | "div_u"
      | "rem_s"
      | "rem_u"
      | "and"
      | "or"
      | "xor"
      | "shl"
      | "shr_s"
      | "shr_u"
  ]: IntBinary;
} & { readonly [K in "load" | "load16_u"]: Load } & { readonly [K in "store" | "store16"]: Store } & {
  readonly const: (n: number) => Expr;
  readonly select: (a: Int, b: Int, condition: Expr) => Expr;
} = {
  const: (n: number): Expr => toExpr(n),
  eqz: unary("i32", [0x45]),
  eq: intBinary(0x46),
  ne: intBinary(0x47),
  lt_s: intBinary(0x48),
  lt_u: intBinary(0x49),
  gt_s: intBinary(0x4a),
  le_s: intBinary(0x4c),
  le_u: intBinary(0x4d),
  ge_s: intBinary(0x4e),
  add: intBinary(0x6a),
  sub: intBinary(0x6b),
  mul: intBinary(0x6c),
  div_s: intBinary(0x6d),
  div_u: intBinary(0x6e),
  rem_s: intBinary(0x6f),
  rem_u: intBinary(0x70),
  and: intBinary(0x71),
  or: intBinary(0x72),
  xor: intBinary(0x73),
  shl: intBinary(0x74),
  shr_s: intBinary(0x75),
  shr_u: intBinary(0x76),
  load: load("i32", [0x28], 2),
  load16_u: load("i32", [0x2f], 1),
  store: store([0x36], 2),
  store16: store([0x3b], 1),
  trunc_sat_f64_s: unary("i32", [0xfc, 2]),
  trunc_sat_f64_u: unary("i32", [0xfc, 3]),
  /** condition ? a : b; both are evaluated. */
  select: (a: Int, b: Int, condition: Expr): Expr =>
    new Expr("i32", [toExpr(a).code, toExpr(b).code, condition.code, 0x1b]),
};

export const f32: { readonly [K in "load"]: Load } & { readonly [K in "store"]: Store } & {
  readonly [K in "add"]: Binary;
} & { readonly [K in "demote_f64"]: Unary } & {
  readonly const: (x: number) => Expr;
} = {
  const: (x: number): Expr => new Expr("f32", [0x43, ...new Uint8Array(new Float32Array([x]).buffer)]),
  load: load("f32", [0x2a], 2),
  store: store([0x38], 2),
  add: binary("f32", [0x92]),
  demote_f64: unary("f32", [0xb6]),
};

export const f64: { readonly [K in "load"]: Load } = {
  load: load("f64", [0x2b], 3),
};

const splat4 = (bytes: readonly number[]): Expr =>
  new Expr("v128", [...simd(0x0c), bytes, bytes, bytes, bytes]);

export const v128: {
  readonly [K in "load" | "load16x4_u" | "load32_splat" | "load32_zero" | "load64_zero"]: Load;
} & { readonly [K in "store"]: Store } & {
  readonly [K in "store16_lane" | "store32_lane" | "store64_lane"]: LaneStore;
} & { readonly [K in "not" | "any_true"]: Unary } & {
  readonly [K in "and" | "andnot" | "or" | "xor"]: Binary;
} & {
  readonly [K in "bitselect"]: Ternary;
} & {
  readonly const32: (words: readonly number[]) => Expr;
  readonly shuffle32: (a: Expr, b: Expr, lanes: readonly number[]) => Expr;
  readonly load32_lane: (p: Expr, into: Expr, lane: number, offset?: number) => Expr;
} = {
  /** Four 32-bit patterns. */
  const32: (words: readonly number[]): Expr =>
    new Expr("v128", [...simd(0x0c), ...new Uint8Array(new Uint32Array(words).buffer)]),
  load: load("v128", simd(0x00), 2),
  load16x4_u: load("v128", simd(0x04), 1),
  load32_splat: load("v128", simd(0x09), 2),
  load32_zero: load("v128", simd(0x5c), 2),
  load64_zero: load("v128", simd(0x5d), 2),
  load32_lane: (p: Expr, into: Expr, lane: number, offset = 0): Expr => {
    const { base, arg } = address(p, offset, 2);
    return new Expr("v128", [base, into.code, simd(0x56), arg, lane]);
  },
  store: store(simd(0x0b), 2),
  store16_lane: laneStore(simd(0x59), 1),
  store32_lane: laneStore(simd(0x5a), 2),
  store64_lane: laneStore(simd(0x5b), 2),
  not: unary("v128", simd(0x4d)),
  /** Whether any bit is set. */
  any_true: unary("i32", simd(0x53)),
  and: binary("v128", simd(0x4e)),
  /** a & ~b */
  andnot: binary("v128", simd(0x4f)),
  or: binary("v128", simd(0x50)),
  xor: binary("v128", simd(0x51)),
  /** mask ? a : b, per bit. */
  bitselect: ternary(simd(0x52)),
  /** Lanes of the concatenation a, b: four numbers in 0..7. */
  shuffle32: (a: Expr, b: Expr, lanes: readonly number[]): Expr =>
    new Expr("v128", [
      a.code,
      b.code,
      simd(0x0d),
      lanes.flatMap((l) => [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3]),
    ]),
};

export const i8x16: {
  readonly shuffle: (a: Expr, b: Expr, lanes: readonly number[]) => Expr;
  readonly swizzle: Binary;
  readonly relaxed_swizzle: Binary;
} = {
  /** Bytes of the concatenation a, b: sixteen numbers in 0..31. */
  shuffle: (a: Expr, b: Expr, lanes: readonly number[]): Expr =>
    new Expr("v128", [a.code, b.code, simd(0x0d), [...lanes]]),
  /** Bytes of a, at the numbers in the bytes of b; 0 for a number above 15. */
  swizzle: binary("v128", simd(0x0e)),
  /** The same where no number is above 15: one instruction on x86. */
  relaxed_swizzle: binary("v128", simd(0x100)),
};

export const f32x4: {
  readonly [
    K in
      "splat" | "floor" | "abs" | "neg" | "sqrt" | "convert_i32x4_s" | "convert_i32x4_u" | "demote_f64x2_zero"
  ]: Unary;
} & {
  readonly [
    K in "eq" | "ne" | "lt" | "gt" | "le" | "ge" | "add" | "sub" | "mul" | "div" | "pmin" | "pmax"
  ]: Binary;
} & { readonly [K in "relaxed_madd"]: Ternary } & {
  readonly const: (x: number) => Expr;
  readonly extract_lane: (a: Expr, lane: number) => Expr;
} = {
  const: (x: number): Expr => splat4([...new Uint8Array(new Float32Array([x]).buffer)]),
  splat: unary("v128", simd(0x13)),
  extract_lane: (a: Expr, lane: number): Expr => new Expr("f32", [a.code, simd(0x1f), lane]),
  eq: binary("v128", simd(0x41)),
  ne: binary("v128", simd(0x42)),
  lt: binary("v128", simd(0x43)),
  gt: binary("v128", simd(0x44)),
  le: binary("v128", simd(0x45)),
  ge: binary("v128", simd(0x46)),
  floor: unary("v128", simd(0x68)),
  abs: unary("v128", simd(0xe0)),
  neg: unary("v128", simd(0xe1)),
  sqrt: unary("v128", simd(0xe3)),
  add: binary("v128", simd(0xe4)),
  sub: binary("v128", simd(0xe5)),
  mul: binary("v128", simd(0xe6)),
  div: binary("v128", simd(0xe7)),
  /** b < a ? b : a. One instruction on x86, unlike `min`; a NaN in `a` stays. */
  pmin: binary("v128", simd(0xea)),
  /** a < b ? b : a. A NaN in `a` stays. */
  pmax: binary("v128", simd(0xeb)),
  convert_i32x4_s: unary("v128", simd(0xfa)),
  convert_i32x4_u: unary("v128", simd(0xfb)),
  demote_f64x2_zero: unary("v128", simd(0x5e)),
  /** a * b + c, fused if the machine supports it. */
  relaxed_madd: ternary(simd(0x105)),
};

export const i32x4: {
  readonly [
    K in "splat" | "abs" | "neg" | "trunc_sat_f32x4_s" | "trunc_sat_f32x4_u" | "trunc_sat_f64x2_s_zero"
  ]: Unary;
} & {
  readonly [
    K in
      | "eq"
      | "ne"
      | "lt_s"
      | "lt_u"
      | "gt_s"
      | "le_s"
      | "le_u"
      | "add"
      | "sub"
      | "mul"
      | "min_s"
      | "min_u"
      | "max_s"
      | "max_u"
  ]: Binary;
} & {
  readonly const: (x: number) => Expr;
  readonly extract_lane: (a: Expr, lane: number) => Expr;
  readonly replace_lane: (a: Expr, lane: number, x: Expr) => Expr;
  readonly shl: (a: Expr, by: Int) => Expr;
  readonly shr_s: (a: Expr, by: Int) => Expr;
  readonly shr_u: (a: Expr, by: Int) => Expr;
} = {
  const: (x: number): Expr => splat4([...new Uint8Array(new Uint32Array([x]).buffer)]),
  splat: unary("v128", simd(0x11)),
  extract_lane: (a: Expr, lane: number): Expr => new Expr("i32", [a.code, simd(0x1b), lane]),
  replace_lane: (a: Expr, lane: number, x: Expr): Expr =>
    new Expr("v128", [a.code, x.code, simd(0x1c), lane]),
  eq: binary("v128", simd(0x37)),
  ne: binary("v128", simd(0x38)),
  lt_s: binary("v128", simd(0x39)),
  lt_u: binary("v128", simd(0x3a)),
  gt_s: binary("v128", simd(0x3b)),
  le_s: binary("v128", simd(0x3d)),
  le_u: binary("v128", simd(0x3e)),
  abs: unary("v128", simd(0xa0)),
  neg: unary("v128", simd(0xa1)),
  shl: (a: Expr, by: Int): Expr => new Expr("v128", [a.code, toExpr(by).code, simd(0xab)]),
  shr_s: (a: Expr, by: Int): Expr => new Expr("v128", [a.code, toExpr(by).code, simd(0xac)]),
  shr_u: (a: Expr, by: Int): Expr => new Expr("v128", [a.code, toExpr(by).code, simd(0xad)]),
  add: binary("v128", simd(0xae)),
  sub: binary("v128", simd(0xb1)),
  mul: binary("v128", simd(0xb5)),
  min_s: binary("v128", simd(0xb6)),
  min_u: binary("v128", simd(0xb7)),
  max_s: binary("v128", simd(0xb8)),
  max_u: binary("v128", simd(0xb9)),
  trunc_sat_f32x4_s: unary("v128", simd(0xf8)),
  trunc_sat_f32x4_u: unary("v128", simd(0xf9)),
  trunc_sat_f64x2_s_zero: unary("v128", simd(0xfc)),
};

export const i16x8: { readonly [K in "narrow_i32x4_u"]: Binary } = {
  /** The 32-bit lanes of a, then of b, as 16-bit ones; all must be in 0..65535. */
  narrow_i32x4_u: binary("v128", simd(0x86)),
};

export const f64x2: { readonly [K in "promote_low_f32x4" | "trunc" | "nearest"]: Unary } & {
  readonly [K in "add" | "sub" | "mul" | "div"]: Binary;
} & {
  readonly const: (x: number) => Expr;
} = {
  const: (x: number): Expr => {
    const bytes = [...new Uint8Array(new Float64Array([x]).buffer)];
    return new Expr("v128", [...simd(0x0c), bytes, bytes]);
  },
  promote_low_f32x4: unary("v128", simd(0x5f)),
  trunc: unary("v128", simd(0x7a)),
  nearest: unary("v128", simd(0x94)),
  add: binary("v128", simd(0xf0)),
  sub: binary("v128", simd(0xf1)),
  mul: binary("v128", simd(0xf2)),
  div: binary("v128", simd(0xf3)),
};

export const memory: {
  readonly copy: (f: Fn, to: Int, from: Int, bytes: Int) => void;
  readonly fill: (f: Fn, at: Int, byte: Int, bytes: Int) => void;
} = {
  /** Copies `bytes` bytes. */
  copy: (f: Fn, to: Int, from: Int, bytes: Int): void =>
    f.emit(toExpr(to).code, toExpr(from).code, toExpr(bytes).code, 0xfc, 10, 0, 0),
  fill: (f: Fn, at: Int, byte: Int, bytes: Int): void =>
    f.emit(toExpr(at).code, toExpr(byte).code, toExpr(bytes).code, 0xfc, 11, 0),
};
