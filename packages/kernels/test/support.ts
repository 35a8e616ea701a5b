/** Small operands for tests: every operand has its own row-major buffer. */
import { BYTES, decode, type DType, encode, type Operand, runStep, type Step } from "../src/index.ts";

/** An operand that views all of buffer `buffer` as `shape`. */
export function dense(buffer: number, shape: readonly number[], dtype: DType = "f32"): Operand {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return { buffer, dtype, view: { offset: 0, strides } };
}

/** A buffer's element type and initial values. */
export type Content = readonly [dtype: DType, values: readonly number[]];

const bytesOf = ([dtype, values]: Content): ArrayBuffer => encode(values, dtype).buffer as ArrayBuffer;

/** Runs a step on buffers with these `contents`, and returns the buffers' values afterwards. */
export function run(step: Step, contents: readonly Content[], scalars: readonly number[] = []): number[][] {
  const buffers = contents.map(bytesOf);
  runStep(step, buffers, scalars);
  return buffers.map((bytes, i) => {
    const dtype = contents[i]![0];
    return Array.from(decode(bytes, dtype, bytes.byteLength / BYTES[dtype]));
  });
}
