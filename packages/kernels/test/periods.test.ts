/** Repeats in lists of operations, and where they are cut. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cutsOf, type Operations, repeatsOf } from "@tiedlora/kernels/periods";
import fc from "fast-check";

const body = (n: number, seed: number): number[] => Array.from({ length: n }, (_, i) => Math.imul(i + 1, 0x9e3779b1) ^ seed); // prettier-ignore
const times = (count: number, codes: readonly number[]): number[] =>
  Array.from({ length: count }, () => codes).flat();

test("a loop between other operations is found with its period and its number of iterations", () => {
  const sizes = fc.record({
    period: fc.integer({ min: 1, max: 90 }),
    count: fc.integer({ min: 64, max: 150 }),
  });
  const irregular = fc.array(fc.integer({ min: 1 << 20 }), { maxLength: 300 });
  fc.assert(
    fc.property(sizes, irregular, irregular, ({ period, count }, before, after) => {
      const loop = times(count, body(period, 7));
      const found = repeatsOf(Int32Array.from([...before, ...loop, ...after]));
      const own = found.find(({ from }) => from >= before.length && from < before.length + period);
      assert.ok(own, `${JSON.stringify(found)} has nothing at ${before.length}`);
      assert.equal(own.period, period);
      assert.ok(
        own.count >= count - 1 && own.count <= count + after.length / period,
        `${own.count} of ${count}`,
      );
    }),
    { numRuns: 100 },
  );
});

test("two loops with the same operations are found apart, and one with a different iteration in its middle on both sides of it", () => {
  const codes = Int32Array.from([...times(70, body(30, 1)), 5, 6, 7, ...times(80, body(30, 1))]);
  assert.deepEqual(
    repeatsOf(codes).map(({ period, count }) => [period, count]),
    [
      [30, 70],
      [30, 80],
    ],
  );
});

test("fewer than 64 iterations are no loop, and neither are operations that never repeat", () => {
  assert.deepEqual(repeatsOf(Int32Array.from(times(63, body(40, 1)))), []);
  assert.deepEqual(repeatsOf(Int32Array.from(body(5000, 1))), []);
});

/** Operations of a loop in which each reads the one before it, and the last ones of an iteration hand on few bytes. */
function loop(count: number, period: number, chained = true): Operations {
  const length = 50 + count * period + 20;
  const inLoop = (at: number): boolean => at >= 50 && at < 50 + count * period;
  return {
    codes: Int32Array.from({ length }, (_, at) => (inLoop(at) ? body(period, 3)[(at - 50) % period]! : 1e6 + (at < 50 ? at : at - count * period))), // prettier-ignore
    lastUses: Int32Array.from({ length }, (_, at) => Math.min(at + 1, length - 1)),
    bytes: Float64Array.from({ length }, (_, at) => (inLoop(at) && (at - 50) % period === 4 ? 8 : 800)),
    inputs: (at) => (at === 0 || (!chained && inLoop(at) && (at - 50) % period === 0) ? [] : [at - 1]),
  };
}

const piecesOf = (count: number): number[] => {
  const cuts = cutsOf(loop(count, 20));
  return cuts.slice(1).map((cut, i) => (cut - cuts[i]!) / 20);
};

test("pieces of the same sizes make up every number of iterations, but for how many there are of each", () => {
  const kinds = [1, 2, 4, 8, 16, 32];
  for (let count = 130; count < 230; count += 3) {
    const pieces = piecesOf(count);
    assert.deepEqual(
      [...new Set(pieces)].sort((a, b) => a - b),
      kinds,
      `${count} iterations: ${pieces.join()}`,
    );
    assert.ok(pieces.reduce((a, b) => a + b) >= count - 4);
  }
});

test("cuts are where the fewest bytes are handed on", () => {
  assert.ok(cutsOf(loop(130, 20)).every((cut) => (cut - 50) % 20 === 5));
});

test("iterations that read nothing of the ones before stay together, such as the updates of many weights", () => {
  assert.deepEqual(cutsOf(loop(130, 20, false)), []);
});
