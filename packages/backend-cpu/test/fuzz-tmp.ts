import fc from "fast-check";
import { CpuBackend } from "/work/main/packages/backend-cpu/src/backend.ts";
import { kernelCase } from "/work/main/packages/backend-cpu/test/support/kernels.ts";
import { assertSameAsReference } from "/work/main/packages/backend-cpu/test/support/run.ts";
const backend = new CpuBackend({ threads: 1 });
let bad = 0;
const n = +(process.argv[2] ?? 100),
  seed0 = +(process.argv[3] ?? 1),
  max = +(process.argv[4] ?? 9);
const t0 = performance.now();
for (let s = seed0; s < seed0 + n; s++) {
  const [c] = fc.sample(kernelCase(max), { seed: s, numRuns: 1 });
  const { kernel, buffers, scalars } = c!;
  try {
    await assertSameAsReference(backend, [kernel], buffers, { absolute: 2e-5, relative: 2e-5 }, scalars);
  } catch (e) {
    bad++;
    if (bad <= 3) {
      console.log("seed", s, String((e as Error).stack).slice(0, 900));
      if (process.argv[5]) console.log(JSON.stringify({ ...kernel }, null, 0));
    }
  }
}
console.log(n, "cases", bad, "bad", ((performance.now() - t0) / n).toFixed(1), "ms each");
