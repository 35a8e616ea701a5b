/** Fifty steps of each optimizer against its published recurrence, written out in float64; averages of weights; resuming. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, grad, reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

const STEPS = 50;
const [ROWS, COLUMNS] = [2, 3];
const START = [0.5, -1, 2, 1.5, 0.25, -0.75];
const FACTORS = [1, 2, 3, 0.5, -1, 4];
const LR = 0.02;

/** Σ c p² + sin p, whose gradient is 2 c p + cos p. */
const loss = (device: Device, p: nn.Parameter): Tensor =>
  p.square().mul(device.tensor(FACTORS, { shape: p.shape, dtype: p.dtype })).add(p.sin()).sum(); // prettier-ignore
const gradientOf = (p: readonly number[]): number[] => p.map((x, i) => 2 * FACTORS[i]! * x + Math.cos(x));
const rms = (x: readonly number[]): number => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
const mean = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0) / x.length;
const rowOf = (x: readonly number[], i: number): number[] => x.slice(COLUMNS * i, COLUMNS * (i + 1));
const columnOf = (x: readonly number[], j: number): number[] => x.filter((_, at) => at % COLUMNS === j);

/** Given p and its gradient, the new p of step t, from 1; keeps its own state. */
type Recurrence = (p: readonly number[], g: readonly number[], t: number) => number[];

function lion(): Recurrence {
  const m = START.map(() => 0);
  return (p, g) =>
    p.map((x, i) => {
      const direction = Math.sign(0.9 * m[i]! + 0.1 * g[i]!);
      m[i] = 0.99 * m[i]! + 0.01 * g[i]!;
      return x * (1 - LR * 0.1) - LR * direction;
    });
}

/** As torch.optim.Adafactor. */
function adafactor(shape: readonly number[]): Recurrence {
  const [row, column] = [Array.from({ length: ROWS }, () => 0), Array.from({ length: COLUMNS }, () => 0)];
  const v = START.map(() => 0);
  const e1 = 2 ** -23;
  return (p, g, t) => {
    const fresh = t ** -0.8;
    const squares = g.map((x) => x * x);
    row.forEach((old, i) => (row[i] = old + fresh * (mean(rowOf(squares, i)) - old)));
    column.forEach((old, j) => (column[j] = old + fresh * (mean(columnOf(squares, j)) - old)));
    v.forEach((old, i) => (v[i] = old + fresh * (squares[i]! - old)));
    const estimate = (i: number): number =>
      shape.length === 1
        ? v[i]!
        : (row[Math.floor(i / COLUMNS)]! * column[i % COLUMNS]!) / Math.max(mean(row), e1);
    const update = g.map((x, i) => x / Math.sqrt(Math.max(estimate(i), e1 * e1)));
    const rate = (Math.max(1e-3, rms(p)) * Math.min(LR, 1 / Math.sqrt(t))) / Math.max(1, rms(update));
    return p.map((x, i) => x * (1 - LR * 0.1) - rate * update[i]!);
  };
}

function sm3(shape: readonly number[]): Recurrence {
  const [row, column] = [Array.from({ length: ROWS }, () => 0), Array.from({ length: COLUMNS }, () => 0)];
  const all = START.map(() => 0);
  const m = START.map(() => 0);
  return (p, g) => {
    const seen = (i: number): number =>
      shape.length === 1 ? all[i]! : Math.min(row[Math.floor(i / COLUMNS)]!, column[i % COLUMNS]!);
    const v = g.map((x, i) => seen(i) + x * x);
    row.forEach((_, i) => (row[i] = Math.max(...rowOf(v, i))));
    column.forEach((_, j) => (column[j] = Math.max(...columnOf(v, j))));
    v.forEach((x, i) => (all[i] = x));
    g.forEach((x, i) => (m[i] = 0.9 * m[i]! + (0.1 * x) / Math.sqrt(v[i]!)));
    return p.map((x, i) => x - LR * m[i]!);
  };
}

const times = (a: number[][], b: number[][]): number[][] =>
  a.map((row) => b[0]!.map((_, j) => row.reduce((sum, x, k) => sum + x * b[k]![j]!, 0)));
const turned = (a: number[][]): number[][] => a[0]!.map((_, j) => a.map((row) => row[j]!));

/** As torch.optim.Muon, but in float64, and with AdamW where it is no matrix. */
function muon(shape: readonly number[]): Recurrence {
  const [m, v] = [START.map(() => 0), START.map(() => 0)];
  return (p, g, t) => {
    if (shape.length === 1) {
      g.forEach((x, i) => {
        m[i] = 0.9 * m[i]! + 0.1 * x;
        v[i] = 0.999 * v[i]! + 0.001 * x * x;
      });
      const hat = (i: number): number =>
        m[i]! / (1 - 0.9 ** t) / (Math.sqrt(v[i]! / (1 - 0.999 ** t)) + 1e-8);
      return p.map((x, i) => x * (1 - LR * 0.1) - LR * hat(i));
    }
    g.forEach((x, i) => (m[i] = 0.95 * m[i]! + 0.05 * x));
    const mixed = g.map((x, i) => 0.05 * x + 0.95 * m[i]!);
    const norm = Math.sqrt(mixed.reduce((sum, x) => sum + x * x, 0));
    let x = [0, 1].map((i) => rowOf(mixed, i).map((value) => value / norm));
    for (let step = 0; step < 5; step++) {
      const gram = times(x, turned(x));
      const twice = times(gram, gram);
      const inner = gram.map((row, i) => row.map((value, j) => -4.775 * value + 2.0315 * twice[i]![j]!));
      const more = times(inner, x);
      x = x.map((row, i) => row.map((value, j) => 3.4445 * value + more[i]![j]!));
    }
    const scale = 0.2 * Math.sqrt(COLUMNS);
    return p.map((old, i) => old * (1 - LR * 0.1) - LR * scale * x.flat()[i]!);
  };
}

interface Case {
  readonly name: string;
  readonly make: (p: nn.Parameter) => optim.Optimizer;
  readonly exact: (shape: readonly number[]) => Recurrence;
  /** How far float32 may be off after fifty steps; 1e-5 where steps are smooth in the gradient. */
  readonly tolerance: number;
}

const CASES: readonly Case[] = [
  { name: "Lion", make: (p) => optim.lion([p], { lr: LR, weightDecay: 0.1 }), exact: lion, tolerance: 1e-5 },
  { name: "Adafactor", make: (p) => optim.adafactor([p], { lr: LR, weightDecay: 0.1 }), exact: adafactor, tolerance: 1e-5 }, // prettier-ignore
  { name: "SM3", make: (p) => optim.sm3([p], { lr: LR }), exact: sm3, tolerance: 1e-5 },
  { name: "Muon", make: (p) => optim.muon([p], { lr: LR }), exact: muon, tolerance: 1e-4 },
];

for (const { name, make, exact, tolerance } of CASES) {
  for (const shape of [[ROWS, COLUMNS], [6]]) {
    test(`${name} takes the steps of its recurrence for a ${shape.length === 2 ? "matrix" : "vector"}`, async () => {
      const device = reference();
      const p = nn.Parameter.from(device, START, shape, "f32", "w");
      const optimizer = make(p);
      const next = exact(shape);
      let expected = [...START];
      for (let t = 1; t <= STEPS; t++) {
        optimizer.step(loss(device, p));
        expected = next(expected, gradientOf(expected), t);
      }
      const found = await p.data();
      expected.forEach((x, i) =>
        assert.ok(Math.abs(found[i]! - x) <= tolerance, `${i}: ${found[i]}, not ${x}`),
      );
      assert.ok(expected.some((x, i) => Math.abs(x - START[i]!) > 0.1));
      device.close();
    });
  }

  test(`${name} goes on from its saved state as if it had not stopped`, async () => {
    const ends: number[][] = [];
    for (const stops of [false, true]) {
      const device = reference();
      const p = nn.Parameter.from(device, START, [ROWS, COLUMNS], "f32", "w");
      let optimizer = make(p);
      for (let t = 0; t < 6; t++) {
        if (stops && t === 3) {
          const state = await optimizer.state();
          optimizer = make(p);
          optimizer.load(state);
        }
        optimizer.step(loss(device, p));
      }
      ends.push([...(await p.data())]);
      device.close();
    }
    assert.deepEqual(ends[0], ends[1]);
  });
}

test("apply takes the same step as the loss does", async () => {
  const ends: number[][] = [];
  for (const given of [false, true]) {
    const device = reference();
    const p = nn.Parameter.from(device, START, [6], "f32", "w");
    const optimizer = optim.lion([p], { lr: LR });
    if (given) optimizer.apply(new Map([[p, grad(loss(device, p), [p])[0]!]]));
    else optimizer.step(loss(device, p));
    ends.push([...(await p.data())]);
    device.close();
  }
  assert.deepEqual(ends[0], ends[1]);
});

test("a moving average follows its formula, and swap exchanges it with the weights and back", async () => {
  const device = reference();
  const p = nn.Parameter.from(device, [1, 2], [2], "f32", "w");
  const ema = new optim.EMA([p], { decay: 0.9, warmup: true });
  let expected = [1, 2];
  for (let t = 1; t <= 20; t++) {
    p.set([t, -t]);
    ema.update();
    const kept = Math.min(0.9, (1 + t) / (10 + t));
    expected = expected.map((x, i) => kept * x + (1 - kept) * (i === 0 ? t : -t));
  }
  assert.equal(ema.updates, 20);
  const average = [...(await ema.average(p).data())];
  expected.forEach((x, i) => assert.ok(Math.abs(average[i]! - x) < 1e-5));
  ema.swap();
  assert.deepEqual([...(await p.data())], average);
  ema.swap();
  assert.deepEqual([...(await p.data())], [20, -20]);
  const other = nn.Parameter.from(device, [1], [1], "f32", "other");
  assert.throws(() => ema.average(other), /is not averaged/);
  device.close();
});
