/** Joining many parts, and the gradients of many slices of one tensor: each element is written once, in few kernels. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { assign, type Backend, concat, type Device, explain, grad, stack, type Tensor } from "@tiedlora/core";
import fc from "fast-check";
import { parameter, Recorder, recording } from "./support.ts";

const PART = 16;

/** What the program of `build` costs, with `count` parts. */
function costOf(
  count: number,
  build: (parts: readonly Tensor[], device: Device) => Tensor,
  maxOperands?: number,
): { steps: number; instructions: number; bytes: number } {
  const { device, recorder } = recording({}, new Recorder(maxOperands));
  const parts = Array.from({ length: count }, (_, i) => parameter(device, [PART], `part ${i}`));
  const { steps, bytes } = explain(build(parts, device));
  const instructions = recorder.last.steps.reduce(
    (sum, step) => sum + (step.type === "loop" ? step.body.length + step.stores.length : 0),
    0,
  );
  return { steps: steps.length, instructions, bytes };
}

const JOINS: { readonly [name: string]: (parts: readonly Tensor[]) => Tensor } = {
  concat: (parts) => concat(parts),
  stack: (parts) => stack(parts, 1),
  "concat of what is computed": (parts) => concat(parts.map((part) => part.mul(3).add(1))),
};

for (const [name, join] of Object.entries(JOINS)) {
  test(`${name}: kernels, code and traffic are linear in the number of parts`, () => {
    const [some, many] = [costOf(100, join), costOf(800, join)];
    assert.ok(many.steps <= Math.ceil(800 / 62), `${many.steps} steps`);
    assert.equal(many.bytes, 800 * PART * 4 * 2);
    assert.ok(many.instructions <= 8.1 * some.instructions);
  });
}

test("a device that binds few buffers takes as many kernels as it has to", () => {
  for (const maxOperands of [5, 8, 10]) {
    const { steps, bytes } = costOf(100, (parts) => concat(parts), maxOperands);
    assert.equal(steps, Math.ceil(100 / (maxOperands - 2)));
    assert.equal(bytes, 100 * PART * 4 * 2);
  }
});

/** The gradient of a sum over slices of one tensor, each weighted by its own number. */
function sliced(count: number, length: number, slices: (x: Tensor) => Tensor[]): ReturnType<typeof costOf> {
  return costOf(1, (_, device) => {
    const x = parameter(device, [count, length]);
    const terms = slices(x).map((part, i) => part.mul(i + 2).square().sum()); // prettier-ignore
    return grad(terms.reduce((a, b) => a.add(b)), [x])[0]!; // prettier-ignore
  });
}

test("the gradient of all parts of a split, or of many narrows, is linear too", () => {
  const ways: { readonly [name: string]: (x: Tensor) => Tensor[] } = {
    split: (x) => x.split(1),
    narrow: (x) => Array.from({ length: x.shape[0]! }, (_, i) => x.narrow(0, i, 1)),
    "every other row": (x) => Array.from({ length: x.shape[0]! / 2 }, (_, i) => x.narrow(0, 2 * i, 1)),
    "overlapping windows": (x) => Array.from({ length: x.shape[0]! - 2 }, (_, i) => x.narrow(0, i, 3)),
  };
  for (const [name, way] of Object.entries(ways)) {
    const [some, many] = [sliced(100, 8, way), sliced(400, 8, way)];
    assert.ok(many.steps <= 3 * Math.ceil(400 / 62) + 1, `${name}: ${many.steps} steps`);
    for (const what of ["instructions", "bytes"] as const)
      assert.ok(many[what] <= 4.5 * some[what], `${name}: ${what} ${some[what]} -> ${many[what]}`);
  }
});

const OPERANDS: readonly (number | undefined)[] = [undefined, 5];

test("sums of gradients of any slices are right, to second order", async () => {
  const slice = fc.tuple(fc.nat({ max: 11 }), fc.integer({ min: 1, max: 6 }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(slice, { minLength: 1, maxLength: 30 }),
      fc.constantFrom(0, 1),
      fc.constantFrom(...OPERANDS),
      async (slices, axis, maxOperands) => {
        const backend: Backend = new Recorder(maxOperands);
        const { device } = recording({}, backend as Recorder);
        const x = parameter(device, [12, 12]);
        const parts = slices.map(([start, n]) => [start, Math.min(n, 12 - start)] as const);
        const terms = parts.map(([start, n], i) => x.narrow(axis, start, n).mul(x.narrow(axis, start, n)).mul(i + 1).sum()); // prettier-ignore
        const loss = terms.reduce((a, b) => a.add(b));
        const [first] = grad(loss, [x]) as [Tensor];
        const [second] = grad(first.mul(x).sum(), [x]) as [Tensor];
        const weight = Array.from({ length: 12 }, (_, row) =>
          parts.reduce((sum, [start, n], i) => sum + (row >= start && row < start + n ? i + 1 : 0), 0),
        );
        const values = await x.data();
        const close = (found: ArrayLike<number>, factor: number): void => {
          for (let i = 0; i < values.length; i++) {
            const expected = factor * weight[axis === 0 ? Math.floor(i / 12) : i % 12]! * values[i]!;
            assert.ok(Math.abs(found[i]! - expected) <= 1e-5 * (1 + Math.abs(expected)));
          }
        };
        close(await first.data(), 2);
        close(await second.data(), 4);
      },
    ),
    { numRuns: 60 },
  );
});

test("joining keeps every type, also of parts of different lengths, and may be updated from itself", async () => {
  const { device } = recording();
  const lengths = Array.from({ length: 20 }, (_, i) => i % 4);
  for (const dtype of ["f32", "f16", "bf16", "i32", "u32", "bool"] as const) {
    const parts = lengths.map((n, i) => device.tensor(new Array<number>(n).fill(i % 2 ? i : 0), { dtype }));
    const joined = concat(parts);
    assert.deepEqual(
      [joined.dtype, stack(parts.slice(1, 2)).dtype, concat(parts.slice(0, 3)).dtype],
      [dtype, dtype, dtype],
    ); // few, and many
    const expected = lengths.flatMap((n, i) =>
      new Array<number>(n).fill(i % 2 ? (dtype === "bool" ? 1 : i) : 0),
    );
    assert.deepEqual([...(await joined.cast("f32").data())], expected);
  }
  const p = parameter(device, [12]);
  const before = [...(await p.data())];
  assign([[p, concat(Array.from({ length: 12 }, (_, i) => p.narrow(0, 11 - i, 1)))]], []);
  assert.deepEqual([...(await p.data())], before.toReversed());
});
