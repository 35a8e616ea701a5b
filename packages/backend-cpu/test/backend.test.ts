/** The backend as a whole: memory, errors, and that nothing outlives the backend. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { assign, type Device, type DeviceBuffer, full } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { cpu, CpuBackend } from "../src/index.ts";
import { CONTROL, CONTROL_BYTES } from "../src/device/worker-source.ts";
import { matmulCase } from "./support/calls.ts";
import { runOn } from "./support/run.ts";

const ones = new Float32Array(64 * 64).fill(1);

test("a device that is used, and not closed, lets the process end", async () => {
  const index = new URL("../src/index.ts", import.meta.url).href;
  const code = `import { cpu } from ${JSON.stringify(index)};
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const x = device.tensor(new Float32Array(4096).fill(1), { shape: [64, 64] });
    console.log(await x.matmul(x).sum().item());`;
  const flags = [...process.execArgv.filter((flag) => !flag.startsWith("--test")), "--input-type=module"];
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, "-e", code], { timeout: 60_000 });
  assert.equal(stdout.trim(), String(64 ** 3));
});

test("devices that are made and closed again and again leave no thread behind", async () => {
  const workers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Worker").length;
  const before = workers();
  for (let i = 0; i < 20; i++) {
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const x = device.tensor(ones, { shape: [64, 64] });
    assert.equal(await x.matmul(x).sum().item(), 64 ** 3);
    device.close();
    device.close(); // harmless
  }
  assert.ok(workers() <= before);
});

test("what is too large for the memory is refused with what to do", () => {
  const backend = new CpuBackend({ threads: 1 });
  assert.throws(() => backend.alloc(2 ** 32), /alloc\(4294967296\): expected a whole number of bytes up to/);
  const held = backend.alloc(3 * 2 ** 30);
  assert.throws(
    () => backend.alloc(2 ** 31),
    /out of memory: 2147483648 bytes .* 3.00 GiB live.*smaller batch/s,
  );
  held.free();
  backend.alloc(2 ** 31).free();
  assert.equal(backend.memory().liveBytes, 0);
  assert.equal(backend.memory().peakBytes, 3 * 2 ** 30);
  backend.close();
});

/** Fills a device's memory until it refuses, then frees it all; returns the most that it held. */
function fillAndFree(device: Device, bytes: number): number {
  const held: DeviceBuffer[] = [];
  assert.throws(() => {
    for (;;) held.push(device.backend.alloc(bytes));
  }, /out of memory/);
  for (const buffer of held) buffer.free();
  return held.length * bytes;
}

for (const [maxBytes, piece] of [
  [8 * 2 ** 20, 2 ** 16],
  [2 ** 32, 2 ** 28],
] as const) {
  test(`after memory of ${maxBytes} bytes was full and freed, 200 of 200 steps run`, async () => {
    const device = await cpu({ threads: 2, inlineNs: 0, maxBytes });
    const w = nn.Parameter.from(device, ones, [64, 64], "f32", "w");
    const optimizer = optim.sgd([w], { lr: 0 });
    const x = device.tensor(ones, { shape: [64, 64] });
    const losses: Promise<number>[] = [];
    for (let step = 0; step < 200; step++) {
      // while steps are running, so that the memory that is freed is still in use
      if (step % 20 === 10) assert.ok(fillAndFree(device, piece) > 0.8 * maxBytes);
      const loss = x.mul(step).matmul(w).sum();
      optimizer.step(loss);
      losses.push(loss.item());
    }
    const found = await Promise.all(losses);
    found.forEach((loss, step) => assert.equal(loss, step * 64 ** 3));
    device.close();
  });
}

test("temporaries of programs that do not run make room for tensors", async () => {
  const device = await cpu({ threads: 1, maxBytes: 16 * 2 ** 20 });
  const x = device.tensor(new Float32Array(2 ** 20).fill(1), { shape: [1024, 1024] });
  assert.equal(await x.matmul(x).matmul(x).sum().item(), 2 ** 40); // temporaries of 4 MiB or more
  const half = device.backend.alloc(11 * 2 ** 20);
  half.free();
  assert.equal(await x.matmul(x).matmul(x).sum().item(), 2 ** 40);
  device.close();
});

test("a step that there is no memory for has not happened: the weights stay, and so does what was built on them", async () => {
  const device = await cpu({ threads: 1, maxBytes: 16 * 2 ** 20 });
  const w = nn.Parameter.from(device, [1, 2, 3], [3], "f32", "w");
  const before = w.mul(2);
  const { liveBytes } = device.memory();
  const ample = full([2 ** 20], 1).mul(w.sum());
  const losses = [ample, ample.add(1), ample.add(2), ample.add(3)];
  assert.throws(() => assign([[w, w.add(1)]], losses), /out of memory/);
  assert.equal(device.memory().liveBytes, liveBytes);
  assert.deepEqual(await before.toArray(), [2, 4, 6]);
  device.close();
});

test("the host fills shared memory of a buffer without a copy; memory that is not shared has no such view", async () => {
  for (const threads of [1, 2]) {
    const backend = new CpuBackend({ threads });
    const buffer = backend.alloc(16);
    const view = buffer.hostView?.() ?? null;
    assert.equal(view !== null, threads > 1);
    backend.alloc(2 ** 25); // the memory grows
    view?.set([1, 2, 3], 8);
    if (view) assert.deepEqual([...new Uint8Array(await buffer.read(8, 3))], [1, 2, 3]);
    buffer.free();
    assert.throws(() => buffer.hostView?.(), /was freed/);
    backend.close();
  }
});

test("a closed device says so", async () => {
  const device = await cpu({ threads: 1 });
  const x = device.tensor([1, 2]);
  device.close();
  await assert.rejects(
    async () => x.add(1).toArray(),
    /this CPU device is closed; make a new one with cpu\(\)/,
  );
});

test("options that make no sense are refused", () => {
  for (const threads of [0, 1.5, NaN, 1000]) {
    assert.throws(() => new CpuBackend({ threads }), /expected a whole number from 1 to 256/);
  }
  for (const maxBytes of [0, 2 ** 20 - 1, 2 ** 20 + 0.5, 2 ** 33, NaN]) {
    assert.throws(
      () => new CpuBackend({ maxBytes }),
      /expected a whole number of bytes from .* to 4294967296/,
    );
  }
});

test("a worker that dies rejects what waits for it", async () => {
  const backend = new CpuBackend({ threads: 2, inlineNs: 0 });
  const { call, buffers } = matmulCase({ m: 64, n: 64, k: [64] });
  const contents = buffers.map(({ length }) => new ArrayBuffer(4 * length));
  await runOn(backend, [call], contents);
  const specs = contents.map(({ byteLength }) => ({ kind: "input", bytes: byteLength }) as const);
  const spare = await backend.compile({ buffers: specs, scalars: 0, steps: [call] });
  const buffer = backend.alloc(64);
  backend.workersForTest()[0]!.terminate();
  await assert.rejects(async () => {
    for (let i = 0; i < 1000; i++) await runOn(backend, [call], contents);
  }, /a worker of the CPU backend died/);
  // freeing buffers and programs, as garbage collection does, works without a worker
  buffer.free();
  spare.free();
  backend.close();
});

test("a worker that dies during thousands of submissions rejects them all, and promptly", async () => {
  const device = await cpu({ threads: 2, inlineNs: 0 });
  const x = device.tensor(ones, { shape: [64, 64] });
  await x.matmul(x).sum().item();
  (device.backend as CpuBackend).workersForTest()[0]!.terminate();
  const start = performance.now();
  const pending = Array.from({ length: 5000 }, () => x.matmul(x).sum().item());
  for (const { status } of await Promise.allSettled(pending)) assert.equal(status, "rejected");
  await assert.rejects(Promise.all(pending), /a worker of the CPU backend died: it ended with code 1/);
  assert.ok(performance.now() - start < 20_000);
  await assert.rejects(x.mul(2).matmul(x).sum().item(), /died/);
  device.close();
});

test(
  "a waiter wakes although the workers finish while it looks at their progress",
  { timeout: 60_000 },
  async (t) => {
    const backend = new CpuBackend({ threads: 2, inlineNs: 0 });
    const { call, buffers } = matmulCase({ m: 512, n: 512, k: [512] });
    const contents = buffers.map(({ length }) => new ArrayBuffer(4 * length));
    await runOn(backend, [call], contents);
    // One load of `done` during which work is running returns its value only after that work has ended: the first, the second, ...
    const load = Atomics.load.bind(Atomics);
    let [looks, delayed] = [0, 0];
    t.mock.method(Atomics, "load", (array: Int32Array, at: number): number => {
      const seen = load(array, at);
      const isDone = array.buffer.byteLength === CONTROL_BYTES && at === CONTROL.done;
      if (isDone && seen !== load(array, CONTROL.submitted) && looks-- === 0) {
        while (load(array, CONTROL.done) !== load(array, CONTROL.submitted));
        delayed++;
      }
      return seen;
    });
    for (let n = 0; n < 8; n++) {
      looks = n;
      await runOn(backend, [call], contents);
    }
    assert.ok(delayed >= 3);
    backend.close();
  },
);

test("more submissions than the queue holds are all carried out, in order", async () => {
  const device = await cpu({ threads: 2, inlineNs: 0 });
  const w = nn.Parameter.from(device, [0], [1], "f32", "w");
  for (let i = 0; i < 5000; i++) assign([[w, w.mul(i % 2 ? 1 : -1).add(1)]], []);
  let expected = 0;
  for (let i = 0; i < 5000; i++) expected = expected * (i % 2 ? 1 : -1) + 1;
  assert.equal(await w.item(), expected);
  device.close();
});

test("profile() names every kernel and counts its calls", async () => {
  const backend = new CpuBackend({ threads: 2 });
  const { call, buffers } = matmulCase({ m: 20, n: 30, k: [40] });
  const contents = buffers.map(({ length }) => new ArrayBuffer(4 * length));
  const times = await backend.profile(async () => {
    await runOn(backend, [call, call], contents);
  });
  assert.deepEqual(
    times.map(({ label, calls }) => [label, calls]),
    [["matmul 20x40x30 NN f32", 2]],
  );
  backend.close();
});
