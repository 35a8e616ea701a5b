import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, grad, gradOrNull, key, reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import fc from "fast-check";

const close = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void => {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    assert.ok(
      error <= tolerance * (1 + Math.abs(expected[i]!)),
      `[${i}]: ${actual[i]} is not ${expected[i]}`,
    );
  }
};

const parameter = (device: Device, values: number[], name = "w"): nn.Parameter =>
  nn.Parameter.from(device, values, [values.length], "f32", name);

/** Σ c p², whose gradient is 2 c p. */
const quadratic = (device: Device, p: Tensor, c: number[]): Tensor => p.square().mul(device.tensor(c)).sum();

test("AdamW takes PyTorch's steps", async () => {
  // The recurrence of torch.optim.AdamW, written out in float64.
  const [lr, b1, b2, eps, wd] = [0.1, 0.9, 0.98, 1e-8, 0.01];
  const c = [1, -0.5, 3];
  const expected = [0.3, -1, 2];
  const [m, v] = [
    [0, 0, 0],
    [0, 0, 0],
  ];
  const device = reference();
  const p = parameter(device, expected);
  const opt = optim.adamW([p], { lr, betas: [b1, b2], eps, weightDecay: wd });
  for (let step = 1; step <= 10; step++) {
    opt.step(quadratic(device, p, c));
    expected.forEach((x, i) => {
      const g = 2 * c[i]! * x;
      m[i] = b1 * m[i]! + (1 - b1) * g;
      v[i] = b2 * v[i]! + (1 - b2) * g * g;
      const denominator = Math.sqrt(v[i]) / Math.sqrt(1 - b2 ** step) + eps;
      expected[i] = x * (1 - lr * wd) - ((lr / (1 - b1 ** step)) * m[i]) / denominator;
    });
    close(await p.data(), expected, 2e-6);
  }
});

test("lrFactor multiplies the learning rate of a parameter, and all steps are one program whatever the rates are", async () => {
  for (const make of [optim.adamW, optim.sgd]) {
    const device = reference();
    const [a, b] = [parameter(device, [1, -2], "a"), parameter(device, [0.5, 3], "b")];
    const lr = (step: number): number => [0, 0.1, 0.05][step]!;
    const both = make([a, b], { lr, lrFactor: (p) => (p === b ? 16 : 1) });
    const step = (): void => both.step(quadratic(device, a, [1, 2]).add(quadratic(device, b, [3, 4])));
    step();
    await device.sync();
    const { cachedPrograms } = device.memory();
    step();
    step();
    assert.equal(device.memory().cachedPrograms, cachedPrograms);
    for (const [i, c] of [
      [1, 2],
      [3, 4],
    ].entries()) {
      const p = parameter(
        device,
        [
          [1, -2],
          [0.5, 3],
        ][i]!,
      );
      const rate = (s: number): number => lr(s) * [1, 16][i]!;
      const one = make([p], { lr: rate });
      for (let s = 0; s < 3; s++) one.step(quadratic(device, p, c));
      assert.deepEqual(await p.data(), await [a, b][i]!.data());
    }
    assert.throws(() => make([a], { lr: 1, lrFactor: () => -1 }), {
      message: /lrFactor of a is -1; give a finite number/,
    });
  }
});

test("SGD with momentum and weight decay takes PyTorch's steps", async () => {
  const device = reference();
  const expected = [1, -2];
  const p = parameter(device, expected);
  const opt = optim.sgd([p], { lr: 0.05, momentum: 0.9, weightDecay: 0.1 });
  const velocity = [0, 0];
  for (let step = 0; step < 8; step++) {
    opt.step(quadratic(device, p, [1, 2]));
    expected.forEach((x, i) => {
      velocity[i] = 0.9 * velocity[i]! + 2 * [1, 2][i]! * x + 0.1 * x;
      expected[i] = x - 0.05 * velocity[i];
    });
    close(await p.data(), expected, 2e-6);
  }
});

test("a masked element keeps its value exactly, under weight decay and momentum that was there before", async () => {
  const values = fc.array(fc.float({ min: -2, max: 2, noNaN: true }), { minLength: 4, maxLength: 4 });
  const bits = fc.array(fc.boolean(), { minLength: 4, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(values, bits, fc.constantFrom("adamW", "sgd"), async (start, mask, kind) => {
      const device = reference();
      const p = parameter(device, start);
      const options = { lr: 0.1, weightDecay: 0.1 };
      const opt =
        kind === "adamW" ? optim.adamW([p], options) : optim.sgd([p], { ...options, momentum: 0.9 });
      opt.step(quadratic(device, p, [1, 2, 3, 4])); // fills the momentum of every element
      const before = await p.data();
      p.updateMask = device.tensor(mask.map(Number));
      for (let i = 0; i < 3; i++) opt.step(quadratic(device, p, [1, 2, 3, 4]));
      const after = await p.data();
      mask.forEach((trained, i) => {
        if (!trained) assert.equal(after[i], before[i]);
        else if (Math.abs(before[i]!) > 1e-3) assert.notEqual(after[i], before[i]);
      });
    }),
    { numRuns: 30 },
  );
});

test("a frozen parameter never moves, not even under weight decay, and moves again when unfrozen", async () => {
  const device = reference();
  const [a, b] = [parameter(device, [1, 2], "a"), parameter(device, [3, 4], "b")];
  const opt = optim.adamW([a, b], { lr: 0.1, weightDecay: 0.5 });
  const loss = (): Tensor => a.mul(b).sum();
  opt.step(loss());
  const before = await b.data();
  b.requiresGrad = false;
  opt.step(loss());
  opt.step(loss());
  assert.deepEqual(await b.data(), before);
  b.requiresGrad = true;
  opt.step(loss());
  assert.notDeepEqual(await b.data(), before);
});

test("gradients that were computed elsewhere take the same step, bit for bit", async () => {
  const ends: number[][] = [];
  for (const given of [false, true]) {
    const device = reference();
    const [p, q, unused] = [[0.3, -2], [1.5], [4]].map((values) => parameter(device, values));
    const all = [p!, q!, unused!];
    const opt = optim.adamW(all, { lr: 0.1, clipNorm: 0.5 });
    const loss = (c: number): Tensor => quadratic(device, p!, [1, c]).add(p!.sum().mul(q!).sum());
    const gradients = (c: number): optim.Gradients => {
      const found = gradOrNull(loss(c), all);
      return new Map(all.flatMap((one, i) => (found[i] ? [[one, found[i]] as const] : [])));
    };
    for (let step = 0; step < 3; step++) {
      opt.accumulate(given ? gradients(3) : loss(3));
      opt.step(given ? gradients(-1) : loss(-1));
      opt.step(given ? gradients(step) : loss(step));
    }
    const norm = await opt.gradNorm!.item();
    ends.push([norm, ...(await Promise.all(all.map(async (one) => [...(await one.data())]))).flat()]);
    device.close();
  }
  assert.deepEqual(ends[1], ends[0]);
});

test("given gradients of no trained parameter, or of another shape, are refused by name", () => {
  const device = reference();
  const [p, q] = [parameter(device, [1, 2], "p"), parameter(device, [1], "q")];
  const opt = optim.sgd([p], { lr: 0.1 });
  assert.throws(() => opt.step(new Map([[q, q]])), /no gradient was given of any parameter/);
  assert.throws(() => opt.accumulate(new Map([[p, q]])), /the gradient of p is \[1\] f32; need \[2\] f32/);
  assert.equal(opt.stepCount, 0);
});

test("accumulated gradients are those of the sum of the losses", async () => {
  const run = async (parts: number): Promise<ArrayLike<number>> => {
    const device = reference();
    const p = parameter(device, [0.5, -1, 2]);
    const opt = optim.adamW([p], { lr: 0.01 });
    for (let step = 0; step < 3; step++) {
      const losses = Array.from({ length: 4 }, (_, i) => () => quadratic(device, p, [i, 1, step]));
      if (parts === 1) opt.step(losses.map((f) => f()).reduce((x, y) => x.add(y)));
      else {
        for (const f of losses) opt.accumulate(f());
        opt.step();
      }
    }
    return p.data();
  };
  close(await run(4), await run(1), 1e-6);
});

test("clipping bounds the joint norm and reports it", async () => {
  const device = reference();
  for (const dtype of ["f32", "f64"] as const) {
    const [a, b] = [nn.Parameter.from(device, [3], [1], dtype), nn.Parameter.from(device, [4], [1], dtype)];
    const opt = optim.sgd([a, b], { lr: 1, clipNorm: 0.5 });
    opt.step(a.square().add(b.square()).sum().mul(0.5)); // gradients 3 and 4: norm 5
    close([await opt.gradNorm!.item()], [5], 1e-6);
    close([...(await a.data()), ...(await b.data())], [3 - 0.3, 4 - 0.4], 1e-5);
  }
});

test("the norm is of what is trained: masked elements neither count nor shorten the step of others", async () => {
  const device = reference();
  const run = async (mask: number[] | null): Promise<{ norm: number; values: number[] }> => {
    const p = parameter(device, [3, 100, 4]);
    if (mask) p.updateMask = device.tensor(mask);
    const opt = optim.sgd([p], { lr: 1, clipNorm: 0.5 });
    opt.accumulate(p.square().sum().mul(0.25));
    opt.step(p.square().sum().mul(0.25)); // together the gradient p
    return { norm: await opt.gradNorm!.item(), values: [...(await p.data())] };
  };
  const masked = await run([1, 0, 1]);
  close([masked.norm], [5], 1e-6);
  close(masked.values, [3 - 0.3, 100, 4 - 0.4], 1e-5);
  close([(await run(null)).norm], [Math.hypot(3, 100, 4)], 1e-6);
  assert.deepEqual(await run([0, 0, 0]), { norm: 0, values: [3, 100, 4] });
});

test("a masked gradient that is not finite harms nothing", async () => {
  const device = reference();
  const p = parameter(device, [0, 4]);
  p.updateMask = device.tensor([0, 1]);
  const opt = optim.adamW([p], { lr: 0.1, clipNorm: 1 });
  opt.step(p.sqrt().sum()); // the derivative of √x at 0 is infinite
  close([await opt.gradNorm!.item()], [0.25], 1e-6);
  const [first, second] = await p.data();
  assert.ok(first === 0 && second! < 4);
});

test("numbers that an optimizer cannot use are refused where they are given, and a schedule's where it gives them", () => {
  const device = reference();
  const p = parameter(device, [1]);
  const options = (o: object): never => o as never; // what the compiler would refuse
  assert.throws(() => optim.sgd([p], options({})), /SGD: lr is undefined; give a finite number.*schedule/);
  for (const lr of [Number.NaN, -1, Infinity, "0.1", null])
    assert.throws(() => optim.adamW([p], options({ lr })), /AdamW: lr is /);
  for (const clipNorm of [Number.NaN, -1, 0])
    assert.throws(() => optim.adamW([p], options({ lr: 1, clipNorm })), /AdamW: clipNorm is /);
  optim.adamW([p], { lr: 1, clipNorm: Infinity }); // measures, and clips nothing
  const bad = [{ weightDecay: Number.NaN }, { betas: [0.9, 1] }, { betas: [-1, 0] }, { eps: -1 }];
  for (const o of bad)
    assert.throws(() => optim.adamW([p], options({ lr: 1, ...o })), /AdamW: .* is .*; give/);
  for (const o of [{ momentum: Number.NaN }, { weightDecay: -1 }])
    assert.throws(() => optim.sgd([p], options({ lr: 1, ...o })), /SGD: .* is .*; give/);
  const opt = optim.sgd([p], { lr: (step) => (step === 0 ? 0.1 : Number.NaN) });
  opt.step(p.sum());
  assert.throws(() => opt.step(p.sum()), /lr of step 1 is NaN; give/);
  const decay = optim.adamW([p], { lr: 1, weightDecay: () => Number.NaN });
  assert.throws(() => decay.step(p.sum()), /AdamW: weightDecay of w is NaN/);
});

test("a resumed optimizer continues exactly", async () => {
  const device = reference();
  const run = async (p: nn.Parameter, opt: optim.Optimizer, steps: number): Promise<void> => {
    for (let i = 0; i < steps; i++) opt.step(quadratic(device, p, [1, 2]));
    await device.sync();
  };
  const whole = parameter(device, [1, -1]);
  await run(whole, optim.adamW([whole], { lr: 0.1 }), 6);

  const first = parameter(device, [1, -1]);
  const opt = optim.adamW([first], { lr: 0.1 });
  await run(first, opt, 3);
  const second = parameter(device, [...(await first.data())]);
  const resumed = optim.adamW([second], { lr: 0.1 });
  resumed.load(await opt.state());
  await run(second, resumed, 3);
  assert.deepEqual(await second.data(), await whole.data());
});

test("schedules: warm-up reaches the rate, decays reach their end", () => {
  const constant = optim.constant(0.1, { warmup: 4 });
  assert.deepEqual([0, 1, 2, 3, 4, 99].map(constant), [0.025, 0.05, 0.1 * 0.75, 0.1, 0.1, 0.1]);
  for (const make of [optim.linear, optim.cosine]) {
    const schedule = make(0.1, { warmup: 2, steps: 10, end: 0.01 });
    const rates = Array.from({ length: 12 }, (_, step) => schedule(step));
    assert.equal(rates[1], 0.1);
    assert.ok(Math.abs(rates[6]! - 0.055) < 1e-12, "half way it is half way");
    assert.ok(Math.abs(rates[10]! - 0.01) < 1e-12 && rates[11] === rates[10]);
    for (let i = 2; i < 10; i++) assert.ok(rates[i + 1]! < rates[i]!);
  }
  assert.throws(() => optim.linear(0.1, { warmup: 20, steps: 10 }), /steps must be at least warmup/);
});

test("tied weights receive the sum of their gradients and are one parameter", async () => {
  const device = reference();
  class Twice extends nn.Module {
    first = new nn.Linear(nn.Parameter.from(device, [1, 2, 3, 4], [2, 2]));
    second = this.first;
    third = new nn.Linear(this.first.weight);
  }
  const model = new Twice();
  assert.equal(model.parameters().length, 1);
  assert.deepEqual([...model.stateDict().keys()], ["first.weight"]);
  assert.deepEqual(Object.fromEntries(model.aliases()), {
    "second.weight": "first.weight",
    "third.weight": "first.weight",
  });
  const x = device.tensor([[1, -1]]);
  const y = (layers: nn.Linear[]): Tensor =>
    layers
      .reduce((h, layer) => layer.forward(h), x)
      .square()
      .sum();
  const [tied] = grad(y([model.first, model.second, model.third]), [model.first.weight]);
  const untied = [0, 1, 2].map(() => new nn.Linear(nn.Parameter.from(device, [1, 2, 3, 4], [2, 2])));
  const parts = grad(
    y(untied),
    untied.map((layer) => layer.weight),
  );
  close(await tied!.data(), await parts.reduce((a, b) => a.add(b)).data(), 1e-6);
});

test("a layer's parameters are named by their path once they are asked for, unless they have a name", async () => {
  const device = reference();
  const mlp = nn.MLP.init(2, 2, { device, key: key(1) });
  mlp.down.bias!.name = "the output's shift";
  assert.deepEqual(
    mlp.parameters().map(({ name }) => name),
    ["up.weight", "up.bias", "down.weight", "the output's shift"],
  );
  const y = mlp.forward(device.tensor([[1, 2]]));
  mlp.up.weight.set([1, 2, 3, 4]);
  await assert.rejects(y.data(), /^Error: up\.weight has been updated since a tensor was built on its value/);
});

test("no parameters, or none left to train, is an error that says so", () => {
  const device = reference();
  assert.throws(() => optim.adamW([], { lr: 1 }), /no parameters/);
  const p = parameter(device, [1]);
  p.requiresGrad = false;
  assert.throws(() => optim.adamW([p], { lr: 1 }).step(p.sum()), /every parameter is frozen/);
});

test("a loss that depends on none of the parameters is an error, not a step that trains nothing", async () => {
  const device = reference();
  const [p, q] = [parameter(device, [1, 2]), parameter(device, [3])];
  const optimizer = optim.adamW([p], { lr: 0.1, weightDecay: 0.5 });
  const none = /the loss depends on none of its 1 trained parameters/;
  assert.throws(() => optimizer.step(q.square().sum()), none);
  assert.throws(() => optimizer.step(p.detach().sum()), none);
  assert.throws(() => optimizer.accumulate(device.tensor(1)), none);
  assert.equal(optimizer.stepCount, 0);
  assert.deepEqual([...(await p.data())], [1, 2]);
  const both = optim.sgd([p, q], { lr: 1 });
  both.step(q.sum()); // one of two is enough: the other stays
  assert.deepEqual([...(await p.data()), ...(await q.data())], [1, 2, 2]);
  assert.deepEqual(
    gradOrNull(q.sum(), [p, q]).map((g) => g === null),
    [true, false],
  );
});
