/** The backend as a whole: memory, errors, and that nothing outlives it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { cpu, CpuBackend } from "../src/index.ts";
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
});

test("a worker that dies rejects what waits for it", async () => {
  const backend = new CpuBackend({ threads: 2, inlineNs: 0 });
  const { call, buffers } = matmulCase({ m: 64, n: 64, k: [64] });
  const contents = buffers.map(({ length }) => new ArrayBuffer(4 * length));
  await runOn(backend, [call], contents);
  backend.workersForTest()[0]!.terminate();
  await assert.rejects(async () => {
    for (let i = 0; i < 1000; i++) await runOn(backend, [call], contents);
  }, /a worker of the CPU backend died/);
  backend.close();
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
