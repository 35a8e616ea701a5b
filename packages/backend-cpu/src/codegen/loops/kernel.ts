/** Loop kernels as functions of a module. */
import type { LoopKernel } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Module } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import {
  bufferAddress,
  chunkRange,
  type CodegenOptions,
  scalarAddress,
  STEP_PARAMS,
  type StepFunction,
} from "../step.ts";
import { emitLoops } from "./emit.ts";
import type { Nest } from "./nest.ts";
import { canonicalize } from "./nest.ts";
import type { Schedule } from "./schedule.ts";
import { schedule } from "./schedule.ts";

/** Plans a kernel without emitting it. */
export function planLoop(
  kernel: LoopKernel,
  threads: number,
): { readonly nest: Nest; readonly plan: Schedule } {
  const nest = canonicalize(kernel);
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
    const place = { frame, args };
    const { length } = at(plan.axes, plan.vector, "axis");
    const vectorChunks = Math.ceil(length / plan.vectorPerChunk);
    const [rowChunk, vectorChunk] =
      vectorChunks === 1 ? [chunk, 0] : [i32.div_u(chunk, vectorChunks), i32.rem_u(chunk, vectorChunks)];
    const environment = {
      fma: options.fma,
      base: (argument: number) => bufferAddress(place, argument),
      scalar: (slot: number) => scalarAddress(place, options, slot),
      scratch,
    };
    scratchBytes = emitLoops(f, nest, plan, environment, {
      rows: chunkRange(f, rowChunk, plan.rowsPerChunk, plan.rows),
      vector: chunkRange(f, vectorChunk, plan.vectorPerChunk, length),
    });
  });
  return { chunks: plan.chunks, cost: plan.cost, scratchBytes, buffers: nest.buffers };
}
