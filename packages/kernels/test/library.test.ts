/** Tests of the meaning of library calls, against results that can be checked by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { AttentionParams, LibraryCall, LibraryName } from "../src/index.ts";
import { type Content, dense, run } from "./support.ts";

const call = <K extends LibraryName>(
  name: K,
  rest: Omit<Extract<LibraryCall, { name: K }>, "type" | "name">,
) => ({ type: "library", name, ...rest }) as LibraryCall;
const zeros = (n: number): Content => ["f32", new Array<number>(n).fill(0)];
const close = (found: readonly number[], expected: readonly number[]): void => {
  assert.equal(found.length, expected.length);
  found.forEach((x, i) => assert.ok(Math.abs(x - expected[i]!) < 1e-6, `${found.join()} is not ${expected.join()}`)); // prettier-ignore
};

test("a matmul is the sum of its terms, and its epilogue sees the finished product", () => {
  const terms: Content[] = [
    ["f32", [1, 2, 3, 4]], // 2×2
    ["f32", [1, 0, 0, 1]],
    ["f32", [1, -1]], // 2×1
    ["f16", [10, 20]], // 1×2
  ];
  const shapes = [[2, 2], [2, 2], [2, 1], [1, 2]]; // prettier-ignore
  const inputs = shapes.map((shape, i) => dense(i, shape, terms[i]![0]));
  const params = { batch: [], m: 2, n: 2, k: [2, 1] };
  const plain = call("matmul", { params, inputs, outputs: [dense(4, [2, 2])] });
  assert.deepEqual(run(plain, [...terms, zeros(4)])[4], [11, 22, -7, -16]);

  const epilogue = {
    body: [
      { op: "product", dtype: "f32" },
      { op: "const", value: 0, dtype: "f32" },
      { op: "max", a: 0, b: 1, dtype: "f32" },
    ],
    stores: [
      { to: dense(4, [2, 2]), value: 2 },
      { to: dense(5, [2, 2]), value: 0 },
    ],
  } as const;
  const fused = call("matmul", { params: { ...params, epilogue }, inputs, outputs: [] });
  const after = run(fused, [...terms, zeros(4), zeros(4)]);
  assert.deepEqual(after.slice(4), [[11, 22, 0, 0], [11, 22, -7, -16]]); // prettier-ignore
});

const sizes: AttentionParams = { batch: 1, heads: 2, kvHeads: 1, q: 2, kv: 3, d: 1, causal: true, scale: 1, bias: false }; // prettier-ignore
const attentionInputs = [dense(0, [1, 2, 2, 1]), dense(1, [1, 1, 3, 1]), dense(2, [1, 1, 3, 1])];
const K = [0, Math.log(3), Math.log(4)];

test("attention: query heads share key heads, query i sees key j <= i + kv - q", () => {
  const outputs = [dense(3, [1, 2, 2, 1]), dense(4, [1, 2, 2])];
  const step = call("attention", { params: sizes, inputs: attentionInputs, outputs });
  const contents: Content[] = [["f32", [1, 1, 0, 0]], ["f32", K], ["f32", [4, 8, 16]], zeros(4), zeros(4)]; // prettier-ignore
  const [, , , O, L] = run(step, contents);
  // In head 0 the weights of the keys are in proportion 1 : 3 : 4; the queries of head 1 are 0, so that its weights are equal.
  close(O!, [(4 + 24) / 4, (4 + 24 + 64) / 8, 6, 28 / 3]);
  close(L!, [Math.log(4), Math.log(8), Math.log(2), Math.log(3)]);
});

test("the gradient of attention is that of its differences", () => {
  const inputs: Content[] = [["f32", [0.3, -0.5, 0.8, 0.1]], ["f32", [0.2, -0.4, 0.7]], ["f32", [1, -2, 0.5]]]; // prettier-ignore
  const dO = [1, 0.5, -1, 2];
  const outputs = [dense(3, [1, 2, 2, 1]), dense(4, [1, 2, 2])];
  const forward = (from: readonly Content[]): number[][] =>
    run(call("attention", { params: sizes, inputs: attentionInputs, outputs }), [
      ...from,
      zeros(4),
      zeros(4),
    ]);
  const [, , , O, L] = forward(inputs);
  const backward = call("attentionGrad", {
    params: sizes,
    inputs: [...attentionInputs, dense(3, [1, 2, 2, 1]), dense(4, [1, 2, 2]), dense(5, [1, 2, 2, 1])],
    outputs: [dense(6, [1, 2, 2, 1]), dense(7, [1, 1, 3, 1]), dense(8, [1, 1, 3, 1])],
  });
  const contents: Content[] = [...inputs, ["f32", O!], ["f32", L!], ["f32", dO], zeros(4), zeros(3), zeros(3)]; // prettier-ignore
  const gradients = run(backward, contents).slice(6);
  const h = 2 ** -7;
  const loss = (which: number, at: number, by: number): number => {
    const moved = inputs.map(([dtype, values], i): Content => [
      dtype,
      values.map((x, j) => (i === which && j === at ? x + by : x)),
    ]);
    return forward(moved)[3]!.reduce((sum, o, i) => sum + o * dO[i]!, 0);
  };
  inputs.forEach(([, values], which) =>
    values.forEach((_, at) => {
      const difference = (loss(which, at, h) - loss(which, at, -h)) / (2 * h);
      const found = gradients[which]![at]!;
      // The tolerance covers the central difference's error, h² f‴/6, and rounding to f32.
      assert.ok(Math.abs(found - difference) < 2e-4, `input ${which}, ${at}: ${found} is not ${difference}`);
    }),
  );
});

test("gather and scatterAdd: an index out of range yields NaN, and adds nothing", () => {
  const params = { rows: 2, cols: 2, count: 3 };
  const index: Content = ["i32", [1, -1, 1]];
  const gather = call("gather", {
    params,
    inputs: [dense(0, [2, 2]), dense(1, [3], "i32")],
    outputs: [dense(2, [3, 2])],
  });
  assert.deepEqual(run(gather, [["f32", [1, 2, 3, 4]], index, zeros(6)])[2], [3, 4, NaN, NaN, 3, 4]);
  const scatter = call("scatterAdd", {
    params,
    inputs: [dense(0, [3], "i32"), dense(1, [3, 2])],
    outputs: [dense(2, [2, 2])],
  });
  assert.deepEqual(run(scatter, [index, ["f32", [1, 2, 3, 4, 5, 6]], zeros(4)])[2], [0, 0, 6, 8]);
});
