/** Functions that serve all sizes of one structure: they are compiled once, and compute the bits that a function for one size does. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { BYTES, type DeviceBuffer, type LoopKernel, product } from "@tiedlora/kernels";
import fc from "fast-check";
import { Library } from "../src/codegen/library.ts";
import { CpuBackend, type CpuBackendOptions } from "../src/device/backend.ts";
import { attentionCase, attentionGradCase } from "./support/calls.ts";
import { kernelCase, resized } from "./support/kernels.ts";
import { GeneralLibrary } from "./support/library.ts";
import { assertSameAsReference, denseOperand, fill, runOn, type TestBuffer } from "./support/run.ts";
import { f32, indexing, matmul, sums, type Work } from "./support/structures.ts";

const opened: CpuBackend[] = [];
after(() => opened.forEach((backend) => backend.close()));

function open(options: CpuBackendOptions, library = new Library()): CpuBackend {
  const backend = new CpuBackend(options, null, library);
  opened.push(backend);
  return backend;
}

const single = open({ threads: 1 });

const contentsOf = (buffers: readonly TestBuffer[]): ArrayBuffer[] =>
  buffers.map(({ dtype, length }, i) => {
    const bytes = new ArrayBuffer(length * BYTES[dtype]);
    fill(dtype, bytes, i + 1);
    return bytes;
  });

/** softmax(x / n + 1) over rows of n numbers, in which the last two of them are padding. */
function softmax(n: number): Work {
  const of = { buffer: 0, dtype: "f32", view: { offset: 0, strides: [n, 1], valid: [null, [0, Math.max(n - 2, 1)]] } } as const; // prettier-ignore
  const kernel: LoopKernel = {
    type: "loop",
    outer: [7],
    inner: [n],
    body: [
      { op: "load", from: of, dtype: "f32" },
      { op: "const", value: 1 / n, dtype: "f32" },
      { op: "mul", a: 0, b: 1, dtype: "f32" },
      { op: "reduce", kind: "max", a: 2, dtype: "f32" },
      { op: "sub", a: 2, b: 3, dtype: "f32" },
      { op: "exp", a: 4, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 5, dtype: "f32" },
      { op: "div", a: 5, b: 6, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", [7, n]), value: 7 }],
  };
  return { steps: [kernel], buffers: [f32(7 * n), f32(7 * n)] };
}

function attention(n: number): Work {
  const params = {
    batch: 2,
    heads: 4,
    kvHeads: 2,
    q: n,
    kv: n,
    d: 12,
    causal: true,
    scale: 0.3,
    bias: false,
  };
  const forward = attentionCase(params);
  const { call, buffers } = attentionGradCase(forward);
  const [dQ, dK, dV] = call.outputs;
  // strides of columns are part of the structure
  const outputs = [dQ!, dK!, { ...dV!, view: dK!.view }];
  return { steps: [forward.call, { ...call, outputs }], buffers };
}

/** By structure: its steps at a size, the sizes, and how many functions serve them. */
const STRUCTURES: Readonly<Record<string, readonly [(n: number) => Work, readonly number[], number]>> = {
  // of a row's vectors there are 0, 1, 2, 3 or more, with the last in turn in each of four accumulators
  "rows of a softmax": [softmax, [20, 21, 23, 26, 36, 68, 127, 1028], 4],
  // the lanes lie along the sums where that is faster; from 32 rows on, accumulators are in memory
  "sums over rows": [sums, [9, 13, 29, 31, 32, 33, 47, 128, 511], 3],
  "gathered rows": [indexing, [0, 1, 2, 7, 64, 333], 2],
  "products of many rows": [(m) => matmul({ m, n: 20, k: [12] }), [7, 9, 31, 48, 97, 191, 192, 193, 400], 1],
  "products over many rows": [(k) => matmul({ m: 12, n: 20, k: [k], transposed: [[true, false]] }), [1, 2, 7, 64, 383, 384, 385, 1000], 1], // prettier-ignore
  "products of many columns": [(n) => matmul({ m: 9, n, k: [16] }), [1, 3, 8, 511, 512, 513], 1],
  "batches of sums of products, then bias": [(m) => matmul({ batch: [2, 3], m, n: 24, k: [8, 16], epilogue: true }), [9, 10, 48, 77, 193], 1], // prettier-ignore
  "attention and its gradient": [attention, [4, 5, 47, 48, 49, 97, 130], 2],
};

for (const [name, [work, sizes, functions]] of Object.entries(STRUCTURES)) {
  test(`one structure, many sizes: ${name}`, async () => {
    const library = new GeneralLibrary();
    const general = open({ threads: 1 }, library);
    for (const n of sizes) {
      const { steps, buffers } = work(n);
      const contents = contentsOf(buffers);
      assert.deepEqual(
        await runOn(general, steps, contents),
        await runOn(single, steps, contents),
        `size ${n}`,
      );
      await assertSameAsReference(general, steps, buffers, { absolute: 1e-3, relative: 1e-4 });
    }
    assert.deepEqual(library.counts, { single: 0, general: functions });
  });
}

test("random kernels at other lengths compute the bits that functions for these lengths do", async () => {
  const library = new GeneralLibrary();
  const general = open({ threads: 1 }, library);
  let steps = 0;
  await fc.assert(
    fc.asyncProperty(kernelCase(9), async (drawn) => {
      for (const more of [2, 3, 10, 18]) {
        const { kernel, buffers, scalars } = resized(drawn, (length) => length + more);
        if (product([...kernel.outer, ...kernel.inner]) > 20_000) continue;
        const contents = contentsOf(buffers);
        const [a, b] = [await runOn(general, [kernel], contents, scalars), await runOn(single, [kernel], contents, scalars)]; // prettier-ignore
        assert.deepEqual(a, b);
        steps++;
      }
    }),
    { numRuns: Number(process.env["TIEDLORA_FUZZ_RUNS"] ?? 40) },
  );
  assert.ok(library.counts.general < steps, "no two kernels shared a function");
});

test("the first program has functions for its sizes, the second ones for all, and the third none of its own", async () => {
  const library = new Library();
  const backend = open({ threads: 2, inlineNs: 0 }, library);
  const run = async (n: number): Promise<void> => {
    const { steps, buffers } = attention(n);
    const contents = contentsOf(buffers);
    assert.deepEqual(
      await runOn(backend, steps, contents),
      await runOn(single, steps, contents),
      `size ${n}`,
    );
  };
  await run(41);
  assert.deepEqual(library.counts, { single: 2, general: 0 });
  await run(41);
  assert.deepEqual(library.counts, { single: 2, general: 0 });
  for (const n of [40, 42, 43]) await run(n);
  assert.deepEqual(library.counts, { single: 2, general: 2 });
});

test("functions that no program uses are dropped when their memory is needed, and compiled again", async () => {
  const library = new Library();
  const backend = open({ threads: 2, inlineNs: 0, maxBytes: 3 * 2 ** 20 }, library);
  const { steps, buffers } = attention(16);
  const contents = contentsOf(buffers);
  const expected = await runOn(single, steps, contents);
  assert.deepEqual(await runOn(backend, steps, contents), expected);
  const before = library.counts.single;
  const taken: DeviceBuffer[] = [];
  assert.throws(() => {
    for (;;) taken.push(backend.alloc(2 ** 16));
  }, /out of memory/);
  for (const buffer of taken) buffer.free();
  assert.deepEqual(await runOn(backend, steps, contents), expected);
  assert.equal(library.counts.single, before + 2);
});
