/** Programs of long unrolled loops: they consist of programs of a few iterations, and give what the whole graph says. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import { concat, Device, type Executable, grad, Parameter, type Program, ReferenceBackend, type Tensor } from "@tiedlora/core"; // prettier-ignore
import fc from "fast-check";
import { submit } from "../src/plan.ts";
import { read } from "./plan/common.ts";
import { evaluate } from "./plan/evaluate.ts";
import { Tape } from "./plan/graphs.ts";
import { numbers, randomLoop, tensor } from "./plan/loops.ts";
import { recording, Recorder } from "./support.ts";

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    assert.ok(
      error <= 1e-9 * (1 + Math.abs(expected[i]!)),
      `${what}: [${i}] is ${actual[i]}, not ${expected[i]}`,
    );
  }
}

const tapes = fc.noBias(fc.array(fc.nat(5039), { minLength: 20, maxLength: 150, size: "max" }));

test("random loops and their gradients give what their nodes say, also if one iteration is different", async () => {
  let cut = 0;
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(tapes, fc.integer({ min: 80, max: 90 }), fc.boolean(), async (tape, length, isOdd) => {
      const device = new Device(new ReferenceBackend());
      const odd = isOdd ? 6 : -1;
      const tensors = randomLoop(device, new Tape(tape), length, odd);
      const roots = tensors.map(({ node }) => node);
      const expected = evaluate(roots, () => assert.fail("there is no device memory in this graph"));
      const outputs = submit(device, roots);
      for (const [i, root] of roots.entries())
        close(await read(root, outputs[i]!), expected[i]!, `root ${i}`);
      runs++;
      if (device.plans.size > 1) cut++;
    }),
    { numRuns: Number(process.env["PLAN_RUNS"] ?? 2) },
  );
  assert.ok(2 * cut >= runs, `only ${cut} of ${runs} were cut`);
});

test("equal values of an iteration are handed on as one, whose memory is given to others once", async () => {
  const results = async (device: Device): Promise<Float64Array> => {
    const x = tensor(device, [120, 2, 3], 1);
    const weights = tensor(device, [3, 3], 2);
    let h = tensor(device, [2, 3], 5);
    for (let t = 0; t < 120; t++) {
      const at = x.narrow(0, t, 1).reshape([2, 3]);
      const [a, b] = [h.add(at).matmul(weights).tanh(), h.add(at).matmul(weights).tanh()];
      h = a.mul(b).add(h).tanh();
    }
    const loss = h.square().mean();
    const all = [loss, ...grad(loss, [weights, x])].map((one) => one.reshape([one.size]));
    return (await concat(all).data()) as Float64Array;
  };
  const device = new Device(new ReferenceBackend());
  const actual = await results(device);
  assert.ok(device.plans.size > 1, "it was not cut");
  close(actual, await results(new Device(new ReferenceBackend(), { fusion: "off" })), "the loop");
});

interface Lstm {
  readonly parameters: Parameter[];
  /** `axis` is that of the steps in the input, which has `rows` of them. */
  readonly loss: (length: number, from?: number, axis?: number, rows?: number) => Tensor;
}

/** An LSTM of 3 numbers over windows of one long input. Its gates are written as tanh, which `evaluate` knows. */
function lstm(device: Device): Lstm {
  const weight = (name: string, shape: readonly number[], seed: number): Parameter =>
    Parameter.from(device, numbers(shape.reduce((a, b) => a * b), seed), shape, "f64", name); // prettier-ignore
  const [wx, wh, b] = [weight("wx", [3, 12], 1), weight("wh", [3, 12], 2), weight("b", [12], 3)] as const;
  const gate = (a: Tensor): Tensor => a.tanh().add(1);
  const loss = (length: number, from = 0, axis = 0, rows = length + from): Tensor => {
    const x = tensor(device, axis === 0 ? [rows, 2, 3] : [2, rows, 3], 4);
    let [h, c] = [tensor(device, [2, 3], 5), tensor(device, [2, 3], 6)];
    for (let t = 0; t < length; t++) {
      const at = x.narrow(axis, t + from, 1).reshape([2, 3]);
      const gates = at.matmul(wx).add(h.matmul(wh)).add(b);
      const [i, f, g, o] = gates.split(3, 1) as [Tensor, Tensor, Tensor, Tensor];
      c = gate(f).mul(c).add(gate(i).mul(g.tanh())).mul(0.5);
      h = gate(o).mul(c.tanh());
    }
    return h.square().mean();
  };
  return { parameters: [wx, wh, b], loss };
}

/** The values of graphs over an LSTM's parameters, which are as they were made or as given. */
function expected(tensors: readonly Tensor[], values?: ReadonlyMap<string, Float64Array>): Float64Array[] {
  const seeds = new Map([["wx", 1], ["wh", 2], ["b", 3]]); // prettier-ignore
  return evaluate(
    tensors.map(({ node }) => node),
    ({ shape, attrs: { storage } }) =>
      values?.get(storage.name) ?? numbers(shape.reduce((a, b) => a * b), seeds.get(storage.name)!), // prettier-ignore
  );
}

test("an LSTM of another length compiles nothing, and is trained by the gradients that its nodes say", async () => {
  const { device, recorder } = recording();
  const { parameters, loss: lossOf } = lstm(device);
  const optimizer = optim.sgd(parameters, { lr: 0.5 });
  const counts: number[] = [];
  let values = new Map<string, Float64Array>();
  for (const length of [120, 101]) {
    const loss = lossOf(length);
    const [value, ...gradients] = expected([loss, ...grad(loss, parameters)], values);
    const old = await Promise.all(parameters.map((parameter) => parameter.data()));
    optimizer.step(loss);
    close(await loss.data(), value!, `the loss at length ${length}`);
    values = new Map();
    for (const [i, parameter] of parameters.entries()) {
      const trained = gradients[i]!.map((g, k) => (old[i]![k] as number) - 0.5 * g);
      close(await parameter.data(), trained, `${parameter.name} at length ${length}`);
      values.set(parameter.name, trained);
    }
    counts.push(recorder.programs.length);
  }
  assert.deepEqual(counts, [counts[0], counts[0]], "programs compiled after each step");
  const steps = recorder.programs.reduce((sum, { steps: own }) => sum + own.length, 0);
  assert.ok(steps < 1000, `${steps} kernels were planned`);
});

test("windows that start elsewhere in memory of another length, along any axis, are read by the same programs", async () => {
  for (const axis of [0, 1]) {
    const { device, recorder } = recording();
    const { loss, parameters } = lstm(device);
    const compiled: number[] = [];
    for (const [from, rows] of [
      [0, 120],
      [7, 127],
      [0, 130],
      [4, 130],
    ] as const) {
      const one = loss(120, from, axis, rows);
      const all = [one, ...grad(one, parameters)];
      const values = expected(all);
      for (const [i, wanted] of all.entries())
        close(
          await wanted.data(),
          values[i]!,
          `${i} of steps from ${from} of ${rows} on, along axis ${axis}`,
        );
      compiled.push(recorder.programs.length);
    }
    assert.ok(compiled[0]! > 10);
    // inputs with the steps along axis 1 are copied first, by a program for each number of rows
    const copies = axis === 0 ? [0, 0, 0] : [1, 2, 2];
    assert.deepEqual(compiled.slice(1), copies.map((n) => compiled[0]! + n), `axis ${axis}`); // prettier-ignore
  }
});

test("gradients of outputs that are joined along an inner axis are read in all pieces", async () => {
  const device = new Device(new ReferenceBackend());
  const [x, weights] = [tensor(device, [2, 200, 3], 4), tensor(device, [3, 3], 2)];
  const outputs: Tensor[] = [];
  let h = tensor(device, [2, 3], 5);
  for (let t = 0; t < 200; t++) {
    h = h
      .add(x.narrow(1, t, 1).reshape([2, 3]))
      .tanh()
      .matmul(weights)
      .sin();
    outputs.push(h.reshape([2, 1, 3]));
  }
  const gradients = grad(concat(outputs, 1).tanh().square().mean(), [weights, x]);
  const one = concat([h, ...gradients].map((each) => each.reshape([each.size])));
  const [values] = expected([one]);
  close(await one.data(), values!, "the results");
  assert.ok(device.plans.size > 3, "it was not cut");
});

test("windows of memory that is sliced along another axis, too, are read where they start", async () => {
  const device = new Device(new ReferenceBackend());
  for (const from of [0, 7, 3]) {
    const x = tensor(device, [2, 310, 3], 4);
    const weights = tensor(device, [3, 3], 2);
    let h = tensor(device, [2, 3], 5);
    for (let t = 0; t < 300; t++) {
      const at = x.narrow(1, t + from, 1).reshape([2, 3]);
      h = h.add(at).matmul(weights).tanh().add(at.mul(h).sin()).mul(0.5);
    }
    const all = [h, x.narrow(2, 1, 1)];
    const one = concat(all.map((each) => each.reshape([each.size])));
    const [values] = expected([one]);
    close(await one.data(), values!, `the results from ${from} on`);
  }
  assert.ok(device.plans.size > 3, "it was not cut");
});

test("a loop of fewer than 64 iterations is one program", async () => {
  const { device, recorder } = recording();
  const { loss, parameters } = lstm(device);
  await (grad(loss(62), parameters)[0] as Tensor).data();
  assert.equal(recorder.programs.length, 1);
});

test("programs of several lengths hand values on in the same memory, which is freed with the last of them", async () => {
  const device = new Device(new ReferenceBackend(), { cachedPrograms: 3 });
  const { loss, parameters } = lstm(device);
  const wanted = async (length: number): Promise<number> => {
    const [gradient] = grad(loss(length), parameters) as [Tensor];
    await gradient.data();
    return device.memory().liveBytes;
  };
  const before = device.memory().liveBytes;
  const [one] = [await wanted(140), await wanted(130)];
  assert.ok((await wanted(140)) < 1.3 * one, "three programs take more than one");
  for (let n = 1; n <= 3; n++) await tensor(device, [n], 1).exp().data();
  assert.ok(
    device.memory().liveBytes < before + 1000,
    `${device.memory().liveBytes} bytes are left, ${before} before`,
  );
});

/** Compiles later, and fails to compile one program. */
class Unreliable extends Recorder {
  failing = -1;
  override compile(program: Program): Executable {
    if (this.programs.length === this.failing) {
      this.failing = -1;
      throw new Error("no code");
    }
    return super.compile(program);
  }
}

test("if a part cannot be compiled, the error is thrown, nothing is kept in memory, and the next attempt succeeds", async () => {
  const backend = new Unreliable();
  const device = new Device(backend);
  const loss = lstm(device).loss(120);
  const [value] = expected([loss]);
  const before = device.memory().liveBytes;
  backend.failing = 4;
  await assert.rejects(async () => loss.data(), /no code/);
  assert.ok(device.memory().liveBytes <= before + 4 * 40_000);
  close(await loss.data(), value!, "the loss");
});

test("parts that are compiled later run once all are there", async () => {
  const slow = new (class extends Recorder {
    override compile(program: Program): Executable {
      const executable = super.compile(program);
      return new Promise((resolve) => setImmediate(() => resolve(executable))) as unknown as Executable;
    }
  })();
  const { loss } = lstm(new Device(slow));
  for (const length of [120, 130]) {
    const one = loss(length);
    const [value] = expected([one]);
    close(await one.data(), value!, `the loss at length ${length}`);
  }
  assert.ok(slow.programs.length > 1);
});

test("a computed value that is read along an inner axis alone is handed on to what reads it", async () => {
  const results = async (device: Device): Promise<Float64Array> => {
    const inputs = tensor(device, [2, 80, 3], 1)
      .matmul(tensor(device, [3, 3], 2))
      .tanh();
    let h = tensor(device, [2, 3], 3);
    for (let t = 0; t < 80; t++) {
      const at = inputs.narrow(1, t, 1).reshape([2, 3]);
      for (let i = 0; i < 10; i++) h = h.mul(at).add(at).sin();
    }
    return (await h.data()) as Float64Array;
  };
  const device = new Device(new ReferenceBackend());
  const actual = await results(device);
  assert.ok(device.plans.size > 1, "it was not cut");
  close(actual, await results(new Device(new ReferenceBackend(), { fusion: "off" })), "the loop");
});
