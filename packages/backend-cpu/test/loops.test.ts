/** Loop kernels: any valid kernel matches the reference. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CpuBackend } from "../src/device/backend.ts";
import { matmulCase } from "./support/calls.ts";
import { kernelCase } from "./support/kernels.ts";
import { assertSameAsReference } from "./support/run.ts";

const tolerance = { absolute: 2e-5, relative: 2e-5 };

test("random kernels with short axes", async () => {
  const backend = new CpuBackend({ threads: 1 });
  await fc.assert(
    fc.asyncProperty(kernelCase(9), ({ kernel, buffers, scalars }) =>
      assertSameAsReference(backend, [kernel], buffers, tolerance, scalars),
    ),
    { numRuns: Number(process.env["TIEDLORA_FUZZ_RUNS"] ?? 150) },
  );
  backend.close();
});

test("an operand that lacks a stride is refused, not read from a wrong address", () => {
  const backend = new CpuBackend({ threads: 1 });
  const { call, buffers } = matmulCase({ batch: [2], m: 8, n: 8, k: [8] });
  const specs = buffers.map(({ length }) => ({ kind: "input", bytes: 4 * length }) as const);
  const [a, b] = call.inputs;
  const broken = { ...b!, view: { ...b!.view, strides: [] } };
  const compile = (inputs: typeof call.inputs): unknown =>
    backend.compile({ buffers: specs, scalars: 0, steps: [{ ...call, inputs }] });
  compile([a!, b!]);
  assert.throws(() => compile([a!, broken]), /a bug in the CPU backend: there is no stride 0, only 0/);
  backend.close();
});
