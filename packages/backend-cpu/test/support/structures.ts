/** Work of one structure at any size, for tests of code that serves all sizes. */
import type { LibraryCall, LoopKernel, Step } from "@tiedlora/kernels";
import { matmulCase, Operands } from "./calls.ts";
import { denseOperand, type TestBuffer } from "./run.ts";

export interface Work {
  readonly steps: readonly Step[];
  readonly buffers: readonly TestBuffer[];
}

export const f32 = (length: number): TestBuffer => ({ dtype: "f32", length });

/** Sums over the rows of [n, 24], and of its transpose. */
export function sums(n: number): Work {
  const kernel = (strides: readonly number[], outer: number, inner: number, to: number): LoopKernel => ({
    type: "loop",
    outer: [outer],
    inner: [inner],
    body: [
      { op: "load", from: { buffer: 0, dtype: "f32", view: { offset: 0, strides } }, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 0, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(to, "f32", [outer]), value: 1 }],
  });
  return {
    steps: [kernel([1, 24], 24, n, 1), kernel([24, 1], n, 24, 2)],
    buffers: [f32(24 * n), f32(24), f32(n)],
  };
}

/** Rows of a table by their numbers, and these rows added to another table. */
export function indexing(count: number): Work {
  const operands = new Operands();
  const table = operands.add("f32", [11, 6]);
  const index = operands.add("i32", [count]);
  const rows = operands.add("f32", [count, 6]);
  const back = operands.add("f32", [11, 6]);
  const params = { rows: 11, cols: 6, count };
  const steps: LibraryCall[] = [
    { type: "library", name: "gather", params, inputs: [table, index], outputs: [rows] },
    { type: "library", name: "scatterAdd", params, inputs: [index, rows], outputs: [back] },
  ];
  return { steps, buffers: operands.buffers };
}

/** One product. */
export const matmul = (shape: Parameters<typeof matmulCase>[0]): Work => {
  const { call, buffers } = matmulCase(shape);
  return { steps: [call], buffers };
};
