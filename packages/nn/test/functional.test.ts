/** Tests of functions composed of tensor operations: einsum, convolution and pooling. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { arange, reference, stack, type Tensor } from "@tiedlora/core";
import { avgPool2d, conv2d, einsum, maxPool2d } from "@tiedlora/nn";

const device = reference();
const x = device.tensor([[1, 2, 3], [4, 5, 6]]); // prettier-ignore

test("einsum contracts, permutes and sums", async () => {
  const y = device.tensor([[1, 0], [0, 1], [1, 1]]); // prettier-ignore
  assert.deepEqual(await einsum("ij,jk->ki", x, y).toArray(), [
    [4, 10],
    [5, 11],
  ]);
  assert.deepEqual(await einsum("ij->", x).toArray(), 21);
  assert.deepEqual(await einsum("ij,ij->i", x, x).toArray(), [14, 77]);
});

test("einsum takes repeated labels, an ellipsis and equations without a result", async () => {
  const v = device.tensor([1, 2, 3]);
  const square = device.tensor([[1, 2], [3, 4]]); // prettier-ignore
  const cube = arange(12)
    .reshape([2, 2, 3])
    .cast("f32")
    .add(device.tensor([0]));
  const cases: [Tensor, unknown][] = [
    [einsum("ii->i", square), [1, 4]],
    [einsum("ii", square), 5],
    [einsum("bii->b", stack([square, square.neg()])), [5, -5]],
    [einsum("...ij,...jk->...ik", cube, v.unsqueeze(1)), [[[8], [26]], [[44], [62]]]], // prettier-ignore
    [einsum("...i->...", cube), [[3, 12], [21, 30]]], // prettier-ignore
    [einsum("...i,i->", cube, v), 140],
    [einsum("ba", x), [[1, 4], [2, 5], [3, 6]]], // prettier-ignore
  ];
  for (const [tensor, expected] of cases) assert.deepEqual(await tensor.toArray(), expected);
});

test("equations that mean nothing are refused with what is wrong", () => {
  const cases: [() => unknown, RegExp][] = [
    [() => einsum("ij,jk->ik", x), /"ij,jk->ik": 2 terms for 1 tensors/],
    [() => einsum("i1->i", x), /"1" is no label; labels are letters/],
    [() => einsum("ij->k", x), /"k" of the result is in no term/],
    [() => einsum("ij->ii", x), /the result names a label twice/],
    [() => einsum("ijk->", x), /term "ijk" must name each axis of \[2, 3\]/],
    [() => einsum("...ijk->", x), /term "\.\.\.ijk" must name each axis/],
    [() => einsum("ii->i", x), /"i" is 2 in one place and 3 in another/],
    [() => einsum("......->", x), /has two "\.\.\."/],
    [() => einsum("ij->i->j", x), /give one equation/],
    [() => einsum(undefined as never, x), /give one equation/],
    [() => einsum("...i,...i->...", x, device.tensor([[1], [2], [3]])), /is (2|3) in one place/],
  ];
  for (const [f, message] of cases) assert.throws(f, message);
});

test("convolution and pooling", async () => {
  const image = arange(16)
    .reshape([1, 1, 4, 4])
    .cast("f32")
    .add(device.tensor([0]));
  const kernel = device.tensor([
    [
      [
        [1, 0],
        [0, -1],
      ],
    ],
  ]);
  assert.deepEqual(await conv2d(image, kernel).toArray(), [
    [
      [
        [-5, -5, -5],
        [-5, -5, -5],
        [-5, -5, -5],
      ],
    ],
  ]);
  const strided = conv2d(image, kernel, { stride: 2, padding: 1 });
  assert.deepEqual(await strided.toArray(), [
    [
      [
        [0, -2, 0],
        [-8, -5, 7],
        [0, 13, 15],
      ],
    ],
  ]);
  assert.deepEqual(await maxPool2d(image, 2).toArray(), [
    [
      [
        [5, 7],
        [13, 15],
      ],
    ],
  ]);
  assert.deepEqual(await avgPool2d(image, 2).toArray(), [
    [
      [
        [2.5, 4.5],
        [10.5, 12.5],
      ],
    ],
  ]);
});
