/**
 * The parameters of a step's function and the addresses of its operands, which are the same for loops, products, attention
 * and indexing.
 */
import type { Operand } from "@tiedlora/kernels";
import type { Expr, Fn, Int, Local } from "./assembler.ts";
import { i32 } from "./instructions.ts";
import type { Structured } from "./library.ts";
import { startOf } from "./loops/load-store.ts";
import type { Sizes } from "./sizes.ts";

/**
 * The parameters of every step function: the address of the run's frame (scalars, then buffer addresses), the address of the
 * step's arguments (for each buffer, the offset in the frame of its address; then, for functions that serve all sizes, the step's
 * numbers), the chunk to compute, and the address of the thread's scratch memory.
 */
export const STEP_PARAMS: readonly ["i32", "i32", "i32", "i32"] = ["i32", "i32", "i32", "i32"];

export interface CodegenOptions {
  readonly threads: number;
  /** Use relaxed-SIMD fused multiply-add. */
  readonly fma: boolean;
  /** Whether V8 joins pairs of vectors into vectors of 256 bits. */
  readonly wide: boolean;
}

/** How a step's function is made and called. */
export interface StepFunction extends Structured {
  readonly chunks: number;
  /** Estimated nanoseconds on one thread. */
  readonly cost: number;
  readonly scratchBytes: number;
  /** The program's buffer of each argument. */
  readonly buffers: readonly number[];
}

/** Numbers the buffers of a step as arguments of its function, in order of appearance. */
export class Arguments {
  /** The program's buffer of each argument. */
  readonly buffers: number[] = [];

  constructor(operands: readonly Operand[] = []) {
    for (const { buffer } of operands) this.of(buffer);
  }

  /** The number of the argument for `buffer`, which is added if it is new. */
  of(buffer: number): number {
    const known = this.buffers.indexOf(buffer);
    return known >= 0 ? known : this.buffers.push(buffer) - 1;
  }
}

/** The parameters of a step function that say where its data is. */
export interface Place {
  readonly frame: Local;
  readonly args: Local;
}

/** The address of an argument's buffer. */
export function bufferAddress({ frame, args }: Place, argument: number): Expr {
  return i32.load(i32.add(frame, i32.load(args, 4 * argument)));
}

/** The address of the run-time number in `slot`, an f64. */
export function scalarAddress({ frame }: Place, slot: number): Expr {
  return slot === 0 ? frame : i32.add(frame, 8 * slot);
}

/** The address of the first element of an operand whose buffer is `argument` and whose numbers are called `name`. */
export function operandAddress(
  { view }: Operand,
  argument: number,
  place: Place,
  sizes: Sizes,
  name: string,
): Expr {
  return startOf(sizes, name, view.moving, bufferAddress(place, argument), (slot) =>
    scalarAddress(place, slot),
  );
}

/** Where a step's numbers are among its arguments: after its buffers. */
export const numbersAt = (buffers: readonly number[]): number => 4 * buffers.length;

/** Start and end of chunk `index` of `per` elements out of `total`; null if one chunk has all. */
export function chunkRange(f: Fn, index: Int, per: Int | null, total: Int): readonly [Int, Int] {
  if (per === null) return [0, total];
  const from = f.local("i32", i32.mul(index, per));
  const to = f.local("i32", i32.add(from, per));
  return [from, f.local("i32", i32.select(to, total, i32.lt_s(to, total)))];
}
