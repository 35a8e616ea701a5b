import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkpoint,
  checkpointIn,
  grad,
  iota,
  random,
  realize,
  reference,
  type Tensor,
  zeros,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

const close = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-6): void => {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    assert.ok(
      error <= tolerance * (1 + Math.abs(expected[i]!)),
      `[${i}]: ${actual[i]} is not ${expected[i]}`,
    );
  }
};

test("the gradient of a matmul", async () => {
  const device = reference();
  const a = device.tensor([
    [1, 2],
    [3, 4],
  ]);
  const b = device.tensor([
    [5, 6],
    [7, 8],
  ]);
  const [da, db] = grad(a.matmul(b).sum(), [a, b]);
  assert.deepEqual(await da!.toArray(), [
    [11, 15],
    [11, 15],
  ]);
  assert.deepEqual(await db!.toArray(), [
    [4, 4],
    [6, 6],
  ]);
});

test("no gradient passes detach; what the loss does not depend on gets zeros", async () => {
  const device = reference();
  const x = device.tensor([2, 3]);
  const y = device.tensor([5, 7]);
  const [dx, dy] = grad(x.mul(x.detach()).sum(), [x, y]);
  assert.deepEqual([...(await dx!.data())], [2, 3]);
  assert.deepEqual([...(await dy!.data())], [0, 0]);
});

test("an intermediate value and what it is made of both get their whole gradient", async () => {
  const device = reference();
  const x = device.tensor([2]);
  const h = x.square();
  const [dx, dh] = grad(h.mul(3).add(x).sum(), [x, h]);
  assert.equal(await dx!.item(), 13);
  assert.equal(await dh!.item(), 3);
});

test("a value that has been read can still be differentiated", async () => {
  const device = reference();
  const x = device.tensor([3]);
  const y = x.square().exp();
  const value = await y.item();
  const loss = y.log().sum();
  await loss.item();
  close(await grad(loss, [x])[0]!.data(), [6]);
  close([value], [Math.exp(9)], 1e-5);
});

test("gradients of gradients", async () => {
  const device = reference();
  const x = device.tensor([0.3, -1.2]);
  const [first] = grad(x.tanh().mul(x).sum(), [x]);
  const [second] = grad(first!.sum(), [x]);
  const expected = [0.3, -1.2].map((t) => {
    const s = 1 - Math.tanh(t) ** 2;
    return 2 * s - 2 * t * Math.tanh(t) * s;
  });
  close(await second!.data(), expected, 1e-5);
});

test("second derivatives go through attention", async () => {
  const device = reference();
  const draw = (name: string, shape: number[]): Tensor =>
    device.tensor(
      random.normalArray(
        random.key(1).fold(name),
        shape.reduce((a, b) => a * b),
      ),
      { shape },
    );
  const [q, k, v] = [draw("q", [1, 2, 3, 4]), draw("k", [1, 1, 3, 4]), draw("v", [1, 1, 3, 4])];
  const composed = (x: Tensor): Tensor => {
    const scores = x.matmul(k.transpose()).mul(0.5);
    const i = device.tensor([[0], [1], [2]]);
    const j = device.tensor([[0, 1, 2]]);
    const hidden = j.gt(i).cast("f32").mul(-1e30);
    return scores.add(hidden).softmax(-1).matmul(v);
  };
  const twice = async (f: (x: Tensor) => Tensor): Promise<ArrayLike<number>> => {
    const [g] = grad(f(q).square().sum(), [q]);
    return grad(g!.square().sum(), [q])[0]!.data();
  };
  close(
    await twice((x) => nn.scaledDotProductAttention(x, k, v, { causal: true })),
    await twice(composed),
    1e-4,
  );
});

test("checkpoint gives the same gradients, for inputs, captured parameters and captured values", async () => {
  const device = reference();
  const key = random.key(2);
  const layer = nn.MLP.init(4, 8, { device, key });
  const x = device.tensor(random.normalArray(key, 12), { shape: [3, 4] });
  const outside = x.mul(0.5);
  const block = (h: Tensor): Tensor =>
    nn.dropout(layer.forward(h), 0.5, key.fold("drop")).add(outside).tanh();
  const targets = [x, ...layer.parameters()];
  const plain = grad(block(block(x)).sum(), targets);
  const saved = grad(checkpoint(block, checkpoint(block, x)).sum(), targets);
  for (const [i, g] of plain.entries()) close(await saved[i]!.data(), await g.data(), 1e-6);
});

test("checkpointIn keeps exact values, and gradients at the rounded inputs", async () => {
  const device = reference({ fusion: "off" });
  const values = random.normalArray(random.key(3), 12);
  const x = device.tensor(values, { shape: [3, 4] });
  const w = device.tensor(random.normalArray(random.key(4), 12), { shape: [3, 4] });
  for (const type of ["f16", "bf16"] as const) {
    const rounded = x.cast(type).cast("f32");
    const f = (h: Tensor): Tensor => h.mul(w).tanh();
    const loss = checkpointIn(type, f, x).square().sum();
    assert.deepEqual(await loss.data(), await f(x).square().sum().data());
    // y of the forward pass is exact, so that the gradient that arrives at the region is 2 y at the exact input
    const [dx, dw] = grad(loss, [x, w]);
    const g = f(x).mul(2);
    const [atRounded, wAtRounded] = grad(f(rounded).mul(g.detach()).sum(), [rounded, w]);
    assert.deepEqual(await dx!.data(), await atRounded!.data());
    assert.deepEqual(await dw!.data(), await wAtRounded!.data());
  }
  const ids = device.tensor([2, 0], { dtype: "i32" });
  assert.deepEqual(await checkpointIn("bf16", (i) => x.take(i), ids).data(), await x.take(ids).data());
});

test("rules that differentiate, and so walk over the graph that is being differentiated", async () => {
  const device = reference();
  type Steps = readonly ((h: Tensor, x: Tensor) => Tensor)[];
  const steps: Steps = [
    (h, x) => h.mul(x).tanh(),
    (h, x) => h.add(x.sigmoid()),
    (h, x) => h.sub(h.mean()).mul(x),
    (h, x) => h.matmul(x).mul(0.3),
    (h) => h.transpose().sin(),
  ];
  /** The same, but its gradient is found by a walk of its own, which goes by way of g through the whole graph. */
  const byRule = (f: Steps[number]): Steps[number] =>
    nn.custom(f, {
      vjp: (g, _y, ...inputs) => {
        const [h, x] = inputs.map((input) => input.detach()) as [Tensor, Tensor];
        return grad(f(h, x).mul(g).sum(), [h, x]);
      },
    });
  const again =
    (f: Steps[number]): Steps[number] =>
    (h, x) =>
      checkpoint(f, h, x);
  for (let seed = 1; seed <= 6; seed++) {
    const draw = (n: number, i: number): number => ((seed * 7919 + i * 104729 + 13) >>> 3) % n;
    const build = (wrap: (f: Steps[number], i: number) => Steps[number]): Tensor[] => {
      const x = device.tensor(
        Float32Array.from({ length: 9 }, (_, i) => Math.sin(seed + i)),
        { shape: [3, 3] },
      );
      let h = x.cos();
      const inner = h;
      for (let i = 0; i < 6; i++) h = wrap(steps[draw(5, i)]!, i)(h, draw(2, i + 9) === 0 ? x : inner);
      return grad(h.square().sum(), [x, inner]);
    };
    const plain = build((f) => f);
    const ruled = build((f, i) => [f, byRule(f), again(f), again(byRule(f))][draw(4, i + 20)]!);
    for (const [i, g] of ruled.entries()) close(await g.data(), await plain[i]!.data(), 1e-5);
  }
});

test("a loss that is no number, or no float, is refused", () => {
  const device = reference();
  const x = device.tensor([1, 2]);
  assert.throws(() => grad(x, [x]), /reduce it to one number/);
  assert.throws(() => grad(zeros([], "i32"), [x]), /no gradient/);
});

test("an extreme of something computed is found again in another kernel, where it may round otherwise", async () => {
  const device = reference();
  const x = device.tensor(
    Float32Array.from({ length: 24 }, (_, i) => Math.sin(i) + i / 100),
    { shape: [6, 4] },
  );
  // padding keeps the two kernels apart; computed in each, the values would not be those that were stored
  const computed = x.pad([[1, 0], [0, 1]]).add(iota([7, 5], 1).cast("f32").mul(0.01)); // prettier-ignore
  const [largest, position] = [computed.max(0), computed.argmax(0)];
  const [gradient] = grad(largest.sum(), [x]);
  realize(largest, position, gradient!);
  const sums = await gradient!.sum(0).data();
  assert.deepEqual([...sums], [1, 1, 1, 1]);
  assert.ok((await position.data()).every((at) => at >= 0 && at < 7));
});
