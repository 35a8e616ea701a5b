/** The parts of the planner: views, canonical kernels, the order of steps and their memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { contiguousStrides, type LoopKernel, type Operand } from "@tiedlora/kernels";
import { loopKernel } from "@tiedlora/kernels/canonical";
import { assignTemporaries as assigned, sharesViews, valuesOf } from "@tiedlora/kernels/temporaries";
import { runsAfter, schedule as scheduled, type Work } from "@tiedlora/kernels/order";
import { split } from "@tiedlora/kernels/space";
import { type Access, type Affine, identityAccess } from "@tiedlora/kernels/views";
import { linearize, operandAt, regroup, scaled, throughPad } from "@tiedlora/kernels/views";

const dense = (buffer: number, shape: readonly number[]): Operand =>
  operandAt(shape, "f32", identityAccess(shape), buffer);

/** All points of a space, in row-major order. */
function points(extents: readonly number[]): number[][] {
  const [first, ...rest] = extents;
  if (first === undefined) return [[]];
  return Array.from({ length: first }, (_, i) => points(rest).map((point) => [i, ...point])).flat();
}

const at = ({ offset, coeffs }: Affine, point: readonly number[]): number =>
  coeffs.reduce((sum, c, axis) => sum + c * point[axis]!, offset);

const isAccess = (access: unknown): access is Access =>
  typeof access === "object" && access !== null && "index" in access;

test("regrouping axes reaches the same elements", () => {
  for (const [from, to] of [
    [[4, 6], [24]],
    [[24], [4, 6]],
    [
      [2, 3, 4],
      [6, 4],
    ],
    [
      [2, 12],
      [2, 3, 4],
    ],
    [[1, 5, 1], [5]],
  ] as const) {
    const extents = from.length > to.length ? from : to; // as fine as both, so that all is affine
    const units = identityAccess(extents);
    const access = from === extents ? units : regroup(units, extents, from, extents);
    assert.ok(isAccess(access), `${from.join("×")} over ${extents.join("×")}`);
    const seen = regroup(access, from, to, extents);
    assert.ok(isAccess(seen), `${from.join("×")} as ${to.join("×")}`);
    const linear = linearize(seen.index, contiguousStrides(to), extents.length);
    points(extents).forEach((point, i) => assert.equal(at(linear, point), i));
  }
});

test("what moves at run time goes through a regrouping in whole digits", () => {
  const { index, valid } = identityAccess([4, 49]);
  const access = { index: [scaled(index[0]!, 1, 0, [{ slot: 3, factor: 1 }]), index[1]!], valid };
  const flat = regroup(access, [4, 49], [196], [4, 49]);
  assert.ok(isAccess(flat));
  assert.deepEqual(flat.index[0]!.moving, [{ slot: 3, factor: 49 }]);
  const back = regroup(flat, [196], [4, 7, 7], [4, 49]);
  assert.deepEqual(back, { axis: 1, inner: 7 });
  const rows = regroup(flat, [196], [4, 49], [4, 49]);
  assert.ok(isAccess(rows));
  assert.deepEqual(rows.index.map(({ moving }) => moving), [[{ slot: 3, factor: 1 }], []]); // prettier-ignore
  assert.equal(regroup(access, [4, 49], [2, 98], [4, 49]), null, "an odd row may begin anywhere in 98");
});

test("what is not affine says which axis to split, and then is", () => {
  const refused = regroup(identityAccess([6, 4]), [6, 4], [3, 8], [6, 4]);
  assert.deepEqual(refused, { axis: 0, inner: 2 });
  const { extents } = split({ extents: [6, 4], inner: [false, false] }, { axis: 0, inner: 2 });
  assert.deepEqual(extents, [3, 2, 4]);
  const again = regroup(identityAccess(extents), extents, [3, 8], extents);
  assert.ok(isAccess(again), "affine over 3×2×4");
  assert.deepEqual(
    again.index.map(({ coeffs }) => coeffs),
    [
      [1, 0, 0],
      [0, 4, 1],
    ],
  );
});

test("a padding becomes a range of valid points", () => {
  const access = throughPad(identityAccess([5]), [[1, 2]], [2], [5]);
  assert.ok(access, "a padding of one axis is affine");
  assert.deepEqual(operandAt([2], "f32", access, 7), {
    buffer: 7,
    dtype: "f32",
    view: { offset: -1, strides: [1], valid: [[1, 3]] },
  });
});

/** y = x + x over `shape`, through the given views. */
const doubling = (x: Operand, y: Operand, outer: readonly number[] = [4]): LoopKernel => ({
  type: "loop",
  outer,
  inner: [],
  body: [
    { op: "load", from: x, dtype: "f32" },
    { op: "add", a: 0, b: 0, dtype: "f32" },
  ],
  stores: [{ to: y, value: 1 }],
});

test("neighbouring axes are one where every operand walks them as one", () => {
  const space = { extents: [3, 4, 2], inner: [false, false, true] };
  const merged = (x: Operand): LoopKernel => {
    const { body, stores } = doubling(x, dense(1, [3, 4, 2]));
    return loopKernel({ space, body, stores: stores.map((store) => ({ ...store, perRow: false })) });
  };
  const plain = merged(dense(0, [3, 4, 2]));
  assert.deepEqual([plain.outer, plain.inner], [[12], [2]]); // never across what is folded and what is not
  assert.deepEqual(plain.stores[0]!.to.view.strides, [2, 1]);
  const column: Operand = { buffer: 0, dtype: "f32", view: { offset: 0, strides: [0, 2, 1] } };
  assert.deepEqual(merged(column).outer, [3, 4]);
});

const assignTemporaries = (steps: readonly LoopKernel[], bytes: readonly number[], elsewhere: Set<number>) =>
  assigned(steps.map(valuesOf), bytes, elsewhere);

/** The works in order. */
function schedule(works: readonly Work[], bytes: readonly number[], persistent: Set<number>): Work[] {
  const needsOf = ({ needs }: Work): number[] => [...needs].map((need) => works.indexOf(need));
  const all = works.map((one) => ({ needs: needsOf(one), ...valuesOf(one.step) }));
  return scheduled(all, bytes, persistent).map((i) => works[i]!);
}

const work = (step: LoopKernel, ...needs: Work[]): Work => ({
  step,
  needs: new Set(needs),
  rules: new Set(),
});

test("values whose lives do not overlap share memory, and a result may take its operand's", () => {
  const flat = (buffer: number): Operand => dense(buffer, [4]);
  const steps = [0, 1, 2].map((i) => doubling(flat(i), flat(i + 1)));
  const chain = assignTemporaries(steps, [16, 16, 16, 16], new Set([0, 3]));
  assert.equal(chain.bytes.length, 1); // 2 is written over 1
  assert.equal(chain.tempOf[1], chain.tempOf[2]);

  const reversed: Operand = { ...flat(1), view: { offset: 3, strides: [-1] } };
  assert.ok(!sharesViews(doubling(reversed, flat(2)), 1, 2), "read backwards, written forwards");
  const apart = assignTemporaries([steps[0]!, doubling(reversed, flat(2)), steps[2]!], [16, 16, 16, 16], new Set([0, 3])); // prettier-ignore
  assert.deepEqual(apart.bytes, [16, 16]);

  const smaller = assignTemporaries(steps, [16, 32, 16, 8], new Set([0]));
  assert.deepEqual(smaller.bytes, [32, 16]); // not equal, so not in place; but 3 fits where 1 was
  assert.equal(smaller.tempOf[3], smaller.tempOf[1]);
});

test("of equally large free memories a value takes the first", () => {
  const flat = (buffer: number): Operand => dense(buffer, [4]);
  const reversed: Operand = { ...flat(0), view: { offset: 3, strides: [-1] } }; // so that 1 cannot be written over 0
  const reads = [flat(6), reversed, flat(1), flat(6), flat(2), flat(3)];
  const steps = reads.map((from, i) => doubling(from, flat(i)));
  const { bytes, tempOf } = assignTemporaries(steps, [16, 16, 32, 32, 8, 8, 8], new Set([4, 5, 6]));
  assert.deepEqual(bytes, [32, 32]);
  assert.deepEqual([0, 1, 2, 3].map((value) => tempOf[value]), [0, 1, 0, 1]); // prettier-ignore
});

test("steps run after what they need, and what makes much waits until it is asked for", () => {
  const flat = (buffer: number): Operand => dense(buffer, [4]);
  const large = work(doubling(flat(0), flat(1)));
  const first = work(doubling(flat(0), flat(2)));
  const second = work(doubling(flat(2), flat(3)), first);
  const user = work(doubling(flat(1), flat(4)), large, second);
  const bytes = [16, 1024, 16, 16, 16];
  const order = schedule([user, large, second, first], bytes, new Set([0, 4]));
  assert.deepEqual(order, [first, second, large, user]);
  assert.ok(runsAfter([large, user], first), "by way of the second");
  assert.ok(!runsAfter([first, second], large), "nobody asked for that");
});

test("a step does not wait if a larger input would have to be kept for it", () => {
  const flat = (buffer: number): Operand => dense(buffer, [4]);
  const value = work(doubling(flat(0), flat(1)));
  const copy = work(doubling(flat(1), flat(2)), value); // half as large, and needed at the end
  const first = work(doubling(flat(1), flat(3)), value);
  const second = work(doubling(flat(1), flat(4)), first);
  const third = work(doubling(flat(4), flat(5)), second);
  const late = work(doubling(flat(2), flat(6)), copy, third);
  const all = [late, third, second, first, copy, value];
  const position = (bytes: number): number =>
    schedule(all, [16, 1024, bytes, 16, 16, 16, 16], new Set([0, 6])).indexOf(copy);
  assert.ok(position(512) <= 2, "before the value is forgotten");
  assert.equal(position(4096), 4, "just before its user");
});

test("chains that are added up at the end run one after another", () => {
  const flat = (buffer: number): Operand => dense(buffer, [4]);
  const chains = [0, 1, 2].map((i) => {
    const [large, changed, sum] = [1 + 3 * i, 2 + 3 * i, 3 + 3 * i];
    const first = work(doubling(flat(0), flat(large)));
    const second = work(doubling(flat(large), flat(changed)), first);
    return [first, second, work(doubling(flat(changed), flat(sum)), second)] as const;
  });
  const end = work(doubling(flat(3), flat(10)), ...chains.map(([, , sum]) => sum));
  const bytes = [16, 1024, 1030, 8, 1024, 1030, 8, 1024, 1030, 8, 16];
  const order = schedule([end, ...chains.flat()], bytes, new Set([0, 10]));
  for (const [first, second, sum] of chains) {
    const at = order.indexOf(first);
    assert.deepEqual(order.slice(at, at + 3), [first, second, sum]);
  }
});
