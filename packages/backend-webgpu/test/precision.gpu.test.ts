/** `matmulPrecision: "f16"`: factors are rounded to the nearest half, sums are not; in both kinds of kernels. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MissingFeatureError, type OpenOptions, webgpu } from "@tiedlora/backend-webgpu";
import { type Device, type DType, f16ToF32, f32ToF16 } from "@tiedlora/core";
import { skip, skipF16 } from "../../../test/support/gpu.ts";

const nearest = (x: number): number => f16ToF32(f32ToF16(x));

/** Values in the range of normal halves: ties, neighbors of ties, and a spread over all exponents. */
const NORMAL = [
  ...[1, 3, 5].flatMap((odd) => [0, 2 ** -23, -(2 ** -23)].map((off) => 1 + odd * 2 ** -11 + off)),
  ...Array.from({ length: 300 }, (_, i) => 2 ** ((i % 29) - 14) * (1 + ((i * 0.6180339887) % 1))),
  65504,
  65519,
].flatMap((x) => [Math.fround(x), -Math.fround(x)]);

async function on(options: OpenOptions, check: (device: Device) => Promise<void>): Promise<void> {
  const device = await webgpu(options);
  try {
    await check(device);
  } finally {
    device.close();
  }
}

/** Each value times one, as a product of matrices, either of which may be the one with the values. */
async function timesOne(
  device: Device,
  values: readonly number[],
  side: "left" | "right",
  dtype: DType = "f32",
): Promise<number[]> {
  const K = 5; // some depths at once, and one that is left
  const rows = values.flatMap((x) => [x, 0, 0, 0, 0]);
  const x = device.tensor(rows, { dtype }).reshape([values.length, K]);
  const one = device.tensor(
    Float32Array.from({ length: K * K }, (_, i) => Number(i % (K + 1) === 0)),
    {
      shape: [K, K],
    },
  );
  const product = side === "left" ? x.matmul(one) : one.matmul(x.transpose()).transpose();
  const found = Array.from(await product.data());
  return found.filter((_, i) => i % K === 0);
}

for (const tuning of ["software", "hardware"] as const) {
  const options = { tuning, matmulPrecision: "f16" } as const;

  test(`${tuning}: factors are rounded to the nearest half, ties to even`, { skip: skipF16 }, async () => {
    await on(options, async (device) => {
      for (const side of ["left", "right"] as const)
        assert.deepEqual(await timesOne(device, NORMAL, side), NORMAL.map(nearest), side);
    });
  });

  test(
    `${tuning}: below the normal halves the error is at most their distance`,
    { skip: skipF16 },
    async () => {
      await on(options, async (device) => {
        const tiny = Array.from({ length: 200 }, (_, i) => Math.fround(2 ** -14 * ((i * 0.6180339887) % 1)));
        const found = await timesOne(device, tiny, "left");
        found.forEach((x, i) => assert.ok(Math.abs(x - tiny[i]!) <= 2 ** -24, `${tiny[i]} became ${x}`));
      });
    },
  );

  test(`${tuning}: beyond the largest half nothing is finite`, { skip: skipF16 }, async () => {
    await on(options, async (device) => {
      const beyond = [65520, -65520, 65536, 1e6, 3e38, -3e38, Infinity, -Infinity, NaN];
      const found = await timesOne(device, beyond, "left");
      found.forEach((x, i) => assert.ok(!Number.isFinite(x), `${beyond[i]} became ${x}`));
    });
  });

  test(`${tuning}: what is stored as half precision is taken as it is`, { skip: skipF16 }, async () => {
    await on(options, async (device) => {
      for (const dtype of ["f16", "bf16"] as const) {
        const exact = [1.5, -0.375, 96, 2 ** -14, 1 + 2 ** -7];
        assert.deepEqual(await timesOne(device, exact, "right", dtype), exact, dtype);
      }
    });
  });

  test(`${tuning}: products are summed in f32`, { skip: skipF16 }, async () => {
    await on(options, async (device) => {
      const [m, k] = [20, 2049]; // no half is 2049
      const ones = device.tensor(new Float32Array(m * k).fill(1)).reshape([m, k]);
      const found = await ones.matmul(ones.transpose()).data();
      assert.ok(found.every((x) => x === k), `${found.find((x) => x !== k)} instead of ${k}`); // prettier-ignore
    });
  });
}

test("without the option factors keep all of their digits", { skip }, async () => {
  await on({}, async (device) => assert.deepEqual(await timesOne(device, NORMAL, "left"), NORMAL));
});

test("where half precision is left out, asking for it is refused by name", { skip }, async () => {
  await assert.rejects(webgpu({ variant: "plain", matmulPrecision: "f16" }), (error: Error) => {
    assert.ok(error instanceof MissingFeatureError, String(error));
    assert.match(error.message, /"shader-f16".*compute in f32/);
    return true;
  });
});
