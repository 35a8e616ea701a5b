/**
 * Matrix products of factors in half precision: the cases that have products, within the bounds that such factors imply,
 * by the kernels for software adapters and by those for GPUs. A third of the random cases unless all are asked for: a
 * software adapter compiles these kernels slowly.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { webgpu } from "@tiedlora/backend-webgpu";
import { PRECISION } from "@tiedlora/test";
import { register } from "./support/conformance.ts";
import { skipF16 as skip } from "./support/gpu.ts";
import { fineTune } from "./support/page.ts";

const only = /^(matmul|einsum|conv2d|random (matmul|graphs))/;
const precision = { ...PRECISION, factors: "f16" } as const;

for (const tuning of ["software", "hardware"] as const) {
  register(({ fusion }) => webgpu({ fusion, tuning, matmulPrecision: "f16" }), {
    skip,
    only,
    precision,
    effort: 0.3,
    title: `factors in f16, tuned for ${tuning}: `,
  });
}

test("fine-tuning by TL6 learns as with factors in f32", { skip }, async () => {
  const steps = 50;
  const [wanted, found] = [await fineTune("webgpu", steps), await fineTune("webgpu f16", steps)];
  // the rounding of one factor for every step so far; later on two runs that differ at all go ways of their own
  found.slice(0, 20).forEach((loss, s) => {
    const off = Math.abs(loss / wanted[s]! - 1);
    assert.ok(off < (s + 1) * 2 ** -11, `step ${s}: ${loss}, not ${wanted[s]}`);
  });
  assert.notDeepEqual(found, wanted);
  assert.ok(found.at(-1)! < 0.35 * found[0]!, `from ${found[0]} to ${found.at(-1)}`);
});
