import assert from "node:assert/strict";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import type { Tensor, TensorOptions, TypedArray } from "@tiedlora/core";
import { arange, concat, full, ones, reference, stack, where, zeros } from "@tiedlora/core";

const device = reference();
const x = device.tensor([
  [1, 2, 3],
  [4, 5, 6],
]);

test("elementwise operations broadcast", async () => {
  assert.deepEqual(await x.add(device.tensor([10, 20, 30])).toArray(), [
    [11, 22, 33],
    [14, 25, 36],
  ]);
  assert.deepEqual(
    await x
      .mul(device.tensor([[2], [3]]))
      .sub(1)
      .toArray(),
    [
      [1, 3, 5],
      [11, 14, 17],
    ],
  );
  assert.deepEqual(await x.gt(3).toArray(), [
    [0, 0, 0],
    [1, 1, 1],
  ]);
  assert.deepEqual(await x.pow(-2).mul(900).floor().toArray(), [
    [900, 225, 100],
    [56, 36, 25],
  ]);
  assert.deepEqual(await where(x.eq(2), x.neg(), 0).toArray(), [
    [0, -2, 0],
    [0, 0, 0],
  ]);
  assert.deepEqual(await x.clamp(2, 5).toArray(), [
    [2, 2, 3],
    [4, 5, 5],
  ]);
  assert.deepEqual(await device.tensor([-7, 7]).mod(4).toArray(), [-3, 3]);
});

test("reductions", async () => {
  assert.equal(await x.sum().item(), 21);
  assert.deepEqual(await x.mean(0).toArray(), [2.5, 3.5, 4.5]);
  assert.deepEqual(await x.max(1, { keepdims: true }).toArray(), [[3], [6]]);
  assert.deepEqual(await x.prod(-1).toArray(), [6, 120]);
  assert.deepEqual(await x.argmax(0).toArray(), [1, 1, 1]);
  assert.deepEqual(await device.tensor([3, 1, 1, 2]).argmin().item(), 1);
  assert.deepEqual(await x.cumsum(1).toArray(), [
    [1, 3, 6],
    [4, 9, 15],
  ]);
  assert.equal(await device.tensor([1, 2, 3, 4]).variance().item(), 1.25);
  assert.equal(await device.tensor([1000, 1000]).logSumExp().item(), Math.fround(1000 + Math.LN2));
});

test("movement", async () => {
  assert.deepEqual(await x.transpose().toArray(), [
    [1, 4],
    [2, 5],
    [3, 6],
  ]);
  assert.deepEqual(await x.reshape([3, -1]).toArray(), [
    [1, 2],
    [3, 4],
    [5, 6],
  ]);
  assert.deepEqual(await x.transpose().reshape([6]).toArray(), [1, 4, 2, 5, 3, 6]);
  assert.deepEqual(await x.slice([1, 2], [0, 3, 2]).toArray(), [[4, 6]]);
  assert.deepEqual(await x.slice(null, [-2, 3]).toArray(), [
    [2, 3],
    [5, 6],
  ]);
  assert.deepEqual(await x.flip(1).toArray(), [
    [3, 2, 1],
    [6, 5, 4],
  ]);
  assert.deepEqual(
    await x
      .pad([
        [0, 1],
        [1, 0],
      ])
      .toArray(),
    [
      [0, 1, 2, 3],
      [0, 4, 5, 6],
      [0, 0, 0, 0],
    ],
  );
  assert.deepEqual(await concat([x, x.narrow(1, 0, 1)], 1).toArray(), [
    [1, 2, 3, 1],
    [4, 5, 6, 4],
  ]);
  assert.deepEqual(await stack([x.narrow(0, 0, 1), x.narrow(0, 1, 1)], 0).toArray(), [
    [[1, 2, 3]],
    [[4, 5, 6]],
  ]);
  const [a, b] = x.split([1, 2], 1);
  assert.deepEqual(
    [await a!.toArray(), await b!.toArray()],
    [
      [[1], [4]],
      [
        [2, 3],
        [5, 6],
      ],
    ],
  );
  const none = x.slice(null, [0, 0]);
  const shapes = [none.split(2, 1), none.split([], 1), none.split([0, 0], 1), none.split(1)].map((parts) =>
    parts.map(({ shape }) => shape),
  );
  assert.deepEqual(shapes, [[[2, 0]], [], [[2, 0], [2, 0]], [[1, 0], [1, 0]]]); // prettier-ignore
  assert.deepEqual(
    await ones([2, 3])
      .tril()
      .add(device.tensor([0]))
      .toArray(),
    [
      [1, 0, 0],
      [1, 1, 0],
    ],
  );
});

test("products and indexing", async () => {
  const y = device.tensor([
    [1, 0],
    [0, 1],
    [1, 1],
  ]);
  assert.deepEqual(await x.matmul(y).toArray(), [
    [4, 5],
    [10, 11],
  ]);
  const index = device.tensor([1, 0, 1], { dtype: "i32" });
  assert.deepEqual(await x.take(index).toArray(), [
    [4, 5, 6],
    [1, 2, 3],
    [4, 5, 6],
  ]);
  assert.deepEqual(
    await x
      .gather(
        1,
        device.tensor(
          [
            [2, 0],
            [1, 1],
          ],
          { dtype: "i32" },
        ),
      )
      .toArray(),
    [
      [3, 1],
      [5, 5],
    ],
  );
  assert.deepEqual(await index.oneHot(2).toArray(), [
    [0, 1],
    [1, 0],
    [0, 1],
  ]);
  const added = zeros([2, 3]).scatterAdd(
    0,
    device.tensor(
      [
        [0, 1, 0],
        [0, 0, 0],
      ],
      { dtype: "i32" },
    ),
    x,
  );
  assert.deepEqual(await added.toArray(), [
    [5, 5, 9],
    [0, 2, 0],
  ]);
  assert.ok(Number.isNaN((await x.take(device.tensor([2], { dtype: "i32" })).data())[0]));
});

test("products of vectors are NumPy's", async () => {
  const [v, w] = [device.tensor([1, 2, 3]), device.tensor([1, -1])];
  const cube = arange(12)
    .reshape([2, 2, 3])
    .cast("f32")
    .add(device.tensor([0]));
  const cases: [Tensor, unknown][] = [
    [v.matmul(v), 14],
    [x.matmul(v), [14, 32]],
    [w.matmul(x), [-3, -3, -3]],
    [cube.matmul(v), [[8, 26], [44, 62]]], // prettier-ignore
    [w.matmul(cube), [[-3, -3, -3], [-3, -3, -3]]], // prettier-ignore
    [device.tensor([]).matmul(device.tensor([])), 0],
  ];
  for (const [tensor, expected] of cases) assert.deepEqual(await tensor.toArray(), expected);
});

test("products that mean nothing are refused with what is wrong", () => {
  const v = device.tensor([1, 2]);
  const cases: [() => unknown, RegExp][] = [
    [
      () => x.matmul(v),
      /\[2, 3\] · \[2\]: the last axis of the first \(3\) must equal the axis of the second \(2\)/,
    ],
    [
      () => v.matmul(x.transpose()),
      /\[2\] · \[3, 2\].*\(2\) must equal the second-to-last of the second \(3\)/,
    ],
    [() => v.matmul(zeros([])), /\[2\] · \[\]: a single number is no matrix; use mul/],
  ];
  for (const [f, message] of cases) assert.throws(f, message);
});

test("types: widening, casting, integers", async () => {
  const half = device.tensor([1, 2.001], { dtype: "bf16" });
  assert.equal(half.dtype, "bf16");
  assert.equal(half.add(1).dtype, "f32");
  assert.deepEqual([...(await half.data())], [1, 2]);
  assert.deepEqual(await device.tensor([1.7, -1.7]).cast("i32").toArray(), [1, -1]);
  const big = device.tensor([0xffffffff, 5], { dtype: "u32" });
  assert.deepEqual(await big.add(device.tensor([2, 2], { dtype: "u32" })).toArray(), [1, 7]);
  assert.deepEqual(await full([2], 3).toArray(), [3, 3]);
});

test("empty tensors", async () => {
  const empty = device.tensor([], { shape: [0, 3] });
  assert.deepEqual(await empty.sum(0).toArray(), [0, 0, 0]);
  assert.deepEqual(await empty.add(1).toArray(), []);
  assert.deepEqual(await empty.transpose().matmul(empty).toArray(), [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ]);
});

test("errors say what was given, what was expected and what to do", () => {
  assert.throws(
    () => x.add(device.tensor([1, 2])),
    /add: shapes \[2, 3\] and \[2\] do not broadcast.*make them equal/,
  );
  assert.throws(() => x.matmul(x), /matmul: \[2, 3\] · \[2, 3\]/);
  assert.throws(() => x.reshape([4]), /6 elements and cannot become \[4\]/);
  assert.throws(() => x.and(x), /and is not defined on f32/);
  assert.throws(() => x.add(device.tensor([1], { dtype: "i32" })), /operands are f32 and i32; convert/);
  assert.throws(() => x.sum(2), /axis 2 is not one of a tensor with 2 axes/);
  assert.throws(() => x.add(reference().tensor([1])), /two devices/);
  assert.throws(() => x.take(x), /index is f32, but i32/);
  assert.throws(() => device.tensor([1, 2], { shape: [3] }), /shape \[3\]/);
  assert.throws(() => device.tensor([[1, 2], [3]]), /ragged|length/);
});

test("values are copied, unless that is not wanted and they are as they are stored", async () => {
  const changed = async (values: TypedArray, options: TensorOptions): Promise<boolean> => {
    const before = Array.from(values);
    const tensor = device.tensor(values, options);
    values.fill(0);
    return !isDeepStrictEqual(Array.from(await tensor.data()), before);
  };
  const floats = (): Float32Array => Float32Array.of(1, 2, 3);
  assert.equal(await changed(floats(), {}), false);
  assert.equal(await changed(floats(), { copy: true }), false);
  assert.equal(await changed(floats(), { copy: false }), true);
  assert.equal(await changed(floats(), { copy: false, dtype: "f16" }), false, "converted");
  assert.equal(await changed(Int32Array.of(1, 1), { copy: false, dtype: "bool" }), false, "made 0 or 1");
  const halves = Uint16Array.of(0x3c00, 0x4000);
  assert.deepEqual(await device.tensor(halves, { copy: false, dtype: "f16" }).toArray(), [1, 2]);
});
