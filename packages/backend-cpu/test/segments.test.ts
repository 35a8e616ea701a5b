/** Long unrolled loops on the CPU: parts of a loop of any length are compiled once, and read their windows of longer inputs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { concat, Device, grad, type Tensor } from "@tiedlora/core";
import { Library } from "../src/codegen/library.ts";
import { CpuBackend } from "../src/device/backend.ts";

const numbers = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed) / 3);

/** The loss of a gated recurrent network of 8 numbers, and its gradients by the weights. */
async function results(device: Device, length: number, from: number): Promise<Float32Array> {
  const tensor = (shape: readonly number[], seed: number): Tensor =>
    device.tensor(numbers(shape.reduce((a, b) => a * b), seed), { shape }); // prettier-ignore
  const x = tensor([length + from, 4, 8], 1);
  const [wx, wh, b] = [tensor([8, 16], 2), tensor([8, 16], 3), tensor([16], 4)] as const;
  let h = tensor([4, 8], 5);
  for (let t = 0; t < length; t++) {
    const at = x.narrow(0, t + from, 1).reshape([4, 8]);
    const [gate, value] = at.matmul(wx).add(h.matmul(wh)).add(b).split(8, 1) as [Tensor, Tensor];
    h = h.add(gate.sigmoid().mul(value.tanh().sub(h)));
  }
  const loss = h.square().mean();
  const all = [loss, ...grad(loss, [wx, wh, b])].map((one) => one.reshape([one.size]));
  return (await concat(all).data()) as Float32Array;
}

test("loops of other lengths compile no functions, and give what single kernels do", async () => {
  const library = new Library();
  const device = new Device(new CpuBackend({ threads: 2 }, null, library));
  const plain = new Device(new CpuBackend({ threads: 2 }), { fusion: "off" });
  const compiled: number[] = [];
  for (const [length, from] of [
    [110, 0],
    [101, 0],
    [110, 5],
  ] as const) {
    const actual = await results(device, length, from);
    compiled.push(library.counts.single + library.counts.general);
    if (from === 0) continue; // once is enough: single kernels take long
    const expected = await results(plain, length, from);
    const largest = expected.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
    actual.forEach((one, i) => {
      const isClose = Math.abs(one - expected[i]!) <= 1e-5 * largest;
      assert.ok(isClose, `result ${i} of ${length} steps from ${from} on is ${one}, not ${expected[i]!}`);
    });
  }
  assert.deepEqual(compiled, [compiled[0], compiled[0], compiled[0]], "functions compiled after each");
  device.close();
  plain.close();
});
