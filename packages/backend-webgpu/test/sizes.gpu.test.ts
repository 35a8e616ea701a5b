/** Kernels that serve all sizes of one structure: each is compiled once, and right at every size. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device } from "@tiedlora/core";
import type { LibraryCall, LoopKernel } from "@tiedlora/kernels";
import { skip } from "../../../test/support/gpu.ts";
import { decoderStep } from "../../../bench/decoder.ts";
import { attentionCase, attentionGradCase } from "../../backend-cpu/test/support/calls.ts";
import { assertSameAsReference, denseOperand } from "../../backend-cpu/test/support/run.ts";
import { f32, indexing, matmul, sums, type Work } from "../../backend-cpu/test/support/structures.ts";

/** x / (n + 2) + column over the transpose of [n, 6], padded by one column on the left, into rows of n + 1 numbers. */
function padded(n: number): Work {
  const view = { offset: -6, strides: [1, 6], valid: [null, [1, n + 1]] } as const;
  const kernel: LoopKernel = {
    type: "loop",
    outer: [6, n + 1],
    inner: [],
    body: [
      { op: "load", from: { buffer: 0, dtype: "f32", view }, dtype: "f32" },
      { op: "const", value: 1 / (n + 2), dtype: "f32" },
      { op: "mul", a: 0, b: 1, dtype: "f32" },
      { op: "index", axis: 1, dtype: "i32" },
      { op: "cast", a: 3, to: "f32", dtype: "f32" },
      { op: "add", a: 2, b: 4, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", [6, n + 1]), value: 5 }],
  };
  return { steps: [kernel], buffers: [f32(6 * n + 1), f32(6 * (n + 1))] };
}

/** softmax(x) over rows of n numbers, in which the last two of them are padding. */
function softmax(n: number): Work {
  const view = { offset: 0, strides: [n, 1], valid: [null, [0, Math.max(n - 2, 1)]] } as const;
  const kernel: LoopKernel = {
    type: "loop",
    outer: [7],
    inner: [n],
    body: [
      { op: "load", from: { buffer: 0, dtype: "f32", view }, dtype: "f32" },
      { op: "reduce", kind: "max", a: 0, dtype: "f32" },
      { op: "sub", a: 0, b: 1, dtype: "f32" },
      { op: "exp", a: 2, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 3, dtype: "f32" },
      { op: "div", a: 3, b: 4, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", [7, n]), value: 5 }],
  };
  return { steps: [kernel], buffers: [f32(7 * n), f32(7 * n)] };
}

function attention(n: number): Work {
  const params = { batch: 2, heads: 4, kvHeads: 2, q: n, kv: n + 3, d: 12, causal: true, scale: 0.3, bias: false }; // prettier-ignore
  const forward = attentionCase(params);
  const { call, buffers } = attentionGradCase(forward);
  return { steps: [forward.call, call], buffers };
}

/** `rows` rows times the transpose of [20, depth] numbers of 4 bits, whose words come after those of a weight of 5 rows. */
function quantized(rows: number, depth: number): Work {
  const group = 32;
  const groups = (25 * depth) / group;
  const scales = denseOperand(2, "f32", [groups]);
  const words = { buffer: 1, dtype: "u32", view: { offset: 5 * depth, strides: [1, depth] } } as const;
  const storage = { bits: 4, table: "signed", group, groups, scales } as const;
  const call: LibraryCall = {
    type: "library",
    name: "matmul",
    params: { batch: [], m: rows, n: 20, k: [depth] },
    inputs: [denseOperand(0, "f32", [rows, depth]), { ...words, quantized: storage }],
    outputs: [denseOperand(3, "f32", [rows, 20])],
  };
  const packed = { dtype: "u32", length: (25 * depth) / 8 } as const;
  return { steps: [call], buffers: [f32(rows * depth), packed, f32(groups), f32(rows * 20)] };
}

type Structure = readonly [work: (n: number) => Work, sizes: readonly number[], pipelines: number];

/**
 * By structure: its steps at a size, the sizes, and the most pipelines that serve them. It takes several where sizes decide whether four
 * elements are read at once, how many invocations share a row, how many rows a tile has, and which side of a product is its rows.
 */
const LOOPS: Readonly<Record<string, Structure>> = {
  "padded columns": [padded, [1, 2, 9, 63, 64, 200], 2],
  "rows of a softmax": [softmax, [1, 4, 7, 8, 20, 21, 127, 1028], 5],
  "sums over rows": [sums, [1, 3, 5, 31, 32, 33, 128, 511], 7],
  "gathered rows": [indexing, [0, 1, 2, 7, 64, 333], 4],
  "attention and its gradient": [attention, [1, 2, 7, 8, 9, 65, 130], 6],
};

const PRODUCTS: Readonly<Record<string, Structure>> = {
  "products of many rows": [(m) => matmul({ m, n: 20, k: [12] }), [1, 7, 9, 31, 33, 65, 193], 3],
  "products over many rows": [(k) => matmul({ m: 12, n: 20, k: [k], transposed: [[true, false]] }), [1, 2, 7, 9, 64, 385], 2], // prettier-ignore
  "products of many columns": [(n) => matmul({ m: 9, n, k: [16] }), [1, 3, 8, 65, 511, 512], 5],
  "few and many rows times a quantized weight": [(m) => quantized(m, 64), [1, 2, 4, 7, 8, 9, 33, 65], 3],
  "one row times quantized weights": [(k) => quantized(1, 32 * k), [1, 2, 3, 8, 33], 1],
  "batches of sums of products, then bias": [(m) => matmul({ batch: [2, 3], m, n: 24, k: [8, 16], epilogue: true }), [9, 10, 48, 77], 2], // prettier-ignore
};

const ADAPTERS = [
  { name: "one that computes on the CPU", tuning: "software", structures: { ...LOOPS, ...PRODUCTS } },
  { name: "one that is tuned as a card", tuning: "hardware", structures: PRODUCTS },
] as const;

for (const { name: adapter, tuning, structures } of ADAPTERS) {
  test(
    `every kind of kernel is right at every size, by few pipelines, on ${adapter}`,
    { skip },
    async (t) => {
      const backend = await createWebGpuBackend({ tuning });
      try {
        for (const [name, [work, sizes, most]] of Object.entries(structures)) {
          const before = backend.counters.pipelines;
          for (const n of sizes) {
            const { steps, buffers } = work(n);
            const check = assertSameAsReference(backend, steps, buffers, { absolute: 1e-3, relative: 1e-4 });
            await check.catch((error: Error) => assert.fail(`${name}, size ${n}: ${error.message}`));
          }
          const compiled = backend.counters.pipelines - before;
          t.diagnostic(`${name}: ${compiled} pipelines for ${sizes.length} sizes`);
          assert.ok(compiled <= most, `${name}: ${compiled} pipelines`);
        }
      } finally {
        backend.close();
      }
    },
  );
}

test("training at lengths that are new compiles few pipelines", { skip }, async () => {
  const backend = await createWebGpuBackend();
  const device = new Device(backend);
  const size = { vocab: 32, dim: 16, hidden: 24, layers: 1, heads: 2, kvHeads: 1, batch: 2 };
  const step = decoderStep(device, size);
  const counts: number[] = [];
  for (const length of [17, 18, 21, 28, 39, 41]) {
    assert.ok(Number.isFinite(await step(length, 0).item()));
    counts.push(backend.counters.pipelines);
  }
  device.close();
  assert.ok(counts.at(-1)! <= 1.5 * counts[0]!, counts.join());
});
