/** What a failed program spoils: what it was to compute, and nothing else. On a backend that compiles in its own time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Backend,
  type BackendMemory,
  Device,
  type DeviceBuffer,
  type Executable,
  optim,
  Parameter,
  type Program,
  ReferenceBackend,
} from "@tiedlora/core";

/** The reference, compiling asynchronously, and failing as the test says. */
class FailingBackend implements Backend {
  readonly name = "failing";
  readonly #inner = new ReferenceBackend();
  readonly caps = this.#inner.caps;
  /** Compiling rejects programs that compute this. */
  refused: string | null = null;
  compiled = 0;

  alloc(bytes: number): DeviceBuffer {
    return this.#inner.alloc(bytes);
  }
  accelerates(): boolean {
    return true;
  }
  async compile(program: Program): Promise<Executable> {
    await Promise.resolve();
    this.compiled++;
    const has = (op: string): boolean =>
      program.steps.some((step) => step.type === "loop" && step.body.some((instr) => instr.op === op));
    if (this.refused !== null && has(this.refused)) throw new Error(`no ${this.refused} today`);
    return this.#inner.compile(program);
  }
  sync(): Promise<void> {
    return this.#inner.sync();
  }
  memory(): BackendMemory {
    return this.#inner.memory();
  }
  close(): void {
    this.#inner.close();
  }
}

const setup = (): { backend: FailingBackend; device: Device } => {
  const backend = new FailingBackend();
  return { backend, device: new Device(backend) };
};

test("after a program that does not compile, others run", async () => {
  const { backend, device } = setup();
  backend.refused = "exp";
  const x = device.tensor([1, 2, 3]);
  await assert.rejects(x.exp().data(), /no exp today/);
  assert.equal(await x.sum().item(), 6);
  await device.sync(); // the failure was reported by the read
});

test("a program that did not compile is compiled anew the next time", async () => {
  const { backend, device } = setup();
  backend.refused = "exp";
  const x = device.tensor([0, 0]);
  await assert.rejects(x.exp().data(), /no exp today/);
  backend.refused = null;
  assert.deepEqual(Array.from(await x.exp().data()), [1, 1]);
  assert.equal(backend.compiled, 2);
  assert.equal(device.memory().cachedPrograms, 1);
});

test("a step that fails spoils the weights that it was to update, and what is computed from them", async () => {
  const { backend, device } = setup();
  const [spoiled, other] = [Parameter.from(device, [1, 2], [2]), Parameter.from(device, [3, 4], [2])];
  const steps = [spoiled, other].map((weight) => optim.sgd([weight], { lr: 0.5 }));
  backend.refused = "exp";
  steps[0]!.step(spoiled.exp().sum());
  steps[1]!.step(other.square().sum());
  steps[0]!.step(spoiled.square().sum()); // compiles, but must not go on from what is not there
  assert.deepEqual(Array.from(await other.data()), [0, 0]);
  await assert.rejects(spoiled.data(), /no exp today/);
  await assert.rejects(spoiled.add(other).data(), /no exp today/);
  assert.equal(await other.sum().item(), 0);
});

test("a failure that no read reports is reported by the next sync, once", async () => {
  const { backend, device } = setup();
  const weight = Parameter.from(device, [1, 2], [2]);
  backend.refused = "exp";
  optim.sgd([weight], { lr: 0.5 }).step(weight.exp().sum());
  assert.equal(await device.tensor([1, 2]).sum().item(), 3);
  await assert.rejects(device.sync(), /no exp today/);
  await device.sync();
});

test("a spoiled weight is good again once all of it is written", async () => {
  const { backend, device } = setup();
  const weight = Parameter.from(device, [1, 2], [2]);
  backend.refused = "exp";
  optim.sgd([weight], { lr: 0.5 }).step(weight.exp().sum());
  await assert.rejects(weight.data(), /no exp today/);
  weight.set([5, 6]);
  assert.deepEqual(Array.from(await weight.data()), [5, 6]);
});

test("failed programs leave no memory behind", async () => {
  const { backend, device } = setup();
  backend.refused = "exp";
  const before = device.memory().liveBytes;
  const x = device.tensor(new Float32Array(1000));
  const failed = x.exp().sum();
  await assert.rejects(failed.item(), /no exp today/);
  assert.ok(device.memory().liveBytes <= before + 8, `${device.memory().liveBytes} bytes live`);
});
