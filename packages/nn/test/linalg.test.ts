/** Gradients of singular vectors against differences in float64, and what linear algebra does at the edges. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, grad, normalArray, key, reference, type Tensor } from "@tiedlora/core";
import * as linalg from "@tiedlora/nn/linalg";

const H = 1e-5;

const random = (seed: number, n: number): Float64Array => Float64Array.from(normalArray(key(seed), n));

/** The gradient of f at x against central differences. */
async function checkGradient(
  device: Device,
  f: (x: Tensor) => Tensor,
  shape: number[],
  seed: number,
): Promise<void> {
  const at = random(seed, shape.reduce((a, b) => a * b, 1)); // prettier-ignore
  const value = (values: Float64Array): Promise<number> => f(device.tensor(values, { shape })).item();
  const x = device.tensor(at, { shape });
  const found = await grad(f(x), [x])[0]!.data();
  let largest = 0;
  for (let i = 0; i < at.length; i++) {
    const [up, down] = await Promise.all([H, -H].map((by) => value(at.with(i, at[i]! + by))));
    const slope = (up! - down!) / (2 * H);
    largest = Math.max(largest, Math.abs(slope));
    assert.ok(Math.abs(found[i]! - slope) < 1e-6, `${i}: ${found[i]} instead of ${slope}`);
  }
  assert.ok(largest > 0.1, "the function must depend on x");
}

test("gradients of U, S and V are those of differences, for more rows and for more columns", async () => {
  const device = reference();
  for (const shape of [
    [4, 3],
    [2, 3],
  ]) {
    const k = Math.min(...shape);
    const weights = (rows: number, seed: number): Tensor => device.tensor(random(seed, rows * k), { shape: [rows, k] }); // prettier-ignore
    const f = (x: Tensor): Tensor => {
      const { U, S, V } = linalg.svd(x);
      const parts = [
        U.mul(weights(shape[0]!, 5)),
        V.mul(weights(shape[1]!, 6)),
        S.mul(weights(1, 7).reshape([k])),
      ];
      return parts.map((part) => part.sum()).reduce((a, b) => a.add(b));
    };
    await checkGradient(device, f, shape, 3);
  }
  device.close();
});

test("a singular matrix has no finite solution, and a zero singular value comes with a vector of zeros", async () => {
  const device = reference();
  const flat = device.tensor([[1, 2], [2, 4]]); // prettier-ignore
  const x = await linalg.solve(flat, device.tensor([[1], [1]])).data();
  assert.ok(x.every((value) => !Number.isFinite(value)), String(x)); // prettier-ignore
  const l = await linalg.cholesky(device.tensor([[-1, 0], [0, 1]])).data(); // prettier-ignore
  assert.ok(Number.isNaN(l[0]!));
  const { U, S, V } = linalg.svd(device.tensor([[3, 0], [0, 0], [4, 0]])); // prettier-ignore
  assert.deepEqual((await S.data()).map((s) => Math.round(s * 1e5) / 1e5), Float32Array.of(5, 0)); // prettier-ignore
  assert.deepEqual((await U.narrow(-1, 1, 1).data()).map(Math.abs), Float32Array.of(0, 0, 0));
  assert.deepEqual((await V.data()).map(Math.abs), Float32Array.of(1, 0, 0, 1));
  device.close();
});

test("a matrix of one number", async () => {
  const device = reference();
  const a = device.tensor([[[4]], [[9]]]); // prettier-ignore
  const b = device.tensor([[8]]);
  assert.deepEqual(await linalg.solve(a, b).data(), Float32Array.of(2, 8 / 9));
  assert.deepEqual(await linalg.solveTriangular(a, b, { side: "upper" }).data(), Float32Array.of(2, 8 / 9));
  assert.deepEqual(await linalg.cholesky(a).data(), Float32Array.of(2, 3));
  assert.deepEqual(await linalg.qr(a.neg()).R.data(), Float32Array.of(4, 9));
  assert.deepEqual(await linalg.svd(a.neg()).S.data(), Float32Array.of(4, 9));
  device.close();
});

test("linear algebra stays exact for many equations", async () => {
  const device = reference();
  const n = 20;
  const a = device.tensor(random(1, n * n), { shape: [n, n] });
  const b = device.tensor(random(2, n), { shape: [n, 1] });
  const error = await a.matmul(linalg.solve(a, b)).sub(b).abs().max().item();
  assert.ok(error < 1e-11, String(error));
  device.close();
});
