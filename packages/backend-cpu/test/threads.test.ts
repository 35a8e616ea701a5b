/** Results are bitwise the same for any number of threads, and work that is cut into chunks is correct. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { BYTES, type LoopKernel, type Step } from "@tiedlora/kernels";
import { CpuBackend } from "../src/device/backend.ts";
import { attentionCase, attentionGradCase, matmulCase, Operands } from "./support/calls.ts";
import { assertSameAsReference, denseOperand, fill, runOn, type TestBuffer } from "./support/run.ts";

const one = new CpuBackend({ threads: 1 });
const many = [2, 3].map((threads) => new CpuBackend({ threads, inlineNs: 0 }));
after(() => {
  for (const backend of [one, ...many]) backend.close();
});

interface Work {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly buffers: readonly TestBuffer[];
}

/** Loads x [rows, columns], folds one of the axes, stores exp of it. */
function reduction(rows: number, columns: number, over: 0 | 1): Work {
  const [outer, inner] = over === 1 ? [rows, columns] : [columns, rows];
  const strides = over === 1 ? [columns, 1] : [1, columns];
  const kernel: LoopKernel = {
    type: "loop",
    outer: [outer],
    inner: [inner],
    body: [
      { op: "load", from: { buffer: 0, dtype: "f32", view: { offset: 0, strides } }, dtype: "f32" },
      { op: "tanh", a: 0, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 1, dtype: "f32" },
      { op: "reduce", kind: "max", a: 0, dtype: "f32" },
      { op: "add", a: 2, b: 3, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", [outer]), value: 4 }],
  };
  const buffers: TestBuffer[] = [
    { dtype: "f32", length: rows * columns },
    { dtype: "f32", length: outer },
  ];
  return { name: `reduction of ${rows}x${columns} over axis ${over}`, steps: [kernel], buffers };
}

function softmax(rows: number, columns: number): Work {
  const x = denseOperand(0, "f32", [rows, columns]);
  const kernel: LoopKernel = {
    type: "loop",
    outer: [rows],
    inner: [columns],
    body: [
      { op: "load", from: x, dtype: "f32" },
      { op: "reduce", kind: "max", a: 0, dtype: "f32" },
      { op: "sub", a: 0, b: 1, dtype: "f32" },
      { op: "exp", a: 2, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 3, dtype: "f32" },
      { op: "div", a: 3, b: 4, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", [rows, columns]), value: 5 }],
  };
  const buffer: TestBuffer = { dtype: "f32", length: rows * columns };
  return { name: `softmax of ${rows}x${columns}`, steps: [kernel], buffers: [buffer, buffer] };
}

function indexing(name: "gather" | "scatterAdd", rows: number, cols: number, count: number): Work {
  const operands = new Operands();
  const index = operands.add("i32", [count]);
  const params = { rows, cols, count };
  if (name === "gather") {
    const table = operands.add("f32", [rows, cols]);
    const outputs = [operands.add("f32", [count, cols])];
    const step: Step = { type: "library", name, params, inputs: [table, index], outputs };
    return { name, steps: [step], buffers: operands.buffers };
  }
  const values = operands.add("f32", [count, cols]);
  const outputs = [operands.add("f32", [rows, cols])];
  const step: Step = { type: "library", name, params, inputs: [index, values], outputs };
  return { name, steps: [step], buffers: operands.buffers };
}

/** With one key head, its gradient is cut by queries and by keys. */
const ATTENTION = [
  { batch: 1, heads: 4, kvHeads: 2, q: 130, kv: 150, d: 16, causal: true, scale: 0.25, bias: false },
  { batch: 1, heads: 1, kvHeads: 1, q: 300, kv: 300, d: 16, causal: true, scale: 0.25, bias: false },
  { batch: 1, heads: 3, kvHeads: 1, q: 101, kv: 333, d: 17, causal: true, scale: -0.5, bias: true },
  { batch: 1, heads: 2, kvHeads: 1, q: 203, kv: 210, d: 5, causal: false, scale: 0.25, bias: true },
  { batch: 1, heads: 1, kvHeads: 1, q: 97, kv: 41, d: 8, causal: false, scale: 1, bias: false },
];

const WORK: readonly Work[] = [
  reduction(700, 90, 1),
  reduction(700, 90, 0),
  reduction(300, 5000, 0),
  reduction(3, 90_000, 1),
  softmax(300, 257),
  indexing("gather", 10, 300, 900),
  indexing("scatterAdd", 10, 300, 900),
  indexing("scatterAdd", 500, 30, 900),
  ...[
    { m: 130, n: 210, k: [90] },
    { m: 500, n: 20, k: [130, 8], epilogue: true },
    { batch: [6], m: 40, n: 50, k: [60] },
    { m: 1, n: 3000, k: [200], transposed: [[false, true]] as const },
    { m: 2, n: 3000, k: [200], dtype: "f16" as const },
  ].map((shape) => {
    const { call, buffers } = matmulCase(shape);
    return { name: `matmul ${JSON.stringify(shape)}`, steps: [call], buffers };
  }),
  ...ATTENTION.map((given) => {
    const forward = attentionCase(given);
    const { call, buffers } = attentionGradCase(forward);
    return {
      name: `attention and its gradient ${JSON.stringify(given)}`,
      steps: [forward.call, call],
      buffers,
    };
  }),
];

for (const { name, steps, buffers } of WORK) {
  test(`${name}: the same bits with 1, 2 and 3 threads`, async () => {
    const contents = buffers.map(({ dtype, length }, i) => {
      const bytes = new ArrayBuffer(length * BYTES[dtype]);
      fill(dtype, bytes, i + 1);
      return bytes;
    });
    await assertSameAsReference(many[0]!, steps, buffers, { absolute: 2e-4, relative: 2e-5 });
    const expected = await runOn(one, steps, contents);
    for (const backend of many) {
      const found = await runOn(backend, steps, contents);
      found.forEach((bytes, i) => assert.deepEqual(new Uint8Array(bytes), new Uint8Array(expected[i]!)));
    }
  });
}
