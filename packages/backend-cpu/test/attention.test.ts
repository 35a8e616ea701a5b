/** Attention and its gradient match the reference for all lengths, heads, masks and biases. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import { CpuBackend } from "../src/device/backend.ts";
import { attentionCase, attentionGradCase } from "./support/calls.ts";
import { assertSameAsReference, runOn } from "./support/run.ts";

const backend = new CpuBackend({ threads: 1 });
after(() => backend.close());

const tolerance = { absolute: 5e-5, relative: 5e-5 };

const params = fc
  .record({
    batch: fc.integer({ min: 1, max: 2 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    q: fc.integer({ min: 4, max: 60 }),
    more: fc.integer({ min: 0, max: 40 }),
    d: fc.integer({ min: 1, max: 20 }),
    causal: fc.boolean(),
    scale: fc.constantFrom(0.25, 1, -0.5),
    bias: fc.boolean(),
  })
  .map(({ group, more, ...rest }) => ({ ...rest, heads: rest.kvHeads * group, kv: rest.q + more }));

test("random attention and its gradient", async () => {
  const property = fc.asyncProperty(params, async (given) => {
    const forward = attentionCase(given);
    const backward = attentionGradCase(forward);
    await assertSameAsReference(backend, [forward.call, backward.call], backward.buffers, tolerance);
  });
  await fc.assert(property, { numRuns: 60 });
});

test("what an earlier call leaves in scratch memory stays there", async () => {
  const common = { batch: 1, heads: 2, kvHeads: 1, causal: true, scale: 0.5, bias: false };
  const poison = attentionGradCase(attentionCase({ ...common, q: 61, kv: 61, d: 16 }));
  const contents = poison.buffers.map(({ length }) => new Float32Array(length).fill(NaN).buffer);
  const results = await runOn(backend, [poison.call], contents);
  assert.ok(new Float32Array(results.at(-1)!).every(Number.isNaN), "the operands were read");
  for (const [q, kv, d] of [
    [7, 7, 16],
    [50, 53, 8],
    [13, 40, 5],
  ] as const) {
    const forward = attentionCase({ ...common, q, kv, d });
    const backward = attentionGradCase(forward);
    await assertSameAsReference(backend, [forward.call, backward.call], backward.buffers, tolerance);
  }
});

test("more keys than one block of scores is made for", async () => {
  const given = {
    batch: 1,
    heads: 2,
    kvHeads: 1,
    q: 70,
    kv: 9000,
    d: 4,
    causal: true,
    scale: 0.5,
    bias: false,
  };
  const forward = attentionCase(given);
  const backward = attentionGradCase(forward);
  await assertSameAsReference(backend, [forward.call, backward.call], backward.buffers, tolerance);
});
