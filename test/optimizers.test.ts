/** Optimizers of one's own: state of any shape, kept and resumed, and what is said of a rule that gives something else. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { Adafactor, SM3 } from "./src/suites/optimizers.ts";

const device = reference();
const matrix = (values: readonly number[], dtype: "f32" | "f64" = "f32"): nn.Parameter =>
  nn.Parameter.from(device, values, [2, 3], dtype, "layers.0.weight");
const START = [0.5, -1, 2, 1.5, 0.25, -0.75];
const FACTORS = [1, 2, 3, 0.5, -1, 4];
/** Σ c p², whose gradient is 2 c p. */
const loss = (p: nn.Parameter): Tensor =>
  p
    .square()
    .mul(device.tensor(FACTORS, { shape: [2, 3], dtype: p.dtype }))
    .sum();
const gradientOf = (p: readonly number[]): number[] => p.map((x, i) => 2 * FACTORS[i]! * x);

function close(actual: ArrayLike<number>, expected: readonly number[], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  expected.forEach((x, i) => assert.ok(Math.abs(actual[i]! - x) <= tolerance, `[${i}]: ${actual[i]}, not ${x}`)); // prettier-ignore
}

const mean = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0) / list.length;

test("Adafactor with a row and a column for a matrix takes the steps of its paper", async () => {
  const p = matrix(START);
  const optimizer = new Adafactor([p], { lr: 0.05 });
  const expected = [...START];
  const [row, column] = [
    [0, 0],
    [0, 0, 0],
  ];
  for (let step = 1; step <= 6; step++) {
    optimizer.step(loss(p));
    const g = gradientOf(expected);
    const squares = g.map((x) => x * x + 1e-30);
    const keep = 1 - step ** -0.8;
    for (let i = 0; i < 2; i++) row[i] = keep * row[i]! + (1 - keep) * mean(squares.slice(3 * i, 3 * i + 3));
    for (let j = 0; j < 3; j++)
      column[j] = keep * column[j]! + (1 - keep) * mean([squares[j]!, squares[j + 3]!]);
    g.forEach((x, at) => {
      const v = (row[Math.floor(at / 3)]! * column[at % 3]!) / mean(row);
      expected[at]! -= (0.05 * x) / Math.sqrt(v);
    });
    close(await p.data(), expected, 1e-5);
  }
  const { tensors } = await optimizer.state();
  assert.deepEqual(
    [...tensors].map(([key, { shape }]) => [key, shape]),
    [
      ["row.0", [2]],
      ["column.0", [3]],
    ],
  );
});

test("SM3 with a vector for each axis takes the steps of its paper", async () => {
  const p = matrix(START);
  const optimizer = new SM3([p], { lr: 0.1 });
  const expected = [...START];
  let [rows, columns] = [
    [0, 0],
    [0, 0, 0],
  ];
  for (let step = 0; step < 6; step++) {
    optimizer.step(loss(p));
    const g = gradientOf(expected);
    const v = g.map((x, at) => Math.min(rows[Math.floor(at / 3)]!, columns[at % 3]!) + x * x);
    rows = [0, 1].map((i) => Math.max(...v.slice(3 * i, 3 * i + 3)));
    columns = [0, 1, 2].map((j) => Math.max(v[j]!, v[j + 3]!));
    g.forEach((x, at) => (expected[at]! -= (0.1 * x) / Math.sqrt(v[at]!)));
    close(await p.data(), expected, 1e-5);
  }
});

test("SM3 of a scalar is Adagrad", async () => {
  const p = nn.Parameter.from(device, [2], [], "f64");
  const optimizer = new SM3([p], { lr: 0.1 });
  let [expected, sum] = [2, 0];
  for (let step = 0; step < 4; step++) {
    optimizer.step(p.square());
    const g = 2 * expected;
    sum += g * g;
    expected -= (Math.fround(0.1) * g) / Math.sqrt(sum);
    const found = await p.item();
    assert.ok(Math.abs(found - expected) < 1e-12, `${found} ${expected}`);
  }
});

for (const [name, make] of [
  ["Adafactor", (p: nn.Parameter[]) => new Adafactor(p, { lr: 0.05 })],
  ["SM3", (p: nn.Parameter[]) => new SM3(p, { lr: 0.05 })],
  ["AdamW", (p: nn.Parameter[]) => optim.adamW(p, { lr: 0.05 })],
] as const) {
  test(`a resumed ${name} continues exactly, in f32 and f64`, async () => {
    for (const dtype of ["f32", "f64"] as const) {
      const bias = (): nn.Parameter => nn.Parameter.from(device, [1, -2], [2], dtype, "bias");
      const both = (p: nn.Parameter, b: nn.Parameter): Tensor => loss(p).add(b.square().sum());
      const [whole, b] = [matrix(START, dtype), bias()];
      const straight = make([whole, b]);
      for (let i = 0; i < 6; i++) straight.step(both(whole, b));

      const [first, b1] = [matrix(START, dtype), bias()];
      const before = make([first, b1]);
      for (let i = 0; i < 3; i++) before.step(both(first, b1));
      const [second, b2] = [matrix([...(await first.data())], dtype), bias()];
      b2.set(await b1.data());
      const after = make([second, b2]);
      for (let i = 0; i < 2; i++) after.step(both(second, b2)); // what a used optimizer had is replaced
      second.set(await first.data());
      b2.set(await b1.data());
      after.load(await before.state());
      for (let i = 0; i < 3; i++) after.step(both(second, b2));
      assert.deepEqual(await second.data(), await whole.data());
      assert.deepEqual(await b2.data(), await b.data());
    }
  });
}

test("a state that does not fit is refused, and changes nothing", async () => {
  const p = matrix(START);
  const optimizer = new Adafactor([p], { lr: 0.05 });
  optimizer.step(loss(p));
  const state = await optimizer.state();
  const [row, column] = [state.tensors.get("row.0")!, state.tensors.get("column.0")!];
  const load = (tensors: [string, optim.StateValues][], step = 1): void =>
    optimizer.load({ step, tensors: new Map(tensors) });
  const swapped: [string, optim.StateValues][] = [["row.0", column], ["column.0", row]]; // prettier-ignore
  assert.throws(
    () => load(swapped),
    /Adafactor: state "row\.0" of shape \[3\] with 3 values; expected \[2\] for layers\.0\.weight/,
  );
  assert.throws(() => load([["row.0", row]]), /the state of layers\.0\.weight lacks column; it is not whole/);
  assert.throws(() => load([["row.7", row]]), /expected one of \[row\.0, column\.0\]/);
  assert.throws(() => load([["m.0", row]]), /"m\.0".*expected one of \[row\.0, column\.0\]/);
  assert.throws(
    () => load([["row.0", { shape: [2], values: new Float32Array(3) }], ["column.0", column]]), // prettier-ignore
    /with 3 values; expected \[2\]/,
  );
  assert.throws(() => load([], Number.NaN), /a state at step NaN/);
  assert.deepEqual(await optimizer.state(), state);
  optimizer.accumulate(loss(p));
  await assert.rejects(optimizer.state(), /accumulated gradients are no part of the state/);
});

/** An optimizer whose rule gives what a test says. */
class Given extends optim.Optimizer {
  readonly #give: (p: Tensor, g: Tensor) => unknown;

  constructor(p: nn.Parameter, give: (p: Tensor, g: Tensor) => unknown) {
    super([p], { lr: 1 });
    this.#give = give;
  }
  protected stateShapes(): optim.StateShapes {
    return { m: [2] };
  }
  protected rule(p: Tensor, g: Tensor): optim.Rule {
    return this.#give(p, g) as optim.Rule;
  }
}

test("what a rule gives is checked: optimizer, parameter, what came and what was expected are named", async () => {
  const said = async (give: (p: Tensor, g: Tensor) => unknown, message: RegExp): Promise<void> => {
    const p = matrix(START);
    const optimizer = new Given(p, give);
    assert.throws(() => optimizer.step(loss(p)), message);
    assert.deepEqual([...(await p.data())], START, "nothing was written");
    assert.equal(optimizer.stepCount, 0);
  };
  const m = device.tensor([0, 0]);
  const of = "Given: the rule for layers\\.0\\.weight \\[2, 3\\] gave ";
  await said((p) => ({ value: p.sum(1), state: { m } }), new RegExp(`${of}a value of shape \\[2\\] f32; expected \\[2, 3\\] f32`)); // prettier-ignore
  await said(
    (p) => ({ value: p.reshape([3, 2]), state: { m } }),
    new RegExp(`${of}a value of shape \\[3, 2\\]`),
  );
  await said(
    (p) => ({ value: p.cast("i32"), state: { m } }),
    new RegExp(`${of}a value of shape \\[2, 3\\] i32`),
  );
  await said((p, g) => ({ value: p, state: { m: g } }), new RegExp(`${of}state "m" of shape \\[2, 3\\] f32; expected \\[2\\] f32`)); // prettier-ignore
  await said(
    (p) => ({ value: p, state: {} }),
    new RegExp(`${of}no state "m"; expected a tensor \\[2\\] f32`),
  );
  await said((p) => ({ value: p, state: { m, v: m } }), new RegExp(`${of}state "v", which stateShapes does not name; it names \\[m\\]`)); // prettier-ignore
  await said((p) => Promise.resolve({ value: p, state: { m } }), new RegExp(`${of}no \\{ value: Tensor`));
  await said(() => undefined, new RegExp(`${of}no \\{ value: Tensor`));
  await said((p) => ({ value: 3, state: { m: p } }), new RegExp(`${of}no \\{ value: Tensor`));
  await said((p) => ({ value: p, state: { m: reference().tensor([0, 0]) } }), /two devices/);
});

test("the shapes that a rule names are checked", () => {
  class Odd extends Given {
    protected override stateShapes(): optim.StateShapes {
      return { m: [2, 1.5] };
    }
  }
  const p = matrix(START);
  const odd = new Odd(p, (value) => ({ value, state: {} }));
  assert.throws(() => odd.step(loss(p)), /Odd: state "m" of layers\.0\.weight: \[2, 1\.5\] is no shape/);
});
