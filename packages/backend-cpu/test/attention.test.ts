/** Attention and its gradient give what the reference gives, whatever the lengths, heads, mask and bias. */
import { after, test } from "node:test";
import fc from "fast-check";
import { CpuBackend } from "../src/backend.ts";
import { attentionCase, attentionGradCase } from "./support/calls.ts";
import { assertSameAsReference } from "./support/run.ts";

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
