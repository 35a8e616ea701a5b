/** The costs of a training step in the steady state, as counts: submissions, bind groups, pipelines, memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend, type WebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, key, Parameter, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { skip } from "../../../test/support/gpu.ts";

const [WIDTH, RANK, LAYERS, BATCH] = [32, 4, 3, 8];

/** A stack of frozen layers with one pair of low-rank factors for all of them, on batches that are new every step. */
function tiedStack(device: Device): (step: number) => Tensor {
  const layers = Array.from({ length: LAYERS }, (_, l) =>
    nn.Linear.init(WIDTH, WIDTH, { device, key: key(l) }),
  );
  const draw = (shape: number[], bound: number): Parameter => {
    const n = shape[0]! * (shape[1] ?? 1);
    return Parameter.from(
      device,
      Float32Array.from({ length: n }, (_, i) => bound * Math.sin(i)),
      shape,
    );
  };
  const [A, B] = [draw([WIDTH, RANK], 0.1), draw([RANK, WIDTH], 0)];
  const scales = layers.map(() => draw([WIDTH], 1));
  const lr = optim.cosine(1e-2, { warmup: 10, steps: 200 });
  const optimizer = optim.adamW([A, B, ...scales], { lr, clipNorm: 1 });
  return (step) => {
    const values = Float32Array.from({ length: BATCH * WIDTH }, (_, i) => Math.sin(i * (step + 1)));
    const targets = Int32Array.from({ length: BATCH }, (_, i) => (i * step) % WIDTH);
    let h = device.tensor(values, { shape: [BATCH, WIDTH] });
    layers.forEach((layer, l) => {
      const update = h.matmul(A).matmul(B).mul(scales[l]!);
      h = nn.layerNorm(layer.forward(h).add(update).gelu());
    });
    const loss = nn.crossEntropy(h, device.tensor(targets));
    optimizer.step(loss);
    return loss;
  };
}

async function run<T>(f: (device: Device, backend: WebGpuBackend) => Promise<T>): Promise<T> {
  const backend = await createWebGpuBackend();
  const device = new Device(backend);
  try {
    return await f(device, backend);
  } finally {
    device.close();
  }
}

test("a step is one submission, and makes no bind group after the second", { skip }, async () => {
  await run(async (device, backend) => {
    const step = tiedStack(device);
    for (let s = 0; s < 2; s++) step(s);
    await device.sync();
    const before = backend.counters;
    for (let s = 2; s < 12; s++) step(s);
    await device.sync();
    const after = backend.counters;
    assert.equal(after.submissions - before.submissions, 10);
    assert.equal(after.bindGroups - before.bindGroups, 0);
    assert.equal(after.pipelines - before.pipelines, 0);
    const dispatches = (after.dispatches - before.dispatches) / 10;
    assert.ok(Number.isInteger(dispatches) && dispatches < 60, `${dispatches} dispatches a step`);
  });
});

test("reading the loss of every step adds one copy, and nothing else", { skip }, async () => {
  await run(async (device, backend) => {
    const step = tiedStack(device);
    for (let s = 0; s < 2; s++) await step(s).item();
    const before = backend.counters;
    for (let s = 2; s < 12; s++) await step(s).item();
    const after = backend.counters;
    assert.equal(after.submissions - before.submissions, 20);
    assert.equal(after.bindGroups - before.bindGroups, 0);
  });
});

test("batches that come back make no bind groups either", { skip }, async () => {
  await run(async (device, backend) => {
    const weight = Parameter.from(device, [1, 2, 3, 4], [4]);
    const optimizer = optim.sgd([weight], { lr: 1e-3 });
    const batches = Array.from({ length: 20 }, (_, b) => device.tensor([b, b + 1, b + 2, b + 3]));
    const epoch = (): void => {
      for (const batch of batches) optimizer.step(weight.mul(batch).square().sum());
    };
    for (let e = 0; e < 3; e++) epoch(); // from the second use on, a batch has memory of its own
    await device.sync();
    const before = backend.counters.bindGroups;
    epoch();
    await device.sync();
    assert.equal(backend.counters.bindGroups, before);
  });
});

test("200 steps leave the memory of 20", { skip }, async () => {
  await run(async (device, backend) => {
    const step = tiedStack(device);
    const measure = async (): Promise<{ live: number; pooled: number; pipelines: number }> => {
      await device.sync();
      const { liveBytes, cachedPrograms } = device.memory();
      assert.equal(cachedPrograms, 1);
      const pooled = backend.pool.heldBytes;
      return { live: liveBytes, pooled, pipelines: backend.counters.pipelines };
    };
    for (let s = 0; s < 20; s++) await step(s).item();
    const early = await measure();
    for (let s = 20; s < 200; s++) await step(s).item();
    const late = await measure();
    assert.equal(late.pipelines, early.pipelines);
    // a loss lives until it is collected: four bytes each, in a block of 256
    assert.ok(late.live <= early.live + 180 * 4, `${late.live} bytes after ${early.live}`);
    assert.ok(late.pooled <= early.pooled + 180 * 256, `${late.pooled} bytes held after ${early.pooled}`);
  });
});

test("a profile names every kernel of a step and how long it took", { skip }, async (t) => {
  await run(async (device, backend) => {
    if (!backend.device.features.has("timestamp-query"))
      return t.skip("the adapter has no timestamp queries");
    const step = tiedStack(device);
    await step(0).item();
    const before = backend.counters.dispatches;
    const times = await backend.profile(async () => void (await step(1).item()));
    const calls = times.reduce((sum, { calls }) => sum + calls, 0);
    assert.equal(calls, backend.counters.dispatches - before);
    assert.ok(times.some(({ label }) => label.startsWith("matmul")));
    for (const { milliseconds } of times) assert.ok(milliseconds >= 0);
  });
});
