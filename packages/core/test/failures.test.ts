/** A program that fails has no effect, and other programs are not affected. The backend here compiles asynchronously. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Backend,
  type BackendMemory,
  Device,
  type DeviceBuffer,
  type Executable,
  Parameter,
  type Program,
  ReferenceBackend,
} from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";

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

test("a step that fails has not happened", async () => {
  const { backend, device } = setup();
  const weight = Parameter.from(device, [1, 2], [2]);
  const optimizer = optim.sgd([weight], { lr: 0.5 });
  backend.refused = "exp";
  const loss = weight.exp().sum();
  optimizer.step(loss);
  await assert.rejects(loss.item(), /no exp today/);
  assert.deepEqual(Array.from(await weight.data()), [1, 2]);
  optimizer.step(weight.square().sum()); // as with a smaller batch
  assert.deepEqual(Array.from(await weight.data()), [0, 0]);
  await assert.rejects(loss.item(), /no exp today/, "there is no loss of that step, now as before");
});

test("what is computed from failed results fails, and updates nothing", async () => {
  const { backend, device } = setup();
  const weight = Parameter.from(device, [1, 2], [2]);
  backend.refused = "exp";
  const factor = device.tensor([0, 0]).exp();
  const failed = factor.data();
  optim.sgd([weight], { lr: 1 }).step(weight.mul(factor).sum());
  await assert.rejects(failed, /no exp today/);
  await assert.rejects(device.sync(), /no exp today/, "the step failed as well");
  assert.deepEqual(Array.from(await weight.data()), [1, 2]);
});

test("a failure is reported by what comes next, once", async () => {
  const { backend, device } = setup();
  const weight = Parameter.from(device, [1, 2], [2]);
  backend.refused = "exp";
  optim.sgd([weight], { lr: 0.5 }).step(weight.exp().sum());
  await assert.rejects(device.tensor([1, 2]).sum().item(), /no exp today/);
  assert.equal(await device.tensor([1, 2]).sum().item(), 3);
  await device.sync();
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
