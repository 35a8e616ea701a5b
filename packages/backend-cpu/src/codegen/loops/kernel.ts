/** Loop kernels as functions of a module. */
import type { LoopKernel, Operand } from "@tiedlora/kernels";
import type { Expr, Fn, Int, Local, Module } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import { startOf } from "./access.ts";
import { LoopEmitter } from "./emit.ts";
import type { Nest } from "./nest.ts";
import { canonicalise } from "./nest.ts";
import type { Schedule } from "./schedule.ts";
import { schedule } from "./schedule.ts";

/**
 * Every step function has these parameters: the addresses of the run's frame (buffer addresses and scalars), of the
 * step's arguments (for each slot, where in the frame its buffer's address is), the chunk to compute, and the
 * address of the thread's scratch memory.
 */
export const STEP_PARAMS: readonly ["i32", "i32", "i32", "i32"] = ["i32", "i32", "i32", "i32"];

export interface CodegenOptions {
  readonly threads: number;
  /** Use relaxed-SIMD fused multiply-add. */
  readonly fma: boolean;
  /** Where in the frame the scalars start, bytes. */
  readonly scalarsAt: number;
}

/** A step's function and how to call it. */
export interface StepFunction {
  readonly chunks: number;
  /** Estimated nanoseconds on one thread. */
  readonly cost: number;
  readonly scratchBytes: number;
  /** The program's buffer in each slot. */
  readonly buffers: readonly number[];
}

/** The address of the buffer in `slot`. */
export function bufferAddress(frame: Local, args: Local, slot: number): ReturnType<typeof i32.load> {
  return i32.load(i32.add(frame, i32.load(args, 4 * slot)));
}

/** The address of the run-time number in `slot`, an f64. */
export function scalarAddress(frame: Local, { scalarsAt }: CodegenOptions, slot: number): Expr {
  return i32.add(frame, scalarsAt + 8 * slot);
}

/** The address of an operand's first element, its buffer being in `slot`. */
export function operandAddress(
  { view, dtype }: Operand,
  slot: number,
  { frame, args }: { readonly frame: Local; readonly args: Local },
  options: CodegenOptions,
): Expr {
  return startOf(view, dtype, bufferAddress(frame, args, slot), (s) => scalarAddress(frame, options, s));
}

/** Start and end of chunk `index` of `per` elements out of `total`. */
export function chunkRange(f: Fn, index: Int, per: number, total: number): readonly [Int, Int] {
  if (per >= total) return [0, total];
  const from = f.local("i32", i32.mul(index, per));
  const to = f.local("i32", i32.add(from, per));
  return [from, f.local("i32", i32.select(to, total, i32.lt_s(to, total)))];
}

/** Plans a kernel without emitting it. */
export function planLoop(
  kernel: LoopKernel,
  threads: number,
): { readonly nest: Nest; readonly plan: Schedule } {
  const nest = canonicalise(kernel);
  return { nest, plan: schedule(nest, { threads }) };
}

/** Adds `kernel` to the module under `name`. */
export function compileLoop(
  module: Module,
  name: string,
  { nest, plan }: { readonly nest: Nest; readonly plan: Schedule },
  options: CodegenOptions,
): StepFunction {
  let scratchBytes = 0;
  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    const length = plan.axes[plan.vector]?.length ?? 1;
    const vectorChunks = Math.ceil(length / plan.vectorPerChunk);
    const emitter = new LoopEmitter(f, nest, plan, {
      fma: options.fma,
      base: (slot) => bufferAddress(frame, args, slot),
      scalar: (slot) => scalarAddress(frame, options, slot),
      scratch,
    });
    emitter.emit({
      rows: chunkRange(
        f,
        vectorChunks === 1 ? chunk : i32.div_u(chunk, vectorChunks),
        plan.rowsPerChunk,
        plan.rows,
      ),
      vector: chunkRange(
        f,
        vectorChunks === 1 ? 0 : i32.rem_u(chunk, vectorChunks),
        plan.vectorPerChunk,
        length,
      ),
    });
    scratchBytes = emitter.scratchBytes;
  });
  return { chunks: plan.chunks, cost: plan.cost, scratchBytes, buffers: nest.buffers };
}
