import assert from "node:assert/strict";
import { test } from "node:test";
import { random, reference } from "@tiedlora/core";

test("Threefry-2x32-20 gives the vectors of its authors", () => {
  const hex = (words: readonly number[]): string[] => words.map((w) => w.toString(16).padStart(8, "0"));
  assert.deepEqual(hex(random.threefry2x32(0, 0, 0, 0)), ["6b200159", "99ba4efe"]);
  const ones = 0xffffffff;
  assert.deepEqual(hex(random.threefry2x32(ones, ones, ones, ones)), ["1cb996fc", "bb002be7"]);
  const pi = random.threefry2x32(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3);
  assert.deepEqual(hex(pi), ["c4923a9c", "483df7a0"]);
});

test("the graph's random words are the host's", async () => {
  const device = reference();
  const key = random.key(7).fold("test");
  const words = await random
    .bits(key, [3, 5])
    .add(device.tensor([0], { dtype: "u32" }))
    .data();
  assert.deepEqual([...words], [...random.bitsArray(key, 15)]);
  const uniform = await random
    .uniform(key, [15])
    .add(device.tensor([0]))
    .data();
  assert.deepEqual(uniform, random.uniformArray(key, 15));
});

test("folding gives unrelated keys, and the same ones again", () => {
  const key = random.key(1);
  assert.deepEqual(key.fold("a"), random.key(1).fold("a"));
  const all = [
    key,
    key.fold(0),
    key.fold(1),
    key.fold("0"),
    key.fold("a"),
    key.fold("b"),
    random.key(2),
    random.key(2 ** 40),
  ];
  assert.equal(new Set(all.map(String)).size, all.length);
  assert.throws(() => random.key(-1), /key: seed: -1 is no whole number/);
});

test("normal, uniform and Bernoulli numbers have their moments", async () => {
  const n = 20_000;
  const moments = (x: Float32Array): [number, number] => {
    const mean = x.reduce((a, b) => a + b, 0) / n;
    return [mean, x.reduce((a, b) => a + (b - mean) ** 2, 0) / n];
  };
  const [mean, variance] = moments(random.normalArray(random.key(3), n, 2, 3));
  assert.ok(Math.abs(mean - 2) < 0.1 && Math.abs(variance - 9) < 0.4, `${mean}, ${variance}`);
  const [middle, spread] = moments(random.uniformArray(random.key(4), n, -1, 1));
  assert.ok(Math.abs(middle) < 0.02 && Math.abs(spread - 1 / 3) < 0.01, `${middle}, ${spread}`);
  const hits = await random
    .bernoulli(random.key(5), [n], 0.3)
    .cast("f32")
    .add(reference().tensor([0]))
    .mean()
    .item();
  assert.ok(Math.abs(hits - 0.3) < 0.015, `${hits}`);
});

test("a permutation holds every index once", () => {
  const order = random.permutation(random.key(9), 100);
  assert.deepEqual(
    [...order].sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  );
  assert.notDeepEqual(
    [...order],
    [...order].sort((a, b) => a - b),
  );
});
