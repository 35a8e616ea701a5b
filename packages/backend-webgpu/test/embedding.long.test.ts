/** A table of 50,257 × 4,096 f32, 823 MB: beyond what one binding shows on many devices. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { webgpu } from "@tiedlora/backend-webgpu";
import { grad, Parameter } from "@tiedlora/core";
import { skip } from "../../../test/support/gpu.ts";

const [ROWS, COLS] = [50_257, 4_096];

/** Small integers, so that products and sums of a few are exact in f32. */
const value = (row: number, col: number): number => ((row * 31 + col * 17) % 13) - 6;

test("an embedding of 50,257 × 4,096 is looked up, multiplied by, and differentiated", { skip }, async () => {
  const device = await webgpu();
  const table = new Float32Array(ROWS * COLS);
  for (let row = 0, i = 0; row < ROWS; row++)
    for (let col = 0; col < COLS; col++) table[i++] = value(row, col);
  const weight = Parameter.from(device, table, [ROWS, COLS], "f32", "embedding");

  // the first and last rows, repeated ones, and those around multiples of 128 MiB
  const ids = [0, 8191, 8192, 8193, 16383, 16384, 40_000, ROWS - 1, ROWS - 1];
  const index = device.tensor(ids, { dtype: "i32" });
  const rows = await weight.take(index).data();
  ids.forEach((id, n) => {
    for (let col = 0; col < COLS; col += 5) assert.equal(rows[n * COLS + col], value(id, col), `row ${id}`);
  });

  const h = device.tensor(Float32Array.from({ length: COLS }, (_, i) => (i % 3) - 1)).reshape([1, COLS]);
  const logits = await h.matmul(weight.transpose()).data();
  for (let row = 0; row < ROWS; row += 997) {
    let sum = 0;
    for (let col = 0; col < COLS; col++) sum += ((col % 3) - 1) * value(row, col);
    assert.equal(logits[row], sum, `logit ${row}`);
  }

  const factor = device.tensor(Float32Array.from(ids, (_, n) => n + 1)).reshape([ids.length, 1]);
  const [gradient] = grad(weight.take(index).mul(factor).sum(), [weight]);
  const touched = await gradient!.take(device.tensor([0, 1, 16384, ROWS - 1], { dtype: "i32" })).data();
  const wanted = [1, 0, 6, 8 + 9];
  for (let col = 0; col < COLS; col++) {
    wanted.forEach((x, n) => assert.equal(touched[n * COLS + col], x, `gradient ${n}, column ${col}`));
  }
  device.close();
});
