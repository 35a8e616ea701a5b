/**
 * The epilogue of a matrix product: a loop kernel over a panel of C, which runs while the panel's finished numbers are in
 * cache.
 */
import type { Epilogue, LoopKernel } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Fn, i32s, type Module } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import { emitLoops } from "../loops/emit.ts";
import { canonicalize, PRODUCT } from "../loops/nest.ts";
import { schedule } from "../loops/schedule.ts";
import { type Arguments, bufferAddress, type CodegenOptions, scalarAddress } from "../step.ts";
import type { Problem } from "./plan.ts";

/**
 * epilogue(frame, args, scratch, row, endRow, column, endColumn, panel): rows are numbered over batch and m together; rows of
 * the panel are `panelColumns` numbers apart.
 */
export function compileEpilogue(
  module: Module,
  { batch, m, n }: Problem,
  epilogue: Epilogue,
  panelColumns: number,
  options: CodegenOptions,
  numbers: Arguments,
): Fn {
  const { body, stores } = epilogue;
  const kernel: LoopKernel = { type: "loop", outer: [...batch, m, n], inner: [], body, stores };
  const nest = canonicalize(kernel, { productRowStride: panelColumns });
  const plan = schedule(nest, { threads: 1, lastAxis: true });
  const ofNest = nest.buffers.map((buffer) => numbers.of(buffer));
  return module.fn(null, i32s(8), [], (f, frame, args, scratch, row, endRow, column, endColumn, panel) => {
    const place = { frame, args };
    // the panel starts at element [row, column], but the nest's operands start at [0, 0]
    const corner = i32.add(i32.mul(row, panelColumns), column);
    const origin = f.bind(i32.sub(panel, i32.shl(corner, 2)));
    const environment = {
      fma: options.fma,
      base: (argument: number) =>
        argument === PRODUCT ? origin : bufferAddress(place, at(ofNest, argument, "argument")),
      scalar: (slot: number) => scalarAddress(place, options, slot),
      scratch,
    };
    emitLoops(f, nest, plan, environment, { rows: [row, endRow], vector: [column, endColumn] });
  });
}
