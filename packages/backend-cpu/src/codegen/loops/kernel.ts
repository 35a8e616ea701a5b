/** Loop kernels as functions of a module. */
import type { LoopKernel } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { i32 } from "../instructions.ts";
import { Numbers, Sizes } from "../sizes.ts";
import {
  bufferAddress,
  chunkRange,
  type CodegenOptions,
  numbersAt,
  scalarAddress,
  STEP_PARAMS,
  type StepFunction,
} from "../step.ts";
import { emitLoops } from "./emit.ts";
import { formOf } from "./form.ts";
import { canonicalize } from "./nest.ts";
import { addLoopNumbers, LoopSizes } from "./numbers.ts";
import { schedule } from "./schedule.ts";

/** The function of a loop kernel. */
export function planLoop(kernel: LoopKernel, options: CodegenOptions): StepFunction {
  const nest = canonicalize(kernel);
  const plan = schedule(nest, options);
  const form = formOf(nest, plan);
  const { length } = at(plan.axes, plan.vector, "axis");
  const { rows, rowsPerChunk, vectorPerChunk } = plan;
  const vectorChunks = Math.ceil(length / vectorPerChunk);
  const numbers = new Numbers({ rows, rowsPerChunk, vectorPerChunk, vectorChunks });
  addLoopNumbers(numbers, { nest, plan }, form.accesses);
  const isWhole = { rows: rowsPerChunk >= rows, vector: vectorPerChunk >= length };
  const cut = [rows === 1, vectorChunks === 1, isWhole.rows, isWhole.vector];
  return {
    key: `loop ${cut.join()} ${form.key}`,
    numbers,
    chunks: plan.chunks,
    cost: plan.cost,
    scratchBytes: form.scratchBytes,
    buffers: nest.buffers,
    emit: (module, name, isGeneral) =>
      module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
        const place = { frame, args };
        const loops = form.loops();
        const sizes = new Sizes(f, numbers, isGeneral ? args : null, numbersAt(nest.buffers));
        const ofLoops = new LoopSizes(sizes, loops);
        const [rowChunk, vectorChunk] =
          vectorChunks === 1
            ? [chunk, 0]
            : [i32.div_u(chunk, sizes.int("vectorChunks")), i32.rem_u(chunk, sizes.int("vectorChunks"))];
        const environment = {
          fma: options.fma,
          base: (argument: number) => bufferAddress(place, argument),
          scalar: (slot: number) => scalarAddress(place, slot),
          scratch,
        };
        const perRow = isWhole.rows ? null : sizes.int("rowsPerChunk");
        const perVector = isWhole.vector ? null : sizes.int("vectorPerChunk");
        emitLoops(f, loops, ofLoops, environment, {
          rows: chunkRange(f, rowChunk, perRow, rows === 1 ? 1 : sizes.int("rows")),
          vector: chunkRange(f, vectorChunk, perVector, ofLoops.length(plan.vector)),
        });
      }),
  };
}
