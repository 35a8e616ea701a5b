/** Small operands to test with: every operand is a buffer of its own, row-major. */
import { BYTES, decode, type DType, encode, type Operand, runStep, type Step } from "../src/index.ts";

/** Buffer `buffer` over `shape`. */
export function dense(buffer: number, shape: readonly number[], dtype: DType = "f32"): Operand {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return { buffer, dtype, view: { offset: 0, strides } };
}

/** A buffer's type and first contents. */
export type Content = readonly [dtype: DType, values: readonly number[]];

const bytesOf = ([dtype, values]: Content): ArrayBuffer => encode(values, dtype).buffer as ArrayBuffer;

/** Runs a step over `contents`; what the buffers hold afterwards. */
export function run(step: Step, contents: readonly Content[], scalars: readonly number[] = []): number[][] {
  const buffers = contents.map(bytesOf);
  runStep(step, buffers, scalars);
  return buffers.map((bytes, i) => {
    const dtype = contents[i]![0];
    return Array.from(decode(bytes, dtype, bytes.byteLength / BYTES[dtype]));
  });
}
