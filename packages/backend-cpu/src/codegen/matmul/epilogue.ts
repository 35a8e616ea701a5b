/**
 * The epilogue of a matrix product: a loop kernel over a panel of C, which runs while the panel's finished numbers are in
 * cache.
 */
import type { Epilogue, LoopKernel } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Fn, i32s, type Module } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import { emitLoops } from "../loops/emit.ts";
import { formOf } from "../loops/form.ts";
import { canonicalize, PRODUCT } from "../loops/nest.ts";
import { addLoopNumbers, LoopSizes } from "../loops/numbers.ts";
import { schedule } from "../loops/schedule.ts";
import { type Numbers, Sizes } from "../sizes.ts";
import { type Arguments, bufferAddress, scalarAddress } from "../step.ts";
import type { Problem } from "./plan.ts";

/** The names of an epilogue's numbers begin with this. */
const PREFIX = "epilogue ";

export interface PlannedEpilogue {
  readonly key: string;
  /** Adds epilogue(frame, args, scratch, row, endRow, column, endColumn, panel): rows are numbered over batch and m together. */
  readonly emit: (
    module: Module,
    step: { readonly numbers: Numbers; readonly isGeneral: boolean; readonly at: number },
    fma: boolean,
  ) => Fn;
}

/** Rows of the panel are `panelColumns` numbers apart; `wide`: see `CodegenOptions`. Adds the epilogue's buffers and numbers to those of its product. */
export function planEpilogue(
  { batch, m, n }: Problem,
  { body, stores }: Epilogue,
  { panelColumns, wide }: { readonly panelColumns: number; readonly wide: boolean },
  buffers: Arguments,
  numbers: Numbers,
): PlannedEpilogue {
  const kernel: LoopKernel = { type: "loop", outer: [...batch, m, n], inner: [], body, stores };
  const nest = canonicalize(kernel, { productRowStride: panelColumns });
  const plan = schedule(nest, { threads: 1, wide, lastAxis: true });
  const form = formOf(nest, plan);
  const ofNest = nest.buffers.map((buffer) => buffers.of(buffer));
  addLoopNumbers(numbers, { nest, plan }, form.accesses, PREFIX);
  return {
    key: `${ofNest.join()} ${form.key}`,
    emit: (module, step, fma) =>
      module.fn(null, i32s(8), [], (f, frame, args, scratch, row, endRow, column, endColumn, panel) => {
        const place = { frame, args };
        const loops = form.loops();
        const sizes = new Sizes(f, step.numbers, step.isGeneral ? args : null, step.at);
        // the panel starts at element [row, column], but the nest's operands start at [0, 0]
        const corner = i32.add(i32.mul(row, sizes.int("nBlock")), column);
        const origin = f.bind(i32.sub(panel, i32.shl(corner, 2)));
        const environment = {
          fma,
          base: (argument: number) =>
            argument === PRODUCT ? origin : bufferAddress(place, at(ofNest, argument, "argument")),
          scalar: (slot: number) => scalarAddress(place, slot),
          scratch,
        };
        const range = { rows: [row, endRow], vector: [column, endColumn] } as const;
        emitLoops(f, loops, new LoopSizes(sizes, loops, PREFIX), environment, range);
      }),
  };
}
