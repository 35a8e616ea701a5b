/**
 * Gather and scatter-add over rows. Scatter-add is deterministic: every chunk owns a part of the output, reads all indices in
 * order, and adds the values that belong to its part.
 */
import { BYTES, computeType, type LibraryCall, type Operand } from "@tiedlora/kernels";
import { at } from "../assert.ts";
import type { Expr, Fn, Int, Local } from "./assembler.ts";
import { i32 } from "./instructions.ts";
import { addStart, loadLanes, loadSplat, slotsOf, storeLanes, storeOne } from "./loops/load-store.ts";
import type { LaneType } from "./loops/values.ts";
import { constant, fold } from "./loops/values.ts";
import { VectorMath } from "./math.ts";
import { Numbers, Sizes } from "./sizes.ts";
import {
  chunkRange,
  type CodegenOptions,
  numbersAt,
  operandAddress,
  type Place,
  STEP_PARAMS,
  type StepFunction,
} from "./step.ts";

export type GatherCall = Extract<LibraryCall, { name: "gather" }>;
export type ScatterAddCall = Extract<LibraryCall, { name: "scatterAdd" }>;

/** Nanoseconds per element moved; work below PARALLEL_NS stays on one thread. */
const ELEMENT_NS = 0.3;
const PARALLEL_NS = 20_000;

function laneType(operand: Operand): LaneType {
  const type = computeType(operand.dtype);
  if (type === "f64") throw new Error("the CPU backend has no f64 buffers; use f32");
  return type;
}

/**
 * An operand that consists of rows, or a list of numbers, as generated code reads it: the address of its first row, and its
 * strides.
 */
class Rows {
  readonly operand: Operand;
  readonly type: LaneType;
  readonly bytes: number;
  readonly columnStride: number;
  readonly #f: Fn;
  readonly #rowBytes: Int;
  readonly #start: Local;

  constructor(f: Fn, operand: Operand, argument: number, place: Place, sizes: Sizes) {
    const { strides } = operand.view;
    this.#f = f;
    this.operand = operand;
    this.type = laneType(operand);
    this.bytes = BYTES[operand.dtype];
    this.#rowBytes = sizes.int(`${argument}r`);
    this.columnStride = strides.length === 1 ? 0 : at(strides, 1, "stride");
    this.#start = f.local("i32", operandAddress(operand, argument, place, sizes, `${argument}`));
  }

  /** The address of [row, column]. */
  at(row: Expr, column: Int): Local {
    const rowStart = i32.add(this.#start, i32.mul(row, this.#rowBytes));
    return this.#f.local("i32", i32.add(rowStart, i32.mul(column, this.columnStride * this.bytes)));
  }
}

/** Runs `vector` on four columns at a time and `single` on the rest; the addresses in `moving` advance with them. */
function overColumns(
  f: Fn,
  from: Int,
  to: Int,
  moving: readonly { readonly p: Local; readonly rows: Rows }[],
  vector: () => void,
  single: () => void,
): void {
  const c = f.local("i32", from);
  const step = (width: number, body: () => void): void =>
    f.while(
      () => i32.le_s(i32.add(c, width), to),
      () => {
        body();
        for (const { p, rows } of moving) f.add(p, width * rows.columnStride * rows.bytes);
        f.add(c, width);
      },
    );
  step(4, vector);
  step(1, single);
}

/** Stores four columns, or one, of `value` at `p`. */
function put(f: Fn, math: VectorMath, rows: Rows, p: Local, value: Expr, type: LaneType, lanes: 1 | 4): void {
  if (lanes === 1) storeOne(f, math, rows.operand.dtype, p, value, type);
  else storeLanes(f, math, rows.operand.dtype, p, rows.columnStride, 0, value, type);
}

function get(math: VectorMath, rows: Rows, p: Local, lanes: 1 | 4): Expr {
  if (lanes === 1) return loadSplat(math, rows.operand.dtype, p, 0);
  return loadLanes(math, rows.operand.dtype, p, rows.columnStride, 0);
}

/** Operands by the numbers of their arguments: adds an operand's numbers, named by that, and returns the key of all else. */
function operandKeys(operands: readonly Operand[], numbers: Numbers): string {
  const keys = operands.map(({ dtype, view }, argument) => {
    addStart(numbers, `${argument}`, view, BYTES[dtype]);
    numbers.add(`${argument}r`, at(view.strides, 0, "stride") * BYTES[dtype]);
    return [dtype, view.strides[1] ?? 0, slotsOf(view.moving)];
  });
  return JSON.stringify(keys);
}

/** The buffer of each operand: operands that share a buffer are arguments of their own. */
const buffersOf = (operands: readonly Operand[]): number[] => operands.map(({ buffer }) => buffer);

export function planGather(call: GatherCall, options: CodegenOptions): StepFunction {
  const { rows, cols, count } = call.params;
  const [table, index] = call.inputs as [Operand, Operand];
  const output = call.outputs[0] as Operand;
  const operands = [table, index, output];
  const buffers = buffersOf(operands);
  const cost = count * cols * ELEMENT_NS;
  const wanted = options.threads === 1 || cost < PARALLEL_NS ? 1 : Math.min(count, 4 * options.threads);
  const perChunk = Math.ceil(count / wanted);
  const numbers = new Numbers({ count, perChunk });
  const operandKey = operandKeys(operands, numbers);
  const emit: StepFunction["emit"] = (module, name, isGeneral) =>
    module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk) => {
      const math = new VectorMath(f, options.fma);
      const sizes = new Sizes(f, numbers, isGeneral ? args : null, numbersAt(buffers));
      const [from, indices, to] = operands.map((o, i) => new Rows(f, o, i, { frame, args }, sizes)) as [
        Rows,
        Rows,
        Rows,
      ];
      const missing = constant(math, from.type === "f32" ? NaN : 0, from.type);
      const i = f.local("i32");
      const [start, end] = chunkRange(
        f,
        chunk,
        perChunk >= count ? null : sizes.int("perChunk"),
        sizes.int("count"),
      );
      f.for(i, start, end, 1, () => {
        const row = f.bind(i32.load(indices.at(i, 0)));
        const target = to.at(i, 0);
        const out = { p: target, rows: to };
        f.if(
          i32.lt_u(row, rows),
          () => {
            const source = from.at(row, 0);
            const copy = (lanes: 1 | 4) => (): void =>
              put(f, math, to, target, get(math, from, source, lanes), from.type, lanes);
            overColumns(f, 0, cols, [{ p: source, rows: from }, out], copy(4), copy(1));
          },
          () => {
            const fill = (lanes: 1 | 4) => (): void => put(f, math, to, target, missing, from.type, lanes);
            overColumns(f, 0, cols, [out], fill(4), fill(1));
          },
        );
      });
    });
  const key = `gather ${rows} ${cols} ${perChunk >= count} ${operandKey}`;
  return { key, numbers, emit, chunks: Math.ceil(count / perChunk), cost, scratchBytes: 0, buffers };
}

export function planScatterAdd(call: ScatterAddCall, options: CodegenOptions): StepFunction {
  const { rows, cols, count } = call.params;
  const [index, values] = call.inputs as [Operand, Operand];
  const output = call.outputs[0] as Operand;
  const operands = [index, values, output];
  const buffers = buffersOf(operands);
  const cost = (count + rows) * cols * ELEMENT_NS + count;
  const wanted = options.threads === 1 || cost < PARALLEL_NS ? 1 : 2 * options.threads;
  // cutting the columns balances the work; the rows are cut only where there are too few columns
  const colsPer = cols >= 16 * wanted ? Math.ceil(cols / wanted / 16) * 16 : cols;
  const rowsPer = colsPer < cols ? rows : Math.ceil(rows / Math.min(rows, wanted));
  const rowChunks = Math.ceil(rows / rowsPer);
  const numbers = new Numbers({ count });
  const operandKey = operandKeys(operands, numbers);
  const emit: StepFunction["emit"] = (module, name, isGeneral) =>
    module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk) => {
      const math = new VectorMath(f, options.fma);
      const sizes = new Sizes(f, numbers, isGeneral ? args : null, numbersAt(buffers));
      const [indices, from, to] = operands.map((o, i) => new Rows(f, o, i, { frame, args }, sizes)) as [
        Rows,
        Rows,
        Rows,
      ];
      const [r0, r1] = chunkRange(f, i32.rem_u(chunk, rowChunks), rowsPer >= rows ? null : rowsPer, rows);
      const [c0, c1] = chunkRange(f, i32.div_u(chunk, rowChunks), colsPer >= cols ? null : colsPer, cols);
      const i = f.local("i32");
      f.for(i, r0, r1, 1, () => {
        const target = to.at(i, c0);
        const clear = (lanes: 1 | 4) => (): void =>
          put(f, math, to, target, constant(math, 0, to.type), to.type, lanes);
        overColumns(f, c0, c1, [{ p: target, rows: to }], clear(4), clear(1));
      });
      f.for(i, 0, sizes.int("count"), 1, () => {
        const row = f.bind(i32.load(indices.at(i, 0)));
        f.if(i32.lt_u(i32.sub(row, r0), i32.sub(r1, r0)), () => {
          const [source, target] = [from.at(i, c0), to.at(row, c0)];
          const accumulate = (lanes: 1 | 4) => (): void => {
            const sum = fold(f, "sum", to.type, get(math, to, target, lanes), get(math, from, source, lanes));
            put(f, math, to, target, sum, to.type, lanes);
          };
          const moving = [
            { p: source, rows: from },
            { p: target, rows: to },
          ];
          overColumns(f, c0, c1, moving, accumulate(4), accumulate(1));
        });
      });
    });
  const key = `scatter ${rows} ${cols} ${rowsPer} ${colsPer} ${operandKey}`;
  const chunks = rowChunks * Math.ceil(cols / colsPer);
  return { key, numbers, emit, chunks, cost, scratchBytes: 0, buffers };
}
