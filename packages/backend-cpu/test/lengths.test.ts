/** Random programs with two lengths that change, on one device: they give the bits of a new device, and the values of the reference. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  concat,
  type Device,
  grad,
  iota,
  key,
  Parameter,
  reference,
  type Tensor,
  where,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import fc from "fast-check";
import { cpu } from "../src/index.ts";

/** Two lengths, and where windows start. */
interface Sizes {
  readonly l: number;
  readonly m: number;
  readonly start: number;
}
/** The lengths of axes: "l", "m", or numbers. A program's structure follows from these alone. */
type Labels = readonly ("l" | "m" | number)[];
interface Value {
  readonly x: Tensor;
  readonly labels: Labels;
}

const numbers = (n: number, seed: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed)); // prettier-ignore

/** The loss, some values, and gradients of a program that a tape of numbers describes. */
function programOf(device: Device, tape: readonly number[], sizes: Sizes): Tensor[] {
  let at = 0;
  const below = (n: number): number => tape[at++ % tape.length]! % n;
  const shapeOf = (labels: Labels): number[] => labels.map((n) => (typeof n === "number" ? n : sizes[n]));
  const leaf = (labels: Labels): Value => {
    const shape = shapeOf(labels);
    const values = numbers(shape.reduce((a, b) => a * b, 1), pool.length); // prettier-ignore
    return { x: device.tensor(values, { shape }), labels };
  };
  const index = (count: number, rows: number): Tensor =>
    device.tensor(Int32Array.from({ length: count }, (_, i) => (i * 7 + 3) % rows));
  const pool: Value[] = [];
  pool.push(leaf(["l", 6]), leaf(["m", 6]), leaf(["l", 6]), leaf(["m", "l"]), leaf([6]));
  const parameters = [[6, 6], [6, 6]].map((shape, i) => Parameter.from(device, numbers(36, 9 + i), shape)); // prettier-ignore
  const pick = (): Value => pool[pool.length - 1 - below(Math.min(pool.length, 5))]!;
  const wide = (): Value =>
    pool.filter(({ labels }) => labels.length === 2 && labels[1] === 6).at(-1 - below(2))!;
  const MAKERS: readonly (() => Value | null)[] = [
    () => {
      const { x, labels } = pick();
      return {
        x: [x.tanh(), x.sin().exp(), x.silu(), x.abs(), nn.dropout(x, 0.25, key(3))][below(5)]!,
        labels,
      };
    },
    () => {
      const [{ x, labels }, { x: y, labels: others }] = [pick(), pick()];
      if (labels.join() !== others.join()) return null;
      return { x: [x.add(y), x.mul(y), x.maximum(y), where(x.lt(y), x, y)][below(4)]!, labels };
    },
    () => {
      const { x, labels } = pick();
      const axis = below(labels.length);
      return { x: [x.softmax(axis), x.tanh().cumsum(axis), nn.layerNorm(x)][below(3)]!, labels };
    },
    () => {
      const { x, labels } = pick();
      const axis = below(labels.length);
      const y = [x.sum(axis), x.mean(axis), x.max(axis), x.logSumExp(axis)][below(4)]!;
      return labels.length < 2 ? null : { x: y, labels: labels.filter((_, i) => i !== axis) };
    },
    () => {
      const { x, labels } = wide();
      return { x: x.tanh().matmul(parameters[below(2)]!).tanh(), labels };
    },
    () => {
      const { x, labels } = pick();
      return labels.length < 2 ? null : { x: x.transpose(), labels: [...labels.slice(0, -2), labels.at(-1)!, labels.at(-2)!] }; // prettier-ignore
    },
    () => {
      const [{ x, labels }, { x: y, labels: others }] = [wide(), wide()];
      return { x: x.tanh().matmul(y.transpose().sin()).tanh(), labels: [labels[0]!, others[0]!] };
    },
    () => {
      const { x, labels } = wide();
      const [count, rows] = [below(2) === 0 ? "m" : "l", shapeOf(labels)[0]!] as const;
      const taken = x.take(index(sizes[count], rows)); // back to as many rows, which add up
      const back = x.scatterAdd(
        0,
        index(sizes[count], rows).unsqueeze(1).expand([sizes[count], 6]),
        taken.cos(),
      );
      return below(2) === 0 ? { x: taken, labels: [count, 6] } : { x: back, labels };
    },
    () => {
      const { x, labels } = pick();
      const [axis, start] = [below(labels.length), sizes.start];
      const n = shapeOf(labels)[axis]!;
      // as long as before: a window, with what is left behind it, or in front of it
      const [window, rest] = [x.narrow(axis, start % 4, n - 3), x.narrow(axis, (start + 2) % 4, 3)];
      return { x: concat(below(2) ? [window, rest] : [rest, window], axis), labels };
    },
    () => {
      const { x, labels } = wide();
      const other = pool.find((one) => one.labels.join() === labels.join())!.x;
      const heads = [1, 2, 3][below(3)]!;
      const [q, k] = [x, other].map((one) => nn.splitHeads(one.tanh().unsqueeze(0), heads)) as [
        Tensor,
        Tensor,
      ];
      const n = shapeOf(labels)[0]!;
      const bias = below(2) ? { bias: iota([n, n], 1).cast("f32").mul(0.01) } : {};
      return { x: nn.mergeHeads(nn.scaledDotProductAttention(q, k, k, { causal: below(2) === 0, ...bias })).squeeze(0), labels }; // prettier-ignore
    },
    () => {
      const { x, labels } = pick();
      return labels.length < 2 ? null : { x: below(2) ? x.tril(below(2)) : x.flip(0), labels };
    },
  ];
  for (let i = 0; i < 10; i++) {
    const made = MAKERS[below(MAKERS.length)]!();
    if (made) pool.push(made);
  }
  const loss = pool
    .slice(-4)
    .reduce((sum, { x }) => sum.add(x.tanh().mean()), parameters[0]!.mean().mul(0.1));
  const leaves = [...parameters, ...pool.slice(0, 3).map(({ x }) => x)];
  return [loss, pool.at(-1)!.x, pool.at(-3)!.x, ...grad(loss, leaves)];
}

const tapes = fc.noBias(fc.array(fc.nat(5039), { minLength: 30, maxLength: 60, size: "max" }));
/** Some lengths are equal to each other, to widths, or to limits of the planner. */
const anySizes = fc.record({
  l: fc.constantFrom(24, 31, 40, 6, 64, 5, 33, 128, 7),
  m: fc.constantFrom(12, 17, 24, 33),
  start: fc.nat(9),
});

test("random programs at many lengths, with windows that start elsewhere", async () => {
  const run = (device: Device, tape: readonly number[], sizes: Sizes): Promise<ArrayLike<number>[]> =>
    Promise.all(programOf(device, tape, sizes).map((x) => x.data()));
  await fc.assert(
    fc.asyncProperty(tapes, fc.tuple(anySizes, anySizes, anySizes), async (tape, [one, two, three]) => {
      const device = await cpu({ threads: 1 });
      // three on a line of lengths make a family, of which the next two may be
      for (const l of [21, 25, 29]) await run(device, tape, { l, m: 17, start: 0 });
      for (const sizes of [{ ...one, m: 17 }, { ...two, m: 17 }, three]) {
        const what = (k: number): string => `value ${k} at ${JSON.stringify(sizes)}`;
        const [fresh, exact] = [await cpu({ threads: 1 }), reference()];
        const values = await run(device, tape, sizes);
        const again = await run(fresh, tape, sizes);
        const expected = await run(exact, tape, sizes);
        for (const [k, own] of values.entries()) {
          assert.deepEqual(own, again[k], what(k));
          const isNear = (x: number, j: number): boolean => Math.abs(x - own[j]!) < 2e-3 * (1 + Math.abs(x));
          assert.ok(Array.from(expected[k]!).every(isNear), what(k));
        }
        fresh.close();
        exact.close();
      }
      device.close();
    }),
    { numRuns: Number(process.env["PLAN_RUNS"] ?? 1) },
  );
});
