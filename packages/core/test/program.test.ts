import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, explain, grad, type Parameter, type Tensor, topological } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { loops, matmuls, parameter, Recorder, recording, TinyGpt } from "./support.ts";

const ids = (device: Device, n = 8): Tensor =>
  device.tensor(
    Int32Array.from({ length: n }, (_, i) => (7 * i) % 5),
    { shape: [1, n] },
  );

test("a graph of known structure finds its program, whatever the numbers in it", async () => {
  const { device, recorder } = recording();
  const results: number[] = [];
  for (const factor of [3, 5, 7]) {
    results.push(await device.tensor([factor, 1]).mul(factor).add(10).sum().item());
  }
  assert.deepEqual(results, [32, 50, 76]);
  assert.equal(recorder.programs.length, 1);
  await device.tensor([1, 2, 3]).mul(3).add(10).sum().item();
  assert.equal(recorder.programs.length, 2, "another shape is another program");
});

test("a learning rate that changes every step never recompiles, not even at 0 and 1", () => {
  const { device, recorder } = recording();
  const p = parameter(device, [4]);
  const rates = [0, 1, 0.5, 2, 0.1, 0.3];
  const optimizer = optim.adamW([p], { lr: (step) => rates[step]! });
  for (const _ of rates) optimizer.step(p.square().sum());
  assert.equal(recorder.programs.length, 1);
});

test("tracing makes one node of a broadcast, and stretches an optimizer's numbers once a shape", () => {
  const { device } = recording();
  const bias = parameter(device, [4]);
  const broadcast = topological([parameter(device, [2, 3, 4]).add(bias).node]).map(({ op }) => op);
  assert.deepEqual(broadcast, ["buffer", "buffer", "expand", "add"]);

  const stretched = (...shapes: number[][]): number => {
    const all = shapes.map((shape) => parameter(device, shape));
    const loss = all.map((p) => p.square().sum()).reduce((a, b) => a.add(b));
    const { updates } = optim.adamW(all, { lr: 0.1 }).trace(loss);
    const nodes = topological(updates.map(({ value }) => value));
    return nodes.filter(({ op, inputs }) => op === "expand" && inputs[0].op === "scalar").length;
  };
  const numbers = stretched([4]);
  assert.ok(numbers >= 8, `${numbers}: two rates for each moment, a correction, eps, decay, and the rate`);
  assert.equal(stretched([4], [4], [4]), numbers);
  assert.equal(stretched([4], [2, 2], [4]), 2 * numbers);
});

test("200 steps end with the live bytes of 20", async () => {
  const { device } = recording();
  const model = new TinyGpt(device, { layers: 1, dim: 8, heads: 2, vocab: 5 });
  const optimizer = optim.adamW(model.parameters(), { lr: 1e-2, clipNorm: 1 });
  const live: number[] = [];
  for (let step = 1; step <= 200; step++) {
    const loss = model.loss(ids(device), ids(device));
    optimizer.step(loss);
    assert.ok(Number.isFinite(await loss.item()));
    if (step === 20 || step === 200) live.push(device.memory().liveBytes);
  }
  assert.equal(live[1], live[0]);
});

test("parameters and optimizer state are updated in place", () => {
  const { device, recorder } = recording();
  const model = new TinyGpt(device, { layers: 2, dim: 8, heads: 2, vocab: 5 });
  optim.adamW(model.parameters(), { lr: 1e-2 }).step(model.loss(ids(device), ids(device)));
  const outputs = recorder.last.buffers.filter((buffer) => buffer.kind === "output");
  const copied = outputs.filter((buffer) => buffer.aliasOf === undefined);
  assert.equal(outputs.length, 3 * model.parameters().length + 1);
  assert.equal(copied.length, 1, "only the loss is memory of its own");
});

test("an update that others still read is not done in place, and gives what it should", async () => {
  const { device } = recording();
  const [a, b] = [parameter(device, [2, 2], "a"), parameter(device, [2, 2], "b")];
  const [x, y] = [await a.data(), await b.data()];
  const { assign } = await import("@tiedlora/core");
  assign([[a, b.transpose()], [b, a.transpose()]]); // prettier-ignore
  assert.deepEqual([...(await a.data())], [y[0], y[2], y[1], y[3]]);
  assert.deepEqual([...(await b.data())], [x[0], x[2], x[1], x[3]]);
});

test("what is frozen has no gradient kernel", () => {
  const { device } = recording();
  const model = new TinyGpt(device, { layers: 2, dim: 8, heads: 2, vocab: 5 });
  const count = (): number =>
    explain(optim.sgd(model.parameters(), { lr: 1 }).trace(model.loss(ids(device), ids(device)))).steps
      .length;
  const all = count();
  model.freeze(/up|down/);
  const some = count();
  model.freeze(/^(?!modules\.6\.)/); // all but the last norm
  const few = count();
  assert.ok(few < some && some < all, `${few} < ${some} < ${all} steps`);
});

test("bias, activation and residual follow a matmul in its own step", () => {
  const { device, recorder } = recording();
  const [x, w, b] = [parameter(device, [2, 3, 4]), parameter(device, [4, 4]), parameter(device, [4])];
  void x.matmul(w).add(b).gelu("tanh").add(x).data();
  assert.deepEqual(matmuls(recorder.last), [{ terms: 1, epilogue: true }]);
  assert.equal(recorder.last.steps.length, 1);
});

test("a low-rank update is a second term of the layer's matmul", () => {
  const { device, recorder } = recording();
  const [x, w, bias] = [parameter(device, [2, 3, 4]), parameter(device, [4, 4]), parameter(device, [4])];
  const [A, B] = [parameter(device, [4, 2]), parameter(device, [2, 4])];
  const [u, v] = [parameter(device, [2]), parameter(device, [4])];
  void x.matmul(w).add(bias).add(x.matmul(A).mul(u).matmul(B).mul(v).mul(3)).data();
  assert.deepEqual(matmuls(recorder.last), [{ terms: 1, epilogue: true }, { terms: 2, epilogue: true }]); // prettier-ignore
  assert.equal(loops(recorder.last), 1, "B · v");
});

test("a backend that takes neither terms nor epilogues gets neither", async () => {
  const plain = new Recorder(64, (call) => call.name !== "matmul" || (!call.params.epilogue && call.params.k.length === 1)); // prettier-ignore
  const { device, recorder } = recording({}, plain);
  const [x, w, A] = [parameter(device, [3, 4]), parameter(device, [4, 4]), parameter(device, [4, 4])];
  const both = x.matmul(w).add(x.matmul(A)).relu();
  const values = await both.data();
  assert.ok(matmuls(recorder.last).every(({ terms, epilogue }) => terms === 1 && !epilogue));
  const { device: other } = recording();
  const [y, v, B] = [parameter(other, [3, 4]), parameter(other, [4, 4]), parameter(other, [4, 4])];
  assert.deepEqual(await y.matmul(v).add(y.matmul(B)).relu().data(), values);
});

test("softmax, norms and cross-entropy with its gradient are a kernel each", () => {
  const { device, recorder } = recording();
  const x = parameter(device, [6, 10]);
  void x.softmax().data();
  assert.equal(recorder.last.steps.length, 1);
  void nn.layerNorm(x).data();
  assert.equal(recorder.last.steps.length, 1);
  const targets = device.tensor(Int32Array.from([1, 2, 3, 4, 5, 6]));
  const loss = nn.crossEntropy(x, targets);
  const [g] = grad(loss, [x]);
  const { steps } = explain({ device, tensors: [loss, g!], updates: [] });
  assert.deepEqual(steps.map((step) => step.name), ["rows 6 of 10", "rows 1 of 6"]); // prettier-ignore
});

test("the gradient of the logits is written over them", () => {
  const { device } = recording();
  const [x, w] = [parameter(device, [64, 4]), parameter(device, [4, 512])];
  const targets = device.tensor(Int32Array.from({ length: 64 }, (_, i) => i));
  const { tempBytes } = explain(optim.sgd([x, w], { lr: 1 }).trace(nn.crossEntropy(x.matmul(w), targets)));
  assert.ok(tempBytes < 1.2 * 64 * 512 * 4, `${tempBytes} bytes of temporaries`);
});

test("what is cheap is computed again by each kernel that needs it, what is costly is stored once", () => {
  const { device } = recording();
  const x = parameter(device, [48, 64]);
  const temporaries = (value: Tensor): number =>
    explain({ device, tensors: [value.sum(0), value.sum(1)], updates: [] }).tempBytes;
  assert.equal(temporaries(x.mul(3).add(1).relu()), 0);
  assert.equal(temporaries(x.gelu("tanh")), 0);
  assert.equal(temporaries(x.exp().tanh().sin().erf()), 4 * 48 * 64);

  // between a matmul and the next, activations keep one tensor besides the next one's operand: what they were made of
  const [w1, w2] = [parameter(device, [64, 256]), parameter(device, [256, 64])];
  const loss = x.matmul(w1).gelu("tanh").matmul(w2).square().mean();
  const { tempBytes } = explain(optim.sgd([w1, w2], { lr: 1 }).trace(loss));
  assert.ok(tempBytes < 2.6 * 4 * 48 * 256, `${tempBytes} bytes of temporaries`);
});

test("the updates of many small parameters are few kernels", () => {
  const { device, recorder } = recording();
  const parameters = Array.from({ length: 12 }, (_, i) => parameter(device, [8], `p${i}`));
  const loss = parameters.map((p, i) => p.mul(i + 3).square().sum()).reduce((a, b) => a.add(b)); // prettier-ignore
  optim.adamW(parameters, { lr: 0.1 }).step(loss);
  const updates = recorder.last.steps.filter((step) => step.type === "loop" && step.stores.length >= 3);
  assert.ok(updates.length <= 2, `${updates.length} kernels update 12 parameters`);
});

test("a step of tied low-rank adapters takes at most 20 steps a layer, of full training 27", () => {
  const { device } = recording();
  const layers = 6;
  const model = new TinyGpt(device, { layers, dim: 32, heads: 2, vocab: 64 });
  const count = (trained: readonly Parameter[]): number =>
    explain(optim.adamW(trained, { lr: 1e-3 }).trace(model.loss(ids(device, 16), ids(device, 16)))).steps
      .length;
  const full = count(model.parameters());
  model.freeze();
  const [A, B] = [parameter(device, [32, 4]), parameter(device, [4, 96])];
  const own = model.blocks.map(({ attention }) => {
    const [u, v] = [parameter(device, [4]), parameter(device, [96])];
    attention.qkv.adapter = { apply: (x, y) => y.add(x.matmul(A).mul(u).matmul(B.mul(v))) };
    return [u, v];
  });
  const tied = count([A, B, ...own.flat()]);
  assert.ok(full <= 27 * layers, `full training: ${full} steps`);
  assert.ok(tied <= 20 * layers, `tied adapters: ${tied} steps`);
});

test("explain names each step with its arithmetic and traffic, and sums up", () => {
  const { device, recorder } = recording();
  const [a, b] = [parameter(device, [3, 4]), parameter(device, [4, 5])];
  const explanation = explain(a.matmul(b).relu());
  assert.deepEqual(
    explanation.steps.map(({ name, bytes, rules }) => ({ name, bytes, rules })),
    [{ name: "matmul 3×4×5 + epilogue", bytes: 4 * (12 + 20 + 15), rules: ["matmulEpilogue"] }],
  );
  assert.equal(explanation.steps[0]!.flops, 2 * 3 * 4 * 5 + 2 * 15);
  assert.match(String(explanation), /matmul 3×4×5 \+ epilogue +0\.000 MFLOP/);
  assert.match(String(explanation), /^1 steps/m);
  assert.equal(recorder.programs.length, 1, "and the program is there when it is wanted");
});
