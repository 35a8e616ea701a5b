/**
 * Devices with small limits: buffers beyond what one binding shows, more workgroups than one dimension holds. The numbers
 * are small integers, so that sums are exact and every result must equal the reference's.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend, webgpu } from "@tiedlora/backend-webgpu";
import { type Device, type DType, grad, Parameter, reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { skip } from "../../../test/support/gpu.ts";

/** 4,096 f32 to a binding, and five workgroups along one dimension. */
const limits = { maxBindingBytes: 16384, maxGroupsPerDimension: 5 };

/** Integers from -bound to bound that repeat in no dimension. */
function integers(n: number, bound: number, seed = 1): Float32Array {
  return Float32Array.from(
    { length: n },
    (_, i) => (((i * 7919 + seed * 104729) % 10007) % (2 * bound + 1)) - bound,
  );
}

type Make = (device: Device) => readonly Tensor[];

const draw = (device: Device, shape: number[], bound: number, seed = 1, dtype: DType = "f32"): Tensor => {
  const n = shape.reduce((a, d) => a * d, 1);
  return device.tensor(Array.from(integers(n, bound, seed)), { dtype }).reshape(shape);
};

const CASES: { readonly [name: string]: Make } = {
  "elementwise over several bindings and many workgroups": (device) => {
    const [x, y] = [draw(device, [123, 97], 9), draw(device, [123, 97], 9, 2)];
    return [x.mul(y).add(x.transpose().reshape([123, 97]))];
  },
  "rows and columns": (device) => {
    const x = draw(device, [131, 60], 9);
    return [x.sub(x.max(1, { keepdims: true })), x.sum(0), x.sum()];
  },
  "a row longer than a binding": (device) => {
    const x = draw(device, [2, 5001], 3);
    return [x.sum(1), x.slice([1, 2]).add(1)];
  },
  "padding and gaps": (device) => {
    const x = draw(device, [80, 70], 9);
    return [x.pad([[2, 3], [5, 1]]).mul(2), x.flip(0).slice([5, 75], [3, 66])]; // prettier-ignore
  },
  "half precision, integers and bools": (device) => {
    const half = draw(device, [90, 101], 9, 1, "f16");
    const brain = draw(device, [90, 101], 9, 2, "bf16");
    const whole = draw(device, [60, 101], 9, 3, "i32");
    return [half.add(brain).cast("f16"), brain.cast("bf16"), whole.lt(0)];
  },
  matmul: (device) => {
    const [a, b] = [draw(device, [70, 90], 3), draw(device, [90, 80], 3, 2)];
    return [a.matmul(b).add(1)];
  },
  "matmul, transposed": (device) => {
    const [a, b] = [draw(device, [48, 60], 3), draw(device, [90, 48], 3, 2)];
    return [a.transpose().matmul(b.transpose())];
  },
  "matmul of half precision in batches": (device) => {
    const [a, b] = [draw(device, [3, 64, 50], 3, 1, "f16"), draw(device, [3, 50, 64], 3, 2, "bf16")];
    return [a.matmul(b)];
  },
  "rows of a large table, and its gradient": (device) => {
    const table = draw(device, [501, 20], 9);
    const ids = device.tensor([0, 500, 204, 205, 500, 150, 0, 499, 7], { dtype: "i32" });
    const weights = draw(device, [9, 20], 5, 2);
    return [table.take(ids), ...grad(table.take(ids).mul(weights).sum(), [table])];
  },
  "many rows of a table": (device) => {
    const table = draw(device, [40, 24], 9);
    const ids = device.tensor(Int32Array.from({ length: 300 }, (_, i) => (i * 13) % 40));
    return [table.take(ids), ...grad(table.take(ids).square().sum(), [table])];
  },
};

for (const [name, make] of Object.entries(CASES)) {
  for (const variant of ["auto", "plain"] as const) {
    test(`small limits, variant ${variant}: ${name}`, { skip }, async () => {
      const device = await webgpu({ limits, variant });
      const exact = reference();
      const wanted = make(exact);
      for (const [i, tensor] of make(device).entries()) {
        const found = Array.from(await tensor.data());
        assert.deepEqual(found, Array.from(await wanted[i]!.data()), `result ${i}`);
      }
      exact.close();
      device.close();
    });
  }
}

test("small limits: attention and its gradient are those without", { skip }, async () => {
  const results = [];
  for (const options of [{}, { limits }]) {
    const device = await webgpu(options);
    const [q, k, v] = [1, 2, 3].map((seed) => draw(device, [1, 4, 41, 32], 9, seed).div(9));
    const out = nn.scaledDotProductAttention(q!, k!, v!, { causal: true });
    const values = [];
    for (const t of [out, ...grad(out.square().sum(), [q!, k!, v!])]) values.push(await t.data());
    results.push(values);
    device.close();
  }
  const [wanted, found] = results;
  found!.forEach((values, t) =>
    values.forEach((x, i) => assert.ok(Math.abs(x - wanted![t]![i]!) < 1e-5, `result ${t}, element ${i}`)),
  );
});

test("small limits: an optimizer updates a weight in place", { skip }, async () => {
  const [first, second] = [reference(), await webgpu({ limits })];
  const curves = [];
  for (const device of [first, second]) {
    const weight = Parameter.from(device, integers(90 * 60, 9), [90, 60]);
    const optimizer = optim.sgd([weight], { lr: 0.5 });
    for (let step = 0; step < 3; step++) optimizer.step(weight.mul(draw(device, [90, 60], 4, step)).sum());
    curves.push(Array.from(await weight.data()));
    device.close();
  }
  assert.deepEqual(curves[1], curves[0]);
});

test("kernels keep to the number of bindings", { skip }, async () => {
  const backend = await createWebGpuBackend({ limits: { maxBindings: 8 } });
  assert.equal(backend.caps.maxOperands, 8);
  backend.close();
});

test("the plain variant asks for no more than every device has", { skip }, async () => {
  const backend = await createWebGpuBackend({ variant: "plain" });
  const { limits, features } = backend.device;
  assert.equal(limits.maxStorageBuffersPerShaderStage, 8);
  assert.equal(limits.maxComputeInvocationsPerWorkgroup, 256);
  assert.equal(limits.maxComputeWorkgroupStorageSize, 16384);
  assert.ok(!features.has("shader-f16") && !features.has("subgroups"));
  backend.close();
});
