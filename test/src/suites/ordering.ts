/** Sorting, the largest elements, moving and setting of elements, and gradients of functions with a rule of their own. */
import { type Device, type DType, grad, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { prng } from "../prng.ts";
import type { ConformanceCase, Context } from "./context.ts";

async function same(what: string, tensor: Tensor, wanted: ArrayLike<number>): Promise<void> {
  const found = await tensor.data();
  if (found.length !== wanted.length)
    throw new Error(`${what}: ${found.length} elements instead of ${wanted.length}`);
  for (let i = 0; i < wanted.length; i++)
    if (!Object.is(found[i]! + 0, wanted[i]! + 0))
      throw new Error(`${what}: element ${i} is ${found[i]} instead of ${wanted[i]}`);
}

/** Ascending, with NaN last. */
const compare = (a: number, b: number): number =>
  Number.isNaN(a) || Number.isNaN(b)
    ? Number(Number.isNaN(a)) - Number(Number.isNaN(b))
    : Number(a > b) - Number(a < b);

/** Values among which many are equal, with some that are NaN, infinite or at the limits of their type. */
function values(dtype: DType, n: number, seed: number): Float32Array | Int32Array | Uint32Array {
  const draw = prng(seed);
  const special = {
    f32: [NaN, Infinity, -Infinity, NaN],
    i32: [2 ** 31 - 1, -(2 ** 31)],
    u32: [2 ** 32 - 1, 0],
  };
  const rare = special[dtype as keyof typeof special];
  const list = Array.from({ length: n }, () =>
    draw() < 0.1
      ? rare[Math.floor(draw() * rare.length)]!
      : Math.floor(draw() * 40) - (dtype === "u32" ? 0 : 20),
  );
  return dtype === "f32"
    ? Float32Array.from(list)
    : dtype === "i32"
      ? Int32Array.from(list)
      : Uint32Array.from(list);
}

/** Compares with a stable sort on the host along the middle axis of [a, n, b]. */
async function checkSort(
  device: Device,
  dtype: "f32" | "i32" | "u32",
  n: number,
  seed: number,
): Promise<void> {
  const [a, b] = n > 100 ? [1, 2] : [2, 3];
  const all = values(dtype, a * n * b, seed);
  const x = device.tensor(all, { shape: [a, n, b] });
  const orders = n > 100 ? (["descending"] as const) : (["ascending", "descending"] as const);
  for (const order of orders) {
    const k = Math.ceil(n / 2);
    const indices = new Int32Array(a * n * b);
    for (let row = 0; row < a * b; row++) {
      const at = (i: number): number => (Math.floor(row / b) * n + i) * b + (row % b);
      const by = (i: number, j: number): number => compare(all[at(i)]!, all[at(j)]!);
      const sorted = Array.from({ length: n }, (_, i) => i).sort((i, j) =>
        order === "ascending" ? by(i, j) : by(j, i),
      );
      sorted.forEach((index, i) => (indices[at(i)] = index));
    }
    const wanted = indices.map((index, i) => (Math.floor(i / (n * b)) * n + index) * b + (i % b));
    const name = `${order} ${dtype} of ${n}`;
    const sorted = nn.sort(x, { axis: 1, order });
    await same(`indices, ${name}`, sorted.indices, indices);
    await same(
      `values, ${name}`,
      sorted.values,
      Array.from(wanted, (i) => all[i]!),
    );
    if (n > 100) continue; // the network is the same
    const kept = Array.from(wanted).filter((_, i) => Math.floor(i / b) % n < k);
    const largest = nn.topK(x, k, { axis: 1, order });
    await same(`top k, ${name}`, largest.values, kept.map((i) => all[i]!)); // prettier-ignore
  }
}

async function checkSorts(device: Device, lengths: readonly number[]): Promise<void> {
  for (const n of lengths)
    for (const dtype of ["f32", "i32", "u32"] as const) await checkSort(device, dtype, n, n);
}

async function checkSortGradient(device: Device): Promise<void> {
  const x = device.tensor([[3, 1, 2, 5], [0, 9, -1, 4]]); // prettier-ignore
  const weights = device.tensor([[1, 2], [3, 4]]); // prettier-ignore
  const [g] = grad(nn.topK(x, 2).values.square().mul(weights).sum(), [x]);
  await same("gradient of top k", g!, [2 * 3 * 2, 0, 0, 2 * 5, 0, 2 * 9 * 3, 0, 2 * 4 * 4]);
}

async function checkRoll(device: Device): Promise<void> {
  const [a, n, b] = [2, 5, 3];
  const x = device.tensor(Float32Array.from({ length: a * n * b }, (_, i) => i + 1), { shape: [a, n, b] }); // prettier-ignore
  for (const [shift, along] of [
    [2, 1],
    [-6, 1],
    [0, 2],
    [4, -1],
  ] as const) {
    const axis = along < 0 ? along + 3 : along;
    const length = x.shape[axis]!;
    const strides = [n * b, b, 1];
    const from = (i: number): number => {
      const at = Math.floor(i / strides[axis]!) % length;
      return i + (((((at - shift) % length) + length) % length) - at) * strides[axis]!;
    };
    const wanted = Array.from({ length: a * n * b }, (_, i) => from(i) + 1);
    const rolled = nn.roll(x, shift, along);
    await same(`roll by ${shift}`, rolled, wanted);
    const [g] = grad(rolled.mul(x.detach()).sum(), [x]);
    const back = wanted.map(() => 0);
    wanted.forEach((origin, i) => (back[origin - 1] = i + 1));
    await same(`gradient of roll by ${shift}`, g!, back);
  }
}

/** Some indices repeat, some are out of range, and the index is shorter than x beside its axis. */
async function checkScatterSet(device: Device): Promise<void> {
  const x = device.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]); // prettier-ignore
  const index = device.tensor(Int32Array.of(2, 0, 2, 3, 4, -1), { shape: [2, 3] });
  const y = device.tensor([[20, 30, 40], [50, 60, 70]]); // prettier-ignore
  const out = nn.scatterSet(x, 1, index, y);
  await same("scatterSet", out, [30, 2, 40, 4, 5, 6, 7, 50, 9, 10, 11, 12]);
  const [gx, gy] = grad(out.square().sum(), [x, y]);
  await same("gradient of x", gx!, [0, 4, 0, 8, 10, 12, 14, 0, 18, 20, 22, 24]);
  await same("gradient of the values", gy!, [0, 60, 80, 100, 0, 0]);
  const rows = device.tensor(Int32Array.of(1, 1, 1, 1), { shape: [1, 4] });
  const set = nn.scatterSet(
    x.cast("i32"),
    0,
    rows,
    device.tensor(Int32Array.of(7, 8, 9, 0), { shape: [1, 4] }),
  );
  await same("scatterSet of rows", set, [1, 2, 3, 4, 7, 8, 9, 0, 9, 10, 11, 12]);
}

/** Numbers for which everything is exact. */
async function checkRules(device: Device): Promise<void> {
  const x = device.tensor([1, -2, 4]);
  const c = device.tensor([3, 1, 2]);
  const [gx, gc] = nn.vjp(
    [x.square(), x.mul(c)],
    [x, c],
    [device.tensor([1, 2, 3]), device.tensor([1, 0, 2])],
  );
  await same("vjp", gx!, [2 + 3, -8, 24 + 4]);
  await same("vjp of the second", gc!, [1, 0, 8]);
  const g = device.tensor([2, 3, 1]);
  const [first] = nn.vjp(x.square().mul(x), [x], g); // 3 g x²
  const [toX, toG] = grad(first!.sum(), [x, g]);
  await same("vjp again", toX!, [12, -36, 24]);
  await same("vjp of the cotangent", toG!, [3, 12, 48]);
  // a rule that is not the derivative: it alone is used, in second derivatives too
  const cubed = nn.custom((t: Tensor, _s: Tensor) => t.floor(), {
    vjp: (h, _y, t) => [h.mul(t).mul(t), null],
  });
  const [once, none] = grad(cubed(x, c).mul(c).sum(), [x, c]);
  await same("custom", once!, [3, 4, 32]);
  await same("custom, beside the rule", none!, [1, -2, 4]);
  await same("custom, again", grad(once!.sum(), [x])[0]!, [6, -4, 16]);
}

export function orderingCases(context: Context): ConformanceCase[] {
  const on = (name: string, check: (device: Device) => Promise<void>): ConformanceCase[] => [
    { name, run: async () => check(await context.device()) },
    { name: `${name}, without fusion`, run: async () => check(await context.device("off")) },
  ];
  return [
    {
      name: "sort and top k of short axes",
      run: async () => checkSorts(await context.device(), [1, 33]),
    },
    {
      name: "sort and top k of a long axis",
      run: async () => checkSort(await context.device(), "f32", 1500, 3),
    },
    ...on("sort: its gradient", checkSortGradient),
    ...on("roll and its gradient", checkRoll),
    ...on("scatterSet and its gradient", checkScatterSet),
    ...on("vjp and custom rules", checkRules),
  ];
}
