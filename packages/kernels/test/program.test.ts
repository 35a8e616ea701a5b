/** Tests of steps as data (their operands and costs), and of the interpreter as a backend. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { costOf, type LibraryCall, type LoopKernel, mapBuffers, operandsOfStep } from "../src/index.ts";
import { type Program, ReferenceBackend } from "../src/index.ts";
import { dense } from "./support.ts";

/** x += y, over n elements. */
const addInPlace = (n: number): LoopKernel => ({
  type: "loop",
  outer: [n],
  inner: [],
  body: [
    { op: "load", from: dense(0, [n]), dtype: "f32" },
    { op: "load", from: dense(1, [n]), dtype: "f32" },
    { op: "add", a: 0, b: 1, dtype: "f32" },
  ],
  stores: [{ to: dense(0, [n]), value: 2 }],
});

/** C = A·B + bias, with the bias along n. */
const matmul: LibraryCall = {
  type: "library",
  name: "matmul",
  params: {
    batch: [],
    m: 4,
    n: 6,
    k: [5],
    epilogue: {
      body: [
        { op: "product", dtype: "f32" },
        {
          op: "load",
          from: { buffer: 2, dtype: "f16", view: { offset: 0, strides: [0, 1] } },
          dtype: "f32",
        },
        { op: "add", a: 0, b: 1, dtype: "f32" },
      ],
      stores: [{ to: dense(3, [4, 6]), value: 2 }],
    },
  },
  inputs: [dense(0, [4, 5]), dense(1, [5, 6])],
  outputs: [],
};

test("a step's operands are those of its body, its call and its epilogue", () => {
  const buffers = (step: LoopKernel | LibraryCall): number[][] => {
    const { reads, writes } = operandsOfStep(step);
    return [reads, writes].map((operands) => operands.map(({ buffer }) => buffer));
  };
  assert.deepEqual(buffers(addInPlace(3)), [[0, 1], [0]]);
  assert.deepEqual(buffers(matmul), [[0, 1, 2], [3]]);
  assert.deepEqual(buffers(mapBuffers(addInPlace(3), (i) => 10 + i) as LoopKernel), [[10, 11], [10]]);
  assert.deepEqual(buffers(mapBuffers(matmul, (i) => 3 - i) as LibraryCall), [[3, 2, 1], [0]]);
  assert.deepEqual(buffers(matmul), [[0, 1, 2], [3]], "the step itself is not changed");
});

test("what a step costs: operations, and each element that it touches once", () => {
  assert.deepEqual(costOf(addInPlace(8)), { name: "elements 8", flops: 8, bytes: 3 * 8 * 4 });
  assert.deepEqual(costOf(matmul), {
    name: "matmul 4×5×6 + epilogue",
    flops: 2 * 4 * 5 * 6 + 4 * 6,
    bytes: 4 * (4 * 5 + 5 * 6 + 4 * 6) + 2 * 6,
  });
});

test("the interpreter runs programs: inputs, temporaries, updates in place", async () => {
  const backend = new ReferenceBackend();
  const double: LoopKernel = {
    ...addInPlace(2),
    body: [
      { op: "load", from: dense(1, [2]), dtype: "f32" },
      { op: "scalar", slot: 0, dtype: "f32" },
      { op: "mul", a: 0, b: 1, dtype: "f32" },
    ],
    stores: [{ to: dense(2, [2]), value: 2 }],
  };
  const program: Program = {
    buffers: [
      { kind: "input", bytes: 8 },
      { kind: "input", bytes: 8 },
      { kind: "temp", bytes: 8 },
      { kind: "output", bytes: 8, aliasOf: 0 },
    ],
    scalars: 1,
    steps: [double, mapBuffers(addInPlace(2), (i) => (i === 0 ? 0 : 2))], // x += 2y
  };
  const [x, y] = [backend.alloc(8), backend.alloc(8)];
  x.write(Float32Array.of(1, 2));
  y.write(Float32Array.of(10, 20));
  const executable = backend.compile(program);
  assert.equal(executable.tempBytes, 8);
  assert.deepEqual(backend.memory(), { liveBytes: 24, peakBytes: 24 });
  executable.run([x, y], [x], Float64Array.of(2));
  assert.deepEqual(new Float32Array(await x.read()), Float32Array.of(21, 42));
  executable.run([x, y], [x], Float64Array.of(-1));
  assert.deepEqual(new Float32Array(await x.read()), Float32Array.of(11, 22));
  executable.free();
  x.free();
  assert.deepEqual(backend.memory(), { liveBytes: 8, peakBytes: 24 });
  assert.throws(() => x.free(), /freed before/);
});
