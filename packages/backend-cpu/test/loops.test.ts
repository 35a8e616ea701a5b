/** Loop kernels: any valid kernel gives what the reference gives. */
import { test } from "node:test";
import fc from "fast-check";
import { CpuBackend } from "../src/device/backend.ts";
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
