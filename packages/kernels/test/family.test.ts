/** Plans that are made of others: numbers as polynomials, and the comparisons that say where they hold. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Families } from "../src/families.ts";
import { divides, less, quotient } from "../src/family.ts";

interface Toy {
  readonly steps: readonly { readonly length: number; readonly bytes: number; readonly op: string }[];
  readonly scale: number;
}

/** A planner with decisions: rows of 8 at lengths above 20, other names at even lengths. */
function toy(n: number): Toy {
  const long = less(20, n);
  const step = { length: long ? 8 * n : n, bytes: 4 * n * n + 3, op: divides(2, n) ? "even" : "odd" };
  return { steps: [step, { length: 7, bytes: 28, op: "fixed" }], scale: Math.fround(1 / n) };
}

const key = (n: number) => ({
  hash: 5,
  structure: Int32Array.of(1, 2),
  sizes: [n, 7, 1 / n],
});

test("four plans with squares make a family, and plans of it are those that planning gives", () => {
  const families = new Families<Toy>();
  const made: number[] = [];
  for (const n of [9, 15, 11, 13, 17, 19, 3, 21, 12, 7, 1, 5]) {
    const before = families.counts.made;
    assert.deepEqual(families.plan(key(n), () => toy(n), () => true), toy(n), `length ${n}`); // prettier-ignore
    if (families.counts.made > before) made.push(n);
  }
  // 21 is long, 12 is even, axes of length 1 are treated apart; 7 coincides with a size that it is not compared with
  assert.deepEqual(made, [17, 19, 3, 7, 5]);
});

test("three plans make a family if the third is on the line of the other two", () => {
  const planned = (bytesOf: (n: number) => number): number => {
    const families = new Families<{ readonly bytes: number }>();
    for (const n of [9, 15, 11, 13, 17, 19])
      assert.deepEqual(families.plan(key(n), () => ({ bytes: bytesOf(n) }), () => true), { bytes: bytesOf(n) }); // prettier-ignore
    return families.counts.planned;
  };
  assert.equal(
    planned((n) => 4 * n + 3),
    3,
  );
  assert.equal(
    planned((n) => n * n),
    4,
    "a fourth has to confirm squares",
  );
  assert.equal(
    planned((n) => 4 * n + (n === 11 ? 4 : 3)),
    6,
    "11, 13, 17, 19 and 9, 15, 13, 17 are on no line",
  );
});

test("plans with half of a length are made at lengths of the same parity alone", () => {
  const families = new Families<{ readonly bytes: number; readonly half: number }>();
  const keyOf = (n: number) => ({ ...key(n), sizes: [n, Math.ceil(n / 2)] });
  const plan = (n: number) => ({ bytes: 4 * Math.ceil(n / 2), half: Math.ceil(n / 2) });
  for (const n of [8, 12, 16, 20, 15, 18, 11]) {
    assert.deepEqual(families.plan(keyOf(n), () => plan(n), () => true), plan(n), `length ${n}`); // prettier-ignore
  }
  assert.deepEqual(families.counts, { planned: 6, made: 1 });
});

test("a plan that the caller refuses is planned", () => {
  const families = new Families<Toy>();
  for (const n of [9, 15, 11, 13, 17]) families.plan(key(n), () => toy(n), () => false); // prettier-ignore
  assert.deepEqual(families.counts, { planned: 5, made: 0 });
});

test("numbers that are no polynomials make no family", () => {
  const families = new Families<{ root: number }>();
  for (const n of [9, 16, 25, 36, 49, 64]) families.plan(key(n), () => ({ root: Math.floor(Math.sqrt(n)) }), () => true); // prettier-ignore
  assert.equal(families.counts.made, 0);
});

test("a rest that varies is another path", () => {
  const families = new Families<{ thirds: number }>();
  const plan = (n: number) => ({ thirds: quotient(3, n) });
  for (const n of [9, 15, 18, 12, 21, 10, 11, 24]) {
    assert.deepEqual(families.plan(key(n), () => plan(n), () => true), plan(n), `length ${n}`); // prettier-ignore
  }
  assert.deepEqual(families.counts, { planned: 5, made: 3 });
});

test("structures of one hash are told apart", () => {
  const families = new Families<Toy>();
  for (const n of [9, 15, 11, 13]) families.plan(key(n), () => toy(n), () => true); // prettier-ignore
  families.plan({ ...key(17), structure: Int32Array.of(1, 3) }, () => toy(17), () => true); // prettier-ignore
  assert.equal(families.counts.planned, 5);
});

test("beyond a limit of memory, the structures used longest ago are forgotten", () => {
  const families = new Families<Toy>();
  const plan = (structure: number, n: number) => {
    const of = { ...key(n), hash: structure, structure: new Int32Array(2 ** 16).fill(structure) };
    const before = families.counts.made;
    families.plan(of, () => toy(n), () => true); // prettier-ignore
    return families.counts.made > before;
  };
  const structures = [1, 2, 3, 4, 5, 6, 7];
  for (const structure of structures) for (const n of [9, 15, 11, 13]) plan(structure, n);
  assert.deepEqual(structures.toReversed().map((structure) => plan(structure, 17)), [true, true, true, false, false, false, false]); // prettier-ignore
});
