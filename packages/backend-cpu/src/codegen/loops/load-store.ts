/** Loads and stores of four lanes, or of one, at any stride and in any storage type. */
import { BYTES, type DType, type Moving } from "@tiedlora/kernels";
import type { Expr, Fn } from "../assembler.ts";
import { f64, i16x8, i32, i32x4, v128 } from "../instructions.ts";
import type { VectorMath } from "../math.ts";
import type { Numbers, Sizes } from "../sizes.ts";
import type { LaneType } from "./values.ts";
import { cast } from "./values.ts";

/**
 * The address of an operand's first element in the buffer at `base`: its numbers are called `name` (see `addStart`), and `scalar` gives
 * the address of a run-time number.
 */
export function startOf(
  sizes: Sizes,
  name: string,
  moving: readonly Moving[] | undefined,
  base: Expr,
  scalar: (slot: number) => Expr,
): Expr {
  const whole = (slot: number): Expr => i32.trunc_sat_f64_s(f64.load(scalar(slot)));
  return (moving ?? []).reduce(
    (sum, { slot }, k) => i32.add(sum, i32.mul(whole(slot), sizes.int(`${name}f${k}`))),
    i32.add(base, sizes.int(`${name}o`)),
  );
}

/** Adds the numbers of an operand's start: its offset, and the factors of run-time terms, in bytes. */
export function addStart(
  numbers: Numbers,
  name: string,
  { offset, moving }: { readonly offset: number; readonly moving?: readonly Moving[] | undefined },
  bytes: number,
): void {
  numbers.add(name, offset * bytes, "o");
  moving?.forEach(({ factor }, k) => numbers.add(name, factor * bytes, "f", k));
}

/** The slots of run-time terms, for keys. */
export const slotsOf = (moving: readonly Moving[] | undefined): string =>
  moving === undefined ? "" : moving.map(({ slot }) => slot).join();

/** Elements that lie apart: from each to the next as many elements, or the address of each lane. */
export type Lanes = number | ((lane: number) => Expr);

/** Converts stored bits to lanes of the compute type. */
export function widen(math: VectorMath, dtype: DType, raw: Expr): Expr {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      return raw;
    case "bool":
      return i32x4.ne(raw, math.ki(0));
    case "f16":
      return math.fromF16(raw);
    case "bf16":
      return math.fromBf16(raw);
    case "f64":
      throw new Error("the CPU backend has no f64 buffers; use f32");
  }
}

/** Converts lanes of the compute type to the bits that are stored. */
function narrow(f: Fn, math: VectorMath, dtype: DType, value: Expr, from: LaneType): Expr {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      return cast(math, value, from, dtype);
    case "bool":
      return v128.and(cast(math, value, from, "bool"), math.ki(1));
    case "f16":
      return math.toF16(f.bind(cast(math, value, from, "f32")));
    case "bf16":
      return math.toBf16(f.bind(cast(math, value, from, "f32")));
    case "f64":
      throw new Error("the CPU backend has no f64 buffers; use f32");
  }
}

/** Loads four lanes from elements that are `stride` elements apart, the first at `offset` bytes from the address `p`. */
export function loadLanes(math: VectorMath, dtype: DType, p: Expr, stride: Lanes, offset: number): Expr {
  const bytes = BYTES[dtype];
  const at = laneAt(p, stride, offset, bytes);
  if (stride === 0) return loadSplat(math, dtype, p, offset);
  if (bytes === 2) {
    if (stride === 1) return widen(math, dtype, v128.load16x4_u(p, offset));
    let raw: Expr = i32x4.splat(i32.load16_u(...at(0)));
    for (let lane = 1; lane < 4; lane++) raw = i32x4.replace_lane(raw, lane, i32.load16_u(...at(lane)));
    return widen(math, dtype, raw);
  }
  if (stride === 1) return widen(math, dtype, v128.load(p, offset));
  if (stride === -1) {
    return widen(math, dtype, v128.shuffle32(v128.load(...at(3)), math.ki(0), [3, 2, 1, 0]));
  }
  let raw: Expr = v128.load32_zero(...at(0));
  for (let lane = 1; lane < 4; lane++) {
    const [q, place] = at(lane);
    raw = v128.load32_lane(q, raw, lane, place);
  }
  return widen(math, dtype, raw);
}

/** The address of each lane, and an offset from it. */
function laneAt(
  p: Expr,
  stride: Lanes,
  offset: number,
  bytes: number,
): (lane: number) => [p: Expr, offset: number] {
  if (typeof stride !== "number") return (lane) => [stride(lane), 0];
  return (lane) => [p, offset + lane * stride * bytes];
}

/** Loads one element into all lanes. */
export function loadSplat(math: VectorMath, dtype: DType, p: Expr, offset: number): Expr {
  const raw = BYTES[dtype] === 2 ? i32x4.splat(i32.load16_u(p, offset)) : v128.load32_splat(p, offset);
  return widen(math, dtype, raw);
}

/** Stores four lanes to elements that are `stride` elements apart. */
export function storeLanes(
  f: Fn,
  math: VectorMath,
  dtype: DType,
  p: Expr,
  stride: Lanes,
  offset: number,
  value: Expr,
  from: LaneType,
): void {
  const raw = f.bind(narrow(f, math, dtype, value, from));
  const bytes = BYTES[dtype];
  if (bytes === 2 && stride === 1) v128.store64_lane(f, p, i16x8.narrow_i32x4_u(raw, raw), 0, offset);
  else if (stride === 1) v128.store(f, p, raw, offset);
  else {
    for (let lane = 0; lane < 4; lane++) {
      const [q, place] = laneAt(p, stride, offset, bytes)(lane);
      if (bytes === 2) v128.store16_lane(f, q, raw, 2 * lane, place);
      else v128.store32_lane(f, q, raw, lane, place);
    }
  }
}

/** Stores only lane 0. */
export function storeOne(f: Fn, math: VectorMath, dtype: DType, p: Expr, value: Expr, from: LaneType): void {
  const raw = narrow(f, math, dtype, value, from);
  if (BYTES[dtype] === 2) v128.store16_lane(f, p, raw, 0);
  else v128.store32_lane(f, p, raw, 0);
}
