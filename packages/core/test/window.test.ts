/** The starts of slices that have moved are given at run time: they take one more program, forward and backward. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { arange, concat, Device, grad, operandsOfStep, type Tensor } from "@tiedlora/core";
import fc from "fast-check";
import { parameter, Recorder, recording } from "./support.ts";

const ROWS = 64;

const USES: { readonly [name: string]: (x: Tensor, start: number) => Tensor } = {
  "narrow of rows": (x, start) => x.narrow(0, start, 3),
  "narrow of columns": (x, start) => x.narrow(1, start % 9, 4).mul(2),
  "slice of both, with steps": (x, start) =>
    x.slice([start % 50, (start % 50) + 9, 2], [start % 5, (start % 5) + 7, 3]),
  "a window on a window": (x, start) => x.narrow(0, start, 3).narrow(0, start % 2, 2),
  "under a reshape": (x, start) => x.narrow(0, start, 3).reshape([3, 3, 4]).permute([2, 0, 1]),
  "over a reshape": (x, start) =>
    x
      .mul(2)
      .permute([1, 0])
      .reshape([ROWS * 12])
      .narrow(0, start, 100),
  "over a pad": (x, start) => x.pad([[1, 2], [0, 3]]).narrow(0, start, 3).narrow(1, start % 9, 6), // prettier-ignore
  "over a flip": (x, start) => x.flip([0, 1]).narrow(0, start, 3),
  "under a reduction": (x, start) => x.narrow(0, start, 3).softmax(-1).sum(0),
  "into a product": (x, start) => x.narrow(0, start, 3).matmul(x.narrow(0, start % 50, 12)),
  "of indices": (x, start) => x.take(arange(ROWS).narrow(0, start, 3)),
};

for (const [name, use] of Object.entries(USES)) {
  test(`${name}: 61 starts take two programs, with the values and gradients of fixed slices`, async () => {
    const { device, recorder } = recording();
    const x = parameter(device, [ROWS, 12]);
    for (let start = 0; start <= ROWS - 3; start++) {
      const y = use(x, start);
      const [g] = grad(y.mul(y).sum(), [x]) as [Tensor];
      // a device of its own has never seen another start
      const fresh = parameter(recording().device, [ROWS, 12]);
      const expected = use(fresh, start);
      const [h] = grad(expected.mul(expected).sum(), [fresh]) as [Tensor];
      assert.deepEqual(await y.data(), await expected.data());
      assert.deepEqual(await g.data(), await h.data());
    }
    assert.equal(
      recorder.programs.length,
      4,
      "for values and for gradients, one for the first start and one for all",
    );
  });
}

test("windows are where they should be, forward and backward", async () => {
  const { device } = recording({}, new Recorder(5));
  const bounds = fc.tuple(fc.nat({ max: 6 }), fc.nat({ max: 6 }), fc.integer({ min: 1, max: 3 }));
  await fc.assert(
    fc.asyncProperty(bounds, bounds, async (rows, columns) => {
      const [a, b] = [rows, columns].map(
        ([p, q, step]) => [Math.min(p, q), Math.max(p, q) + 1, step] as const,
      );
      const x = parameter(device, [7, 7]);
      const y = x.slice([...a!], [...b!]);
      const inside = ([from, to, step]: readonly [number, number, number], i: number): boolean =>
        i >= from && i < to && (i - from) % step === 0;
      const values = await x.data();
      const chosen = [...values.keys()].filter((i) => inside(a!, Math.floor(i / 7)) && inside(b!, i % 7));
      assert.deepEqual(
        [...(await y.data())],
        chosen.map((i) => values[i]!),
      );
      const [g] = grad(y.mul(3).sum(), [x]) as [Tensor];
      const expected = [...values.keys()].map((i) => (chosen.includes(i) ? 3 : 0));
      assert.deepEqual([...(await g.data())], expected);
    }),
    { numRuns: 60 },
  );
});

test("two windows that move apart, and an update through one", async () => {
  const device = new Device(new Recorder());
  const x = parameter(device, [10, 4]);
  for (let start = 0; start < 7; start++) {
    const loss = x.narrow(0, start, 2).mul(x.narrow(0, start + 1, 2)).sum(); // prettier-ignore
    const [g] = grad(loss, [x]) as [Tensor];
    const values = await x.data();
    const at = (row: number, column: number): number => values[row * 4 + column]!;
    const expected = Array.from({ length: 40 }, (_, i) => {
      const [row, column] = [Math.floor(i / 4), i % 4];
      const first = row >= start && row < start + 2 ? at(row + 1, column) : 0;
      const second = row >= start + 1 && row < start + 3 ? at(row - 1, column) : 0;
      return first + second;
    });
    (await g.data()).forEach((value, i) => assert.ok(Math.abs(value - expected[i]!) < 1e-6));
  }
});

/** How many kernels `build` takes for the first start, and for any. */
async function kernels(build: (x: Tensor, start: number) => Tensor): Promise<[first: number, any: number]> {
  const { device, recorder } = recording();
  const x = parameter(device, [ROWS, 12]);
  for (const start of [3, 5, 8]) await build(x, start).data();
  const [first, any, ...others] = recorder.programs.map(({ steps }) => steps.length);
  assert.equal(others.length, 0);
  return [first!, any!];
}

test("a window is read where it is, by products too; what does not move is not affected", async () => {
  assert.deepEqual(await kernels((x, start) => x.narrow(0, start, 3).mul(2)), [1, 1]);
  assert.deepEqual(
    await kernels((x, start) => x.narrow(0, start, 12).matmul(x.narrow(0, start + 1, 12))),
    [1, 1],
  );
  assert.deepEqual(await kernels((x, start) => x.take(arange(ROWS).narrow(0, start, 3))), [2, 2]);
  const gradient = (x: Tensor, start: number): Tensor => grad(x.narrow(0, start, 3).sum(), [x])[0]!;
  assert.deepEqual(await kernels(gradient), [1, 2], "zeros first, where the window may be anywhere");
  const fixed = (x: Tensor, start: number): Tensor => concat([x.narrow(0, start, 3), x.narrow(0, 7, 2)]);
  assert.deepEqual(await kernels(fixed), [1, 1]);
});

test("a number that has never varied stays part of the program", async () => {
  const { device, recorder } = recording();
  const x = parameter(device, [ROWS, 12]);
  for (let start = 0; start < 9; start++) {
    const y = x.narrow(0, start, 3).narrow(1, 5, 2);
    assert.deepEqual((await y.data())[0], (await x.data())[12 * start + 5]);
  }
  const moving = recorder.last.steps
    .flatMap((step) => operandsOfStep(step).reads)
    .flatMap(({ view }) => view.moving ?? []);
  assert.deepEqual(moving, [{ slot: 0, factor: 12 }]);
});
