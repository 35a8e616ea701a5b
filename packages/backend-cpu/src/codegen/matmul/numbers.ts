/**
 * The numbers in a product's code that follow from lengths, and the key of all else: what is not in one of them has to be in the other.
 */
import { BYTES, type Operand, partsOf } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { addStart, slotsOf } from "../loops/load-store.ts";
import { Numbers } from "../sizes.ts";
import { fitsInPlace, type Tile } from "./gemm.ts";
import { type Grid, kBlock, type Problem, product, type ScratchLayout } from "./plan.ts";
import { isQuantized, type QuantizedOperand } from "./quantized.ts";

/** What addresses of an operand count: bytes; of a quantized one, numbers. */
const bytesOfOne = (operand: Operand): number => (isQuantized(operand) ? 1 : BYTES[operand.dtype]);

/** An operand's numbers, each name preceded by `name`: its start, and the strides of batch axes `s0`…, rows `r` and columns `c`. */
function addOperand(numbers: Numbers, name: string, operand: Operand, batch: readonly number[]): void {
  const bytes = bytesOfOne(operand);
  const { strides } = operand.view;
  addStart(numbers, name, operand.view, bytes);
  batch.forEach((_, d) => numbers.add(name, at(strides, d, "stride") * bytes, "s", d));
  numbers.add(name, at(strides, strides.length - 2, "stride") * bytes, "r");
  numbers.add(name, at(strides, strides.length - 1, "stride") * bytes, "c");
}

export interface Blocking {
  readonly problem: Problem;
  readonly grid: Grid;
  readonly layout: ScratchLayout;
  /** Bytes from row to row of a panel. */
  readonly rowStride: number;
  /** The number of parts that the rows and the columns of C are cut into. */
  readonly parts: { readonly m: number; readonly n: number };
}

export function matmulNumbers({ problem, grid, layout, rowStride, parts }: Blocking): Numbers {
  const { batch, m, n, terms, direct } = problem;
  const numbers = new Numbers({
    m,
    n,
    partsM: parts.m,
    partsN: parts.n,
    mPer: grid.mPer,
    nPer: grid.nPer,
    batchPerChunk: grid.batchPerChunk,
    batches: product(batch),
    mPanel: layout.mPanel,
    nBlock: layout.nBlock,
    packedB: layout.b,
    spare: layout.spare,
    panel: layout.panel,
    rowStride,
  });
  batch.forEach((length, d) => numbers.add(`b${d}`, length));
  terms.forEach(({ a, b, k }, t) => {
    numbers.add(`k${t}`, k);
    numbers.add(`longest${t}`, Math.max(kBlock(k), 1));
    if (layout.resident !== null) numbers.add(`start${t}`, at(layout.resident, t, "term"));
    addOperand(numbers, `A${t}`, a, batch);
    addOperand(numbers, `B${t}`, b, batch);
  });
  if (direct !== null) addOperand(numbers, "C", direct, batch);
  return numbers;
}

/** How a quantized operand is stored, without its buffers. */
function quantizedKey({ quantized }: QuantizedOperand): unknown {
  const { scales, biases, ...rest } = quantized;
  return [rest, [scales, biases].map((part) => part && [part.dtype, part.view])];
}

/** `skinny`: which terms have a kernel for few rows; the code of those kernels has its sizes as constants. */
export function matmulKey(
  { problem, layout, rowStride }: Blocking,
  skinny: readonly boolean[],
  tile: Tile,
  argumentOf: (buffer: number) => number,
): string {
  const { batch, m, terms, direct } = problem;
  const operand = ({ buffer, dtype, view }: Operand): unknown => [
    argumentOf(buffer),
    dtype,
    slotsOf(view.moving),
    batch.map((_, d) => view.strides[d] === 0),
  ];
  return JSON.stringify([
    batch.map((length) => length > 1),
    layout.resident !== null,
    direct && operand(direct),
    terms.map(({ a, b, k }, t) => [
      operand(a),
      operand(b),
      partsOf(b).map(({ buffer }) => argumentOf(buffer)),
      k > 0,
      fitsInPlace(a, k, tile),
      skinny[t] === true && [m, k, a.view.strides, b.view.strides, rowStride],
      isQuantized(b) && [b.view.strides.slice(-2), quantizedKey(b)],
    ]),
  ]);
}
