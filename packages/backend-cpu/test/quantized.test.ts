/** Products with quantized weights: their bits are those of products with the dequantized numbers, and no copy is stored. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import {
  type CodeTable,
  type Device,
  explain,
  grad,
  key,
  normalArray,
  Parameter,
  type Tensor,
  uniformArray,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

/** A weight [out, in] with random codes and scales. */
function weightOf(
  device: Device,
  bits: 4 | 8,
  table: CodeTable,
  shape: [number, number],
): nn.QuantizedParameter {
  const size = shape[0] * shape[1];
  const group = 64;
  const words = Uint32Array.from(uniformArray(key(1), (size * bits) / 32, 0, 2 ** 32), Math.floor);
  const scales = Float32Array.from(normalArray(key(2), size / group));
  const biases = Float32Array.from(normalArray(key(3), size / group));
  return nn.QuantizedParameter.fromValues(device, {
    bits,
    table,
    group,
    shape,
    words,
    scales,
    ...(table === "linear" ? { biases } : {}),
  });
}

/** A layer with a low-rank adapter, and the gradients of its factors. */
function step(weight: Parameter, rows: number): Tensor[] {
  const device = weight.device!;
  const [out, width] = weight.shape as [number, number];
  const x = Parameter.from(device, normalArray(key(4), rows * width), [rows, width], "f32", "x");
  const a = Parameter.from(device, normalArray(key(5), 8 * width), [8, width], "f32", "a");
  const b = Parameter.from(device, normalArray(key(6), 8 * out), [out, 8], "f32", "b");
  const y = new nn.Linear(weight).forward(x).add(x.matmul(a.transpose()).matmul(b.transpose()));
  return [y, ...grad(y.silu().sum(), [x, a, b])];
}

for (const threads of [1, 2]) {
  for (const [bits, table] of [
    [4, "nf4"],
    [4, "linear"],
    [8, "signed"],
  ] as const) {
    for (const [out, width, rows] of [
      [203, 832, 150],
      [96, 6400, 9],
    ] as const) {
      const title = `${table} of ${bits} bits, [${rows}, ${width}] times [${out}, ${width}]ᵀ, ${threads} threads`;
      test(`a step with a quantized weight has the bits of one with its numbers: ${title}`, async () => {
        const device = await cpu({ threads });
        const weight = weightOf(device, bits, table, [out, width]);
        const plain = Parameter.from(device, await weight.data(), [out, width]);
        const [wanted, found] = [step(plain, rows), step(weight, rows)];
        for (const [i, tensor] of wanted.entries())
          assert.deepEqual(await found[i]!.data(), await tensor.data(), `result ${i}`);
        device.close();
      });
    }
  }
}

test("a step with a quantized weight has the steps of one with a bf16 weight, and stores no copy", async () => {
  const device = await cpu({ threads: 1 });
  const weight = weightOf(device, 4, "nf4", [256, 512]);
  const half = Parameter.from(device, new Uint16Array(256 * 512), [256, 512], "bf16");
  for (const rows of [1, 40]) {
    const [found, wanted] = [weight, half].map((w) => explain(step(w, rows)[1]!));
    assert.deepEqual(
      found!.steps.map(({ name }) => name),
      wanted!.steps.map(({ name }) => name),
    );
    assert.equal(found!.tempBytes, wanted!.tempBytes);
  }
  device.close();
});
