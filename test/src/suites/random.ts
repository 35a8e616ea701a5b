/** Random numbers must have the same bits on every backend. */
import { type Device, random, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { ConformanceCase, Context } from "./context.ts";

/** Threefry-2x32-20 known answers, from the Random123 distribution (kat_vectors): key, counter, result. */
const KNOWN: readonly (readonly [readonly [number, number], readonly [number, number], readonly [number, number]])[] = [
  [[0, 0], [0, 0], [0x6b200159, 0x99ba4efe]],
  [[0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], [0x1cb996fc, 0xbb002be7]],
  [[0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3], [0xc4923a9c, 0x483df7a0]],
]; // prettier-ignore

function knownAnswers(): void {
  for (const [[k0, k1], [x0, x1], wanted] of KNOWN) {
    const found = random.threefry2x32(k0, k1, x0, x1);
    if (found[0] !== wanted[0] || found[1] !== wanted[1]) {
      throw new Error(
        `threefry2x32(${k0}, ${k1}, ${x0}, ${x1}) gave ${found.join(", ")} instead of ${wanted.join(", ")}`,
      );
    }
  }
}

async function same(what: string, tensor: Tensor, wanted: ArrayLike<number>): Promise<void> {
  const found = await tensor.data();
  for (let i = 0; i < wanted.length; i++) {
    if (found[i] !== wanted[i])
      throw new Error(`${what}: element ${i} is ${found[i]} instead of ${wanted[i]}`);
  }
  if (found.length !== wanted.length)
    throw new Error(`${what}: ${found.length} elements instead of ${wanted.length}`);
}

async function onDevice(device: Device): Promise<void> {
  for (const [seed, shape] of [
    [0, [1]],
    [1, [7, 13]],
    [2 ** 40 + 5, [3, 1, 1000]],
  ] as const) {
    const key = random.key(seed).fold("test").fold(3);
    const n = shape.reduce<number>((a, d) => a * d, 1);
    const words = random.bitsArray(key, n);
    // a constant has no device of its own: it adopts that of the other operand
    const zero = device.tensor(0).mul(0);
    const bits = random.bits(key, shape).add(device.tensor(Uint32Array.of(0), { shape: [1], dtype: "u32" }));
    await same(`bits of seed ${seed}`, bits, words);
    await same(`uniform of seed ${seed}`, random.uniform(key, shape).add(zero), random.uniformArray(key, n));
    const heads = random.bernoulli(key, shape, 0.3).cast("f32").add(zero);
    await same(
      `bernoulli of seed ${seed}`,
      heads,
      Array.from(words, (w) => Number(w < Math.floor(0.3 * 2 ** 32))),
    );
  }
}

/** Uniform numbers strictly between 0 and 1, as `nn` draws them. */
const inside = (key: random.Key, n: number): number[] =>
  Array.from(random.bitsArray(key, n), (word) => ((word >>> 9) + 0.5) * 2 ** -23);

/** Throws unless each element is within the rounding of a logarithm and a cosine in f32 of the formula's value. */
async function near(what: string, tensor: Tensor, wanted: readonly number[]): Promise<void> {
  const found = await tensor.data();
  for (const [i, value] of wanted.entries()) {
    if (!(Math.abs(found[i]! - value) <= 1e-5))
      throw new Error(`${what}: element ${i} is ${found[i]} instead of ${value}`);
  }
}

/** Normal and Gumbel numbers against their formulas in float64, from the same words. */
async function otherDistributions(device: Device): Promise<void> {
  const key = random.key(7).fold("draw");
  const n = 4099;
  const zero = device.tensor(0);
  const radius = inside(key.fold("radius"), n).map((u) => Math.sqrt(-2 * Math.log(u)));
  const angle = random.uniformArray(key.fold("angle"), n).map((u) => 2 * Math.PI * (u - 0.5));
  const normal = radius.map((r, i) => 2 + 0.5 * r * Math.cos(angle[i]!));
  await near("normal", nn.randomNormal(key, [n], { mean: 2, std: 0.5 }).add(zero), normal);
  const gumbel = inside(key, n).map((u) => -Math.log(-Math.log(u)));
  await near("gumbel", nn.randomGumbel(key, [n]).add(zero), gumbel);
}

export function randomCases(context: Context): ConformanceCase[] {
  return [
    {
      name: "random numbers: normal and Gumbel numbers have the values of their formulas",
      run: async () => otherDistributions(await context.device()),
    },
    { name: "random numbers: known answers", run: async () => knownAnswers() },
    { name: "random numbers: bit for bit", run: async () => onDevice(await context.device()) },
    {
      name: "random numbers: bit for bit, without fusion",
      run: async () => onDevice(await context.device("off")),
    },
  ];
}
