/** Matrix products match the reference for any shape around the tiles, any storage type, and any register tile. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import { CpuBackend } from "../src/device/backend.ts";
import { matmulCase, type MatmulShape } from "./support/calls.ts";
import { assertSameAsReference, runOn } from "./support/run.ts";

const tolerance = { absolute: 2e-4, relative: 1e-5 };
const backends: { readonly [name: string]: CpuBackend } = {
  "the default tile": new CpuBackend({ threads: 1 }),
  "4x8": new CpuBackend({ threads: 1, tile: { rows: 4, vectors: 2, unroll: 1, fma: false } }),
  "6x16, unrolled": new CpuBackend({
    threads: 1,
    tile: { rows: 6, vectors: 4, unroll: 8, rowPointers: true, fma: true },
  }),
};
after(() => {
  for (const backend of Object.values(backends)) backend.close();
});

const length = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 40 }));
const shape = fc.record({
  batch: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
  m: length,
  n: length,
  k: fc.array(length, { minLength: 1, maxLength: 2 }),
  transposed: fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 2, maxLength: 2 }),
  dtype: fc.constantFrom("f32" as const, "f16" as const, "bf16" as const),
  transposedC: fc.boolean(),
  gap: fc.integer({ min: 0, max: 3 }),
  epilogue: fc.boolean(),
});

for (const [name, backend] of Object.entries(backends)) {
  test(`random products, ${name}`, async () => {
    const property = fc.asyncProperty(shape, async (given) => {
      const { call, buffers } = matmulCase(given);
      await assertSameAsReference(backend, [call], buffers, tolerance);
    });
    await fc.assert(property, { numRuns: 60 });
  });
}

const blocks: readonly MatmulShape[] = [
  { m: 205, n: 37, k: [19] },
  { m: 13, n: 2070, k: [9] },
  { m: 11, n: 23, k: [801] },
  { m: 11, n: 300, k: [21] },
  { m: 12, n: 139, k: [33], dtype: "bf16" },
  { m: 9, n: 260, k: [7], dtype: "f16" },
  { m: 800, n: 540, k: [5], epilogue: true },
  { m: 205, n: 100, k: [800] },
  { m: 401, n: 1700, k: [16], epilogue: true },
  { m: 401, n: 61, k: [808, 24], epilogue: true },
  { m: 7, n: 600, k: [400, 8], epilogue: true },
  ...[1, 2, 3, 5, 6, 8].map((m) => ({ m, n: 67, k: [131], dtype: "bf16" as const })),
  ...[1, 2, 4, 7, 8].map((m) => ({ m, n: 35, k: [70], transposed: [[false, true]] as const })),
];

for (const [name, backend] of Object.entries(backends)) {
  test(`blocks along every axis, and products of few rows, ${name}`, async () => {
    for (const given of blocks) {
      const { call, buffers } = matmulCase(given);
      await assertSameAsReference(backend, [call], buffers, { absolute: 2e-3, relative: 1e-5 });
    }
  });

  test(`what an earlier product leaves in the packs' padding stays there, ${name}`, async () => {
    const poison = matmulCase({ m: 24, n: 300, k: [40] });
    const contents = poison.buffers.map(({ length }) => new Float32Array(length).fill(NaN).buffer);
    const product = new Float32Array((await runOn(backend, [poison.call], contents)).at(-1)!);
    assert.ok(product.every(Number.isNaN), "the factors were read");
    for (const k of [9, 13, 21, 39]) {
      const { call, buffers } = matmulCase({ m: 19, n: 299, k: [k] });
      await assertSameAsReference(backend, [call], buffers, tolerance);
    }
  });
}
