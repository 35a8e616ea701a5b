/** A part of a value is replaced: in place where it is an update's own memory that nothing else reads, and otherwise in a copy. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { assign, grad, type Parameter, realize, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { operandsOfStep, type Program } from "@tiedlora/core";
import { parameter, Recorder, recording } from "./support.ts";

const ROWS = 7;

/** The elements that a program's steps store. */
const stored = ({ steps }: Program): number =>
  steps.reduce((sum, step) => {
    const points = step.type === "loop" ? [...step.outer, ...step.inner].reduce((a, b) => a * b, 1) : NaN;
    return sum + points * operandsOfStep(step).writes.length;
  }, 0);

/** `x` with `values` [n, columns] from a row on, by plain loops. */
function replaced(x: Float32Array, start: number, values: Float32Array, columns: number): Float32Array {
  const result = x.slice();
  result.set(values, start * columns);
  return result;
}

const floats = async (x: Tensor): Promise<Float32Array> => (await x.data()) as Float32Array;

test("an update of a parameter's own rows is one program for all starts, which stores these rows alone", async () => {
  const { device, recorder } = recording();
  const x = parameter(device, [ROWS, 3]);
  let expected = await floats(x.mul(1));
  const before = recorder.programs.length;
  for (const start of [0, 5, 2, 5]) {
    const row = device.tensor(new Float32Array([start, 1, -start]), { shape: [1, 3] });
    const next = nn.sliceScatter(x, 0, start, row.mul(2));
    const sum = next.sum(0);
    assign([[x, next]], [sum]);
    expected = replaced(expected, start, new Float32Array([2 * start, 2, -2 * start]), 3);
    assert.deepEqual(await floats(x.add(0)), expected);
    const sums = [0, 1, 2].map((j) => [...expected.keys()].reduce((s, i) => (i % 3 === j ? s + expected[i]! : s), 0)); // prettier-ignore
    (await floats(sum)).forEach((value, j) => assert.ok(Math.abs(value - sums[j]!) < 1e-5));
  }
  const programs = recorder.programs.slice(before).filter(({ steps }) => steps.length > 1);
  assert.equal(programs.length, 1);
  assert.equal(programs[0]!.buffers.filter(({ aliasOf }) => aliasOf !== undefined).length, 1, "in place");
  assert.equal(stored(programs[0]!), 3 + 3 * ROWS, "a row, and the sums over it that the fold visits");
});

test("a tensor that was built on the old rows is refused, unless it was computed", async () => {
  const { device } = recording();
  const x = parameter(device, [ROWS, 3], "the cache");
  const [computed, pending] = [x.mul(2), x.mul(3)];
  realize(computed);
  const old = await floats(x.mul(1));
  assign([[x, nn.sliceScatter(x, 0, 1, device.tensor(new Float32Array(3), { shape: [1, 3] }))]]);
  assert.deepEqual(
    await floats(computed),
    old.map((value) => 2 * value),
  );
  await assert.rejects(() => pending.data(), /the cache has been updated/);
});

/** Programs in which the old value is needed after all, and what they give from the old and the new rows. */
const OTHER_USES: {
  readonly [name: string]: (
    x: Parameter,
    next: Tensor,
  ) => { assigned: [Parameter, Tensor][]; also: Tensor[] };
} = {
  "the old value is read": (x, next) => ({ assigned: [[x, next]], also: [x.mul(next)] }),
  "the new value is a result": (x, next) => ({ assigned: [[x, next]], also: [next] }),
  "the old value is a result": (x, next) => ({ assigned: [[x, next]], also: [x.reshape([3, ROWS])] }),
  "the new value is changed again": (x, next) => ({ assigned: [[x, next.add(1)]], also: [] }),
  "nothing is updated": (_, next) => ({ assigned: [], also: [next] }),
};

for (const [name, use] of Object.entries(OTHER_USES)) {
  test(`${name}: values are those of a copy`, async () => {
    const run = async (
      write: (x: Tensor, start: number, rows: Tensor) => Tensor,
    ): Promise<Float32Array[]> => {
      const { device } = recording();
      const x = parameter(device, [ROWS, 3]);
      const results: Float32Array[] = [];
      for (const start of [2, 4]) {
        const rows = x.narrow(0, start - 1, 2).mul(4); // exact, in whatever kernel
        const { assigned, also } = use(x, write(x, start, rows));
        assign(assigned, also);
        for (const y of [...also, x.mul(1)]) results.push(await floats(y));
      }
      return results;
    };
    const joined = (x: Tensor, start: number, rows: Tensor): Tensor => {
      const row = device0(rows).reshape([ROWS, 1]);
      const inside = row.ge(start).and(row.lt(start + 2));
      return rows.pad([[start, ROWS - start - 2], [0, 0]]).mul(inside.cast("f32")).add(x.mul(inside.cast("f32").mul(-1).add(1))); // prettier-ignore
    };
    const device0 = (like: Tensor): Tensor => like.device!.tensor(Int32Array.from({ length: ROWS }, (_, i) => i)); // prettier-ignore
    assert.deepEqual(await run((x, start, rows) => nn.sliceScatter(x, 0, start, rows)), await run(joined));
  });
}

test("two updates may exchange rows, and one value may update two parameters", async () => {
  const { device } = recording({}, new Recorder(6));
  const [a, b] = [parameter(device, [ROWS, 2], "a"), parameter(device, [ROWS, 2], "b")];
  const [x, y] = [await floats(a.mul(1)), await floats(b.mul(3))];
  b.set(y);
  assign([
    [a, nn.sliceScatter(a, 0, 1, b.narrow(0, 3, 2))],
    [b, nn.sliceScatter(b, 0, 4, a.narrow(0, 0, 1))],
  ]);
  const [a1, b1] = [replaced(x, 1, y.slice(6, 10), 2), replaced(y, 4, x.slice(0, 2), 2)];
  assert.deepEqual(await floats(a.mul(1)), a1);
  assert.deepEqual(await floats(b.mul(1)), b1);
  const next = nn.sliceScatter(a, 0, 6, b.narrow(0, 0, 1));
  assign([[b, next], [a, next]]); // prettier-ignore
  const both = replaced(a1, 6, b1.slice(0, 2), 2);
  assert.deepEqual(await floats(a.mul(1)), both);
  assert.deepEqual(await floats(b.mul(1)), both);
});

test("the gradient is that of the values where they are, and of the rest elsewhere", async () => {
  const { device } = recording();
  const x = parameter(device, [ROWS, 3]);
  const values = parameter(device, [ROWS, 1], "values");
  const weights = parameter(device, [ROWS, 3], "weights");
  const [gx, gv] = grad(nn.sliceScatter(x, 1, 1, values).mul(weights).sum(), [x, values]) as [Tensor, Tensor];
  const w = await floats(weights.mul(1));
  assert.deepEqual(await floats(gx), w.map((value, i) => (i % 3 === 1 ? 0 : value))); // prettier-ignore
  assert.deepEqual(await floats(gv), w.filter((_, i) => i % 3 === 1)); // prettier-ignore
});

test("wrong values, starts and types are refused", () => {
  const { device } = recording();
  const x = parameter(device, [ROWS, 3]);
  const rows = parameter(device, [2, 3]);
  assert.throws(() => nn.sliceScatter(x, 0, 6, rows), /sliceScatter: start: 6 is no whole number in 0 … 5/);
  assert.throws(() => nn.sliceScatter(x, 1, 0, rows), /values \[2, 3\] for \[7, 3\]; need \[7, 3\]/);
  assert.throws(() => nn.sliceScatter(x, 2, 0, rows), /axis: 2 is no whole number/);
  assert.throws(() => nn.sliceScatter(x, 0, 0, rows.cast("i32")), /values i32 for f32/);
});
