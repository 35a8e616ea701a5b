/** Steps are compared but for their buffers: equal steps are planned once, and nothing else is taken for equal. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { alike, buffersIfAlike, buffersOf, sketchOf } from "../src/alike.ts";
import type { LibraryCall, LoopKernel, Operand } from "../src/kernel.ts";

const operand = (buffer: number, offset = 0): Operand => ({
  buffer,
  dtype: "f32",
  view: { offset, strides: [1] },
});

/** out = a + b · constant, over `length` elements. */
function kernel(a: number, b: number, out: number, constant = 2, offset = 0, length = 8): LoopKernel {
  return {
    type: "loop",
    outer: [length],
    inner: [],
    body: [
      { op: "load", from: operand(a, offset), dtype: "f32" },
      { op: "load", from: operand(b), dtype: "f32" },
      { op: "const", value: constant, dtype: "f32" },
      { op: "mul", a: 1, b: 2, dtype: "f32" },
      { op: "add", a: 0, b: 3, dtype: "f32" },
    ],
    stores: [{ to: operand(out), value: 4 }],
  };
}

const order = buffersOf(kernel(5, 3, 9));

test("the buffers of a step come in order of appearance", () => {
  assert.deepEqual(order, [5, 3, 9]);
});

test("steps that differ in buffers alone are alike", () => {
  assert.deepEqual(buffersIfAlike(kernel(5, 3, 9), order, kernel(1, 2, 4)), [1, 2, 4]);
  const onto = kernel(5, 3, 5);
  assert.deepEqual(buffersIfAlike(onto, buffersOf(onto), kernel(1, 2, 1)), [1, 2]);
});

test("steps whose operands share other buffers are not", () => {
  assert.equal(buffersIfAlike(kernel(5, 3, 9), order, kernel(1, 1, 4)), null);
  assert.equal(buffersIfAlike(kernel(5, 3, 9), order, kernel(1, 2, 1)), null);
  const onto = kernel(5, 3, 5);
  assert.equal(buffersIfAlike(onto, buffersOf(onto), kernel(1, 2, 4)), null);
});

test("steps that differ in any number are not, not even in the sign of a zero", () => {
  for (const other of [kernel(1, 2, 4, 3), kernel(1, 2, 4, 2, 1), kernel(1, 2, 4, 2, 0, 9)]) {
    assert.equal(buffersIfAlike(kernel(5, 3, 9), order, other), null);
  }
  const [plus, minus, nan] = [kernel(5, 3, 9, 0), kernel(5, 3, 9, -0), kernel(5, 3, 9, NaN)];
  assert.equal(buffersIfAlike(plus, order, minus), null);
  assert.equal(buffersIfAlike(minus, order, plus), null);
  assert.deepEqual(buffersIfAlike(nan, order, kernel(5, 3, 9, NaN)), order);
});

/** a · b + r with quantized b, [4, 32] · [32, 8], stored in `out`. */
function product(buffers: readonly [number, number, number, number, number], bits: 4 | 8 = 4): LibraryCall {
  const [a, words, scales, r, out] = buffers;
  const quantized = { bits, group: 32, table: "signed", groups: 8, scales: operand(scales) } as const;
  const b: Operand = { ...operand(words), dtype: "u32", quantized };
  const { body, stores } = kernel(r, r, out);
  const epilogue = { body: [...body, { op: "product", dtype: "f32" } as const], stores };
  const params = { batch: [], m: 4, n: 8, k: [32], epilogue };
  return { type: "library", name: "matmul", params, inputs: [operand(a), b], outputs: [] };
}

test("of calls, epilogues and the scales of quantized weights are compared too", () => {
  const known = product([1, 2, 3, 4, 5]);
  const order = buffersOf(known);
  assert.deepEqual(order, [4, 5, 1, 2, 3]);
  assert.deepEqual(buffersIfAlike(known, order, product([9, 8, 7, 6, 5])), [6, 5, 9, 8, 7]);
  assert.equal(sketchOf(known), sketchOf(product([9, 8, 7, 6, 5])));
  assert.equal(buffersIfAlike(known, order, product([9, 8, 8, 6, 5])), null);
  assert.equal(buffersIfAlike(known, order, product([9, 8, 7, 5, 5])), null);
  assert.equal(buffersIfAlike(known, order, product([9, 8, 7, 6, 5], 8)), null);
  assert.equal(buffersIfAlike(known, order, { ...known, inputs: [operand(1), operand(2)] }), null);
});

test("a property that one lacks makes a difference, undefined makes none", () => {
  assert.equal(alike({ a: 1 }, { a: 1, b: 2 }), false);
  assert.equal(alike({ a: 1, b: 2 }, { a: 1 }), false);
  assert.equal(alike({ a: 1, b: undefined }, { a: 1 }), true);
  assert.equal(alike([1, [2, null]], [1, [2, null]]), true);
  assert.equal(alike([1, [2, null]], [1, [2, 0]]), false);
});
