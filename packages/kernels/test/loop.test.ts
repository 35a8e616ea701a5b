/** Tests of the meaning of loop kernels (views, types and reductions), against results that can be checked by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type BinaryOp,
  type DType,
  type Instr,
  type LoopKernel,
  type Operand,
  type Store,
} from "../src/index.ts";
import { type Content, dense, run } from "./support.ts";

function loop(
  outer: readonly number[],
  inner: readonly number[],
  body: readonly Instr[],
  ...stores: readonly Store[]
): LoopKernel {
  return { type: "loop", outer, inner, body, stores };
}

/** Copies an operand of `n` elements to buffer 1. */
const copy = (from: Operand, n: number): LoopKernel =>
  loop([n], [], [{ op: "load", from, dtype: "f32" }], { to: dense(1, [n]), value: 0 });

const x: Content = ["f32", [1, 2, 3, 4]];

test("strides may be negative and 0", () => {
  const y: Content = ["f32", [0, 0, 0, 0]];
  const flip: Operand = { buffer: 0, dtype: "f32", view: { offset: 3, strides: [-1] } };
  const repeat: Operand = { buffer: 0, dtype: "f32", view: { offset: 2, strides: [0] } };
  assert.deepEqual(run(copy(flip, 4), [x, y])[1], [4, 3, 2, 1]);
  assert.deepEqual(run(copy(repeat, 4), [x, y])[1], [3, 3, 3, 3]);
});

test("outside of the valid range a load gives 0, and a store does nothing", () => {
  const y: Content = ["f32", [9, 9, 9, 9, 9]];
  const padded: Operand = { buffer: 0, dtype: "f32", view: { offset: -1, strides: [1], valid: [[1, 5]] } };
  assert.deepEqual(run(copy(padded, 5), [x, y])[1], [0, 1, 2, 3, 4]);
  const to: Operand = { buffer: 1, dtype: "f32", view: { offset: 0, strides: [1], valid: [[1, 3]] } };
  const kernel = loop([4], [], [{ op: "load", from: dense(0, [4]), dtype: "f32" }], { to, value: 0 });
  assert.deepEqual(run(kernel, [x, y])[1], [9, 2, 3, 9, 9]);
});

test("reductions fold the inner axes, and follow one another", () => {
  const values = [1, 2, 5, 3, 3, -1];
  const load: Instr = { op: "load", from: dense(0, [2, 3]), dtype: "f32" };
  const body: Instr[] = [
    load,
    { op: "reduce", kind: "max", a: 0, dtype: "f32" },
    { op: "sub", a: 0, b: 1, dtype: "f32" },
    { op: "reduce", kind: "sum", a: 2, dtype: "f32" },
    { op: "reduce", kind: "prod", a: 0, dtype: "f32" },
    { op: "reduce", kind: "min", a: 0, dtype: "f32" },
  ];
  const perRow = [1, 3, 4, 5].map((value, i) => ({ to: dense(1 + i, [2]), value }));
  const everywhere = { to: dense(5, [2, 3]), value: 2 };
  const row: Content = ["f32", [0, 0]];
  const all: Content = ["f32", [0, 0, 0, 0, 0, 0]];
  const after = run(loop([2], [3], body, ...perRow, everywhere), [["f32", values], row, row, row, row, all]);
  assert.deepEqual(after.slice(1), [[5, 3], [-7, -4], [10, -9], [1, -1], [-4, -3, 0, 0, 0, -4]]); // prettier-ignore
});

test("integers wrap, division truncates, shifts know their sign", () => {
  const binary = (op: BinaryOp, dtype: "i32" | "u32", a: number, b: number): number => {
    const operand = (buffer: number): Instr => ({ op: "load", from: dense(buffer, [1], dtype), dtype });
    const body: Instr[] = [operand(0), operand(1), { op, a: 0, b: 1, dtype }];
    const contents: Content[] = [[dtype, [a]], [dtype, [b]], [dtype, [0]]]; // prettier-ignore
    return run(loop([1], [], body, { to: dense(2, [1], dtype), value: 2 }), contents)[2]![0]!;
  };
  assert.equal(binary("add", "i32", 2 ** 31 - 1, 1), -(2 ** 31));
  assert.equal(binary("sub", "u32", 0, 1), 2 ** 32 - 1);
  assert.equal(binary("mul", "u32", 2 ** 31 + 1, 3), 2 ** 31 + 3);
  assert.equal(binary("div", "i32", -7, 2), -3);
  assert.equal(binary("mod", "i32", -7, 2), -1);
  assert.equal(binary("shr", "i32", -8, 1), -4);
  assert.equal(binary("shr", "u32", 2 ** 32 - 8, 1), 2 ** 31 - 4);
});

test("a store rounds to the type of its buffer; a cast rounds on the way", () => {
  const third = 1 / 3;
  const cast = (to: DType, dtype: "f32" | "i32" | "bool", value: number): number => {
    const body: Instr[] = [{ op: "const", value, dtype: "f32" }, { op: "cast", a: 0, to, dtype }]; // prettier-ignore
    return run(loop([1], [], body, { to: dense(0, [1], dtype), value: 1 }), [[dtype, [0]]])[0]![0]!;
  };
  const store = (dtype: DType): number => {
    const kernel = loop([1], [], [{ op: "const", value: third, dtype: "f32" }], { to: dense(0, [1], dtype), value: 0 }); // prettier-ignore
    return run(kernel, [[dtype, [0]]])[0]![0]!;
  };
  assert.equal(store("f32"), Math.fround(third));
  assert.equal(store("f16"), 1365 / 4096);
  assert.equal(store("bf16"), 171 / 512);
  assert.equal(cast("f16", "f32", third), 1365 / 4096);
  assert.equal(cast("i32", "i32", -2.9), -2);
  assert.equal(cast("bool", "bool", -0.5), 1);
});

test("scalars and indices", () => {
  const body: Instr[] = [
    { op: "index", axis: 1, dtype: "i32" },
    { op: "cast", a: 0, to: "f32", dtype: "f32" },
    { op: "scalar", slot: 1, dtype: "f32" },
    { op: "mul", a: 1, b: 2, dtype: "f32" },
    { op: "index", axis: 0, dtype: "i32" },
    { op: "cast", a: 4, to: "f32", dtype: "f32" },
    { op: "add", a: 3, b: 5, dtype: "f32" },
  ];
  const kernel = loop([2, 3], [], body, { to: dense(0, [2, 3]), value: 6 });
  assert.deepEqual(run(kernel, [["f32", [0, 0, 0, 0, 0, 0]]], [7, 10])[0], [0, 10, 20, 1, 11, 21]);
});
