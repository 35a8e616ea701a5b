/**
 * Corner cases that the specification decides (packages/kernels/src/kernel.ts): NaN, infinities, zeros, overflow and underflow,
 * conversions out of range, integers divided by zero, reductions of nothing and of NaN. Expected values follow IEEE 754;
 * JavaScript computes them in float64, and finite ones are rounded.
 */
import {
  type Device,
  type DType,
  full,
  grad,
  ones,
  realize,
  type Tensor,
  where,
  zeros,
} from "@tiedlora/core";
import { tensorOf } from "../forward.ts";
import type { ConformanceCase, Context } from "./context.ts";

const SPECIAL = [NaN, Infinity, -Infinity, 0, -0, 1, -1, 0.5, -2.5, 3, 1e30, -1e30];

/** A tensor and its expected values. A finite value may have a relative error of 1e-6. */
type Expectation = readonly [what: string, tensor: Tensor, wanted: readonly number[]];

async function expectAll(expectations: readonly Expectation[]): Promise<void> {
  realize(...expectations.map(([, tensor]) => tensor));
  const wrong: string[] = [];
  for (const [what, tensor, wanted] of expectations) {
    const found = Array.from(await tensor.data());
    const isOff = (y: number, i: number): boolean => {
      const want = wanted[i]!;
      return !(Object.is(y, want) || y === want || Math.abs(y - want) <= 1e-6 * Math.abs(want));
    };
    const at = found.findIndex(isOff);
    if (found.length !== wanted.length) wrong.push(`${what}: ${found.length} elements, not ${wanted.length}`);
    else if (at >= 0) wrong.push(`${what}: ${found[at]} instead of ${wanted[at]} (element ${at})`);
  }
  if (wrong.length > 0) throw new Error(wrong.join("\n"));
}

const f32 = Math.fround;
const timesZero = (v: number): number => (Number.isFinite(v) ? 0 : NaN);

async function unary(device: Device): Promise<void> {
  const x = tensorOf(device, SPECIAL, [SPECIAL.length], "f32");
  const table: readonly (readonly [string, Tensor, (x: number) => number])[] = [
    ["neg", x.neg(), (v) => -v],
    ["abs", x.abs(), Math.abs],
    ["sign", x.sign(), (v) => Math.sign(v) || 0],
    ["floor", x.floor(), Math.floor],
    ["exp", x.exp(), (v) => (v > 88.8 ? Infinity : Math.exp(v))],
    ["expm1", x.expm1(), (v) => (v > 88.8 ? Infinity : Math.expm1(v))],
    ["log", x.log(), Math.log],
    ["log1p", x.log1p(), Math.log1p],
    ["sqrt", x.sqrt(), Math.sqrt],
    ["rsqrt", x.rsqrt(), (v) => 1 / Math.sqrt(v)],
    ["reciprocal", x.reciprocal(), (v) => 1 / v],
    ["tanh", x.tanh(), Math.tanh],
    ["isNaN", x.isNaN(), (v) => Number(Number.isNaN(v))],
    ["square", x.square(), (v) => (Math.abs(v) > 1e19 ? Infinity : v * v)],
    ["pow(0)", x.pow(0), () => 1],
    ["relu", x.relu(), (v) => Math.max(v, 0)],
    ["clamp", x.clamp(-2, 2), (v) => Math.min(Math.max(v, -2), 2)],
    ["sin", x.slice([0, 5]).sin(), Math.sin],
    ["cos", x.slice([0, 5]).cos(), Math.cos],
    ["mul(0)", x.mul(0), timesZero],
    ["mul(zeros)", x.mul(zeros([SPECIAL.length])), timesZero],
    ["div(itself)", x.div(x), (v) => v / v],
    ["sub(itself)", x.sub(x), (v) => v - v],
    ["sub(itself), chosen", where(x.isNaN(), x, x).sub(x), (v) => v - v],
    ["add(minus itself)", x.add(x.neg()), (v) => v - v],
    ["add(1).sub(itself)", x.add(1).sub(x), (v) => f32(f32(v + 1) - v)],
    ["mul(0).add(itself)", x.mul(zeros([SPECIAL.length])).add(x), (v) => timesZero(v) + v],
    ["eq(itself), chosen", where(x.isNaN(), x, x).eq(x), (v) => Number(!Number.isNaN(v))],
    ["where(isNaN)", where(x.isNaN(), 7, x), (v) => (Number.isNaN(v) ? 7 : v)],
    ["maximum(1)", x.maximum(1), (v) => Math.max(v, 1)],
    ["minimum(1)", x.minimum(1), (v) => Math.min(v, 1)],
    ["eq(itself)", x.eq(x), (v) => Number(!Number.isNaN(v))],
    ["ne(itself)", x.ne(x), (v) => Number(Number.isNaN(v))],
    ["le(itself)", x.le(x), (v) => Number(!Number.isNaN(v))],
  ];
  await expectAll(table.map(([name, y, f]) => [name, y, SPECIAL.slice(0, y.size).map((v) => f(f32(v)))]));
}

async function binary(device: Device): Promise<void> {
  const n = SPECIAL.length;
  const a = SPECIAL.flatMap((v) => SPECIAL.map(() => v));
  const b = SPECIAL.flatMap(() => SPECIAL);
  // operands from memory and computed ones: a compiler may fold comparisons of computed values in another way
  const inMemory = [tensorOf(device, a, [n * n], "f32"), tensorOf(device, b, [n * n], "f32")] as const;
  const rows = tensorOf(device, SPECIAL, [n, 1], "f32").neg().neg();
  const spread = [rows.expand([n, n]).reshape([n * n]), inMemory[1].abs().mul(inMemory[1].sign())] as const;
  const folded = b.map((v) => (Number.isNaN(v) ? v : Math.abs(v) * (Math.sign(v) || 0)));
  const table: readonly (readonly [
    string,
    (x: Tensor, y: Tensor) => Tensor,
    (x: number, y: number) => number,
  ])[] = [
    ["add", (x, y) => x.add(y), (x, y) => x + y],
    ["sub", (x, y) => x.sub(y), (x, y) => x - y],
    ["mul", (x, y) => x.mul(y), (x, y) => (Math.abs(x * y) > 1e39 ? x * y * Infinity : x * y)],
    ["div", (x, y) => x.div(y), (x, y) => (y === 0 && x !== 0 ? x / 0 : x / y)],
    ["maximum", (x, y) => x.maximum(y), Math.max],
    ["minimum", (x, y) => x.minimum(y), Math.min],
    ["lt", (x, y) => x.lt(y), (x, y) => Number(x < y)],
    ["le", (x, y) => x.le(y), (x, y) => Number(x <= y)],
    ["gt", (x, y) => x.gt(y), (x, y) => Number(x > y)],
    ["ge", (x, y) => x.ge(y), (x, y) => Number(x >= y)],
    ["eq", (x, y) => x.eq(y), (x, y) => Number(x === y)],
    ["ne", (x, y) => x.ne(y), (x, y) => Number(x !== y)],
    ["not of lt", (x, y) => x.lt(y).not(), (x, y) => Number(!(x < y))],
    ["where of lt", (x, y) => where(x.lt(y), 1, 2), (x, y) => (x < y ? 1 : 2)],
  ];
  const expectations = table.flatMap(([name, f, g]): Expectation[] => [
    [name, f(...inMemory), a.map((v, i) => g(f32(v), f32(b[i]!)))],
    // computing may lose the sign of -0, and with it the sign of an infinite quotient
    ...(name === "div"
      ? []
      : [
          [
            `${name} of computed`,
            f(...spread),
            a.map((v, i) => g(f32(v), f32(folded[i]!))),
          ] satisfies Expectation,
        ]),
  ]);
  // a remainder has the sign of the dividend; it is not exact where the quotient has more digits than f32
  const remainders = [[7, 3], [-7, 3], [7, -3], [-7.5, -2], [5, Infinity], [-5, -Infinity], [Infinity, 2], [NaN, 2], [3, NaN], [3, 0], [0, 3], [0, 0]]; // prettier-ignore
  const [p, q] = [0, 1].map((k) => tensorOf(device, remainders.map((r) => r[k]!), [remainders.length], "f32")); // prettier-ignore
  const ofPowers = powers(device);
  await expectAll([...expectations, ...ofPowers, ["mod", p!.mod(q!), remainders.map(([x, y]) => x! % y!)]]);
}

/** Powers, and their gradients, also at 0. */
function powers(device: Device): Expectation[] {
  const bases = [NaN, Infinity, -Infinity, 0, 1, -1, 0.5, -0.5, 2, -2, 3, -3];
  const exponents = [NaN, Infinity, -Infinity, 0, 1, -1, 2, 3, -3, 0.5, -0.5, 1.5, -1.5, 13];
  const a = bases.flatMap((v) => exponents.map(() => v));
  const b = bases.flatMap(() => exponents);
  const [x, y] = [tensorOf(device, a, [a.length], "f32"), tensorOf(device, b, [b.length], "f32")];
  // some powers of 1 and -1 are 1 in IEEE 754 but NaN in JavaScript
  const exact = (p: number, q: number): number =>
    p === 1 || (p === -1 && Math.abs(q) === Infinity)
      ? 1
      : Math.abs(p ** q) > 3.5e38
        ? p ** q * Infinity
        : p ** q;
  const slopes: readonly (readonly [x: number, y: number, dx: number, dy: number])[] = [
    [0, 2, 0, 0],
    [0, 1, 1, 0],
    [0, 1.5, 0, 0],
    [0, 0, 0, 0],
    [2, 0, 0, Math.LN2],
    [-2, 3, 12, NaN],
    [2, 1.5, 1.5 * Math.SQRT2, 2 ** 1.5 * Math.LN2],
  ];
  const [p, q] = [0, 1].map((k) => tensorOf(device, slopes.map((s) => s[k]!), [slopes.length], "f32")); // prettier-ignore
  const [dp, dq] = grad(p!.pow(q!).sum(), [p!, q!]);
  return [
    ["pow", x.pow(y), a.map((v, i) => exact(v, b[i]!))],
    ...[0.5, -0.5, 1.5, -1.5, 3, -3].map((v): Expectation => [
      `pow(${v})`,
      x.pow(v),
      a.map((u) => exact(u, v)),
    ]),
    ["gradient of pow for its base", dp!, slopes.map((s) => s[2])],
    ["gradient of pow for its exponent", dq!, slopes.map((s) => s[3])],
  ];
}

/** Reductions of rows and columns of many lengths, with a NaN at various places. */
async function reductions(device: Device): Promise<void> {
  const expectations: Expectation[] = [];
  for (const n of [1, 3, 4, 7, 64, 130, 300]) {
    const places = [...new Set([0, 1, 2, n >> 1, n - 1])].filter((i) => i < n);
    const rows = places.map((place) =>
      Array.from({ length: n }, (_, i) => (i === place ? NaN : ((i * 7) % 11) - 5)),
    );
    rows.push(Array.from({ length: n }, (_, i) => ((i * 7) % 11) - 5));
    const second = rows.at(-1)!.map((v, i) => (i >= n - 2 ? NaN : v));
    const infinite = rows.at(-1)!.map((v, i) => (i === n - 1 ? -Infinity : v));
    rows.push(second, infinite, rows.at(-1)!.map(() => -Infinity)); // prettier-ignore
    const largest = (row: readonly number[]): number => Math.max(...row);
    const smallest = (row: readonly number[]): number => Math.min(...row);
    const first = (row: readonly number[], value: number): number => {
      const nan = row.findIndex((v) => Number.isNaN(v));
      return nan >= 0 ? nan : row.indexOf(value);
    };
    const total = (row: readonly number[]): number => row.reduce((s, v) => s + v, 0);
    const table: readonly (readonly [
      string,
      (x: Tensor, axis: number) => Tensor,
      (row: readonly number[]) => number,
    ])[] = [
      ["max", (x, axis) => x.max(axis), largest],
      ["min", (x, axis) => x.min(axis), smallest],
      ["argmax", (x, axis) => x.argmax(axis), (row) => first(row, largest(row))],
      ["argmin", (x, axis) => x.argmin(axis), (row) => first(row, smallest(row))],
      ["sum", (x, axis) => x.sum(axis), total],
      ["mean", (x, axis) => x.mean(axis), (row) => total(row) / n],
      [
        "prod",
        (x, axis) => x.slice([0, rows.length - 3], null).prod(axis),
        (row) => row.reduce((s, v) => s * v, 1),
      ],
      [
        "logSumExp",
        (x, axis) => x.logSumExp(axis),
        (row) => (largest(row) === -Infinity ? -Infinity : Math.log(total(row.map((v) => Math.exp(v))))),
      ],
    ];
    const x = tensorOf(device, rows.flat(), [rows.length, n], "f32");
    const columns = tensorOf(device, Array.from({ length: n }, (_, i) => rows.map((row) => row[i]!)).flat(), [n, rows.length], "f32"); // prettier-ignore
    for (const [name, f, g] of table) {
      if (name === "prod" && n > 7) continue;
      const used = name === "prod" ? rows.slice(0, -3) : rows;
      expectations.push([`${name} of rows of ${n}`, f(x, 1), used.map(g)]);
      if (name !== "prod") expectations.push([`${name} of columns of ${n}`, f(columns, 0), used.map(g)]);
    }
  }
  await expectAll(expectations);
}

async function reductionsOfNothing(device: Device): Promise<void> {
  const none = (dtype: DType): Tensor => tensorOf(device, [], [2, 0], dtype);
  const twice = (v: number): number[] => [v, v];
  const x = none("f32");
  await expectAll([
    ["sum", x.sum(1), twice(0)],
    ["prod", x.prod(1), twice(1)],
    ["max", x.max(1), twice(-Infinity)],
    ["min", x.min(1), twice(Infinity)],
    ["mean", x.mean(1), twice(NaN)],
    ["mean plus one", x.mean(1).add(1), twice(NaN)],
    ["mean of all", x.mean(), [NaN]],
    ["mean of f16", none("f16").mean(1), twice(NaN)],
    ["variance", x.variance(1), twice(NaN)],
    ["variance with a correction", x.variance(1, { correction: 1 }), twice(NaN)],
    ["variance of one, corrected", ones([2, 1]).mul(tensorOf(device, [3], [1], "f32")).variance(1, { correction: 1 }), twice(NaN)], // prettier-ignore
    ["logSumExp", x.logSumExp(1), twice(-Infinity)],
    ["sum of i32", none("i32").sum(1), twice(0)],
    ["max of i32", none("i32").max(1), twice(-(2 ** 31))],
    ["min of u32", none("u32").min(1), twice(2 ** 32 - 1)],
    ["a product without a middle", x.matmul(tensorOf(device, [], [0, 2], "f32")), [0, 0, 0, 0]],
  ]);
}

async function conversions(device: Device): Promise<void> {
  const values = [NaN, Infinity, -Infinity, 3e9, -3e9, 2 ** 31, -(2 ** 31), 2147483520, 5e9, 2 ** 32, 4294967040, -1, -0.9, 0.9, -1.9, 1.9, 0, -0, 1e30]; // prettier-ignore
  const x = tensorOf(device, values, [values.length], "f32");
  const saturate = (low: number, high: number) => (v: number) =>
    Number.isNaN(v) ? 0 : Math.min(Math.max(Math.trunc(v), low), high);
  const halves = [
    65504,
    65519,
    65520,
    -65520,
    2 ** 33,
    NaN,
    Infinity,
    -Infinity,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    2 ** -15,
    0,
  ];
  const y = tensorOf(device, halves, [halves.length], "f32");
  const f16 = [
    65504,
    65504,
    Infinity,
    -Infinity,
    Infinity,
    NaN,
    Infinity,
    -Infinity,
    1,
    1 + 2 ** -9,
    2 ** -15,
    0,
  ];
  const bf16 = [65536, 65536, 65536, -65536, 2 ** 33, NaN, Infinity, -Infinity, 1, 1, 2 ** -15, 0];
  const integers = [0, 1, -1, 2 ** 31 - 1, -(2 ** 31)];
  const i = tensorOf(device, integers, [5], "i32");
  const { dtypes } = device.backend.caps;
  await expectAll([
    ["f32 to i32", x.cast("i32"), values.map(saturate(-(2 ** 31), 2 ** 31 - 1))],
    ["f32 to u32", x.cast("u32"), values.map(saturate(0, 2 ** 32 - 1))],
    [
      "computed f32 to i32",
      x.mul(1.5).cast("i32"),
      values.map((v) => saturate(-(2 ** 31), 2 ** 31 - 1)(f32(v * 1.5))),
    ],
    ["f32 to bool", x.cast("bool"), values.map((v) => (v === 0 ? 0 : 1))],
    ["NaN, computed, to bool", x.sub(x).cast("bool"), values.map((v) => (Number.isFinite(v) ? 0 : 1))],
    ["i32 to u32", i.cast("u32"), integers.map((v) => v >>> 0)],
    ["i32 to bool", i.cast("bool"), integers.map((v) => Number(v !== 0))],
    ["i32 to f32", i.cast("f32"), integers.map(f32)],
    ...(dtypes.has("f16") ? [["f32 to f16", y.cast("f16").cast("f32"), f16] satisfies Expectation] : []),
    ...(dtypes.has("bf16") ? [["f32 to bf16", y.cast("bf16").cast("f32"), bf16] satisfies Expectation] : []),
  ]);
}

async function integers(device: Device): Promise<void> {
  const list = [0, 1, -1, 7, -7, 3, 2 ** 31 - 1, -(2 ** 31)];
  const a = list.flatMap((v) => list.map(() => v));
  const b = list.flatMap(() => list);
  const make = (values: readonly number[], dtype: DType): Tensor =>
    tensorOf(device, values.map((v) => (dtype === "u32" ? v >>> 0 : v)), [values.length], dtype); // prettier-ignore
  const [x, y, s, t] = [make(a, "i32"), make(b, "i32"), make(a, "u32"), make(b, "u32")];
  const both = (f: (p: number, q: number) => number, wrap: (v: number) => number): number[] =>
    a.map((v, i) => wrap(f(wrap(v), wrap(b[i]!))));
  const signed = (v: number): number => v | 0;
  const unsigned = (v: number): number => v >>> 0;
  const quotient = (p: number, q: number): number => (q === 0 ? 0 : Math.trunc(p / q));
  const remainder = (p: number, q: number): number => (q === 0 ? 0 : p % q);
  const plus = (p: number, q: number): number => p + q;
  await expectAll([
    ["i32 div", x.div(y), both(quotient, signed)],
    ["i32 mod", x.mod(y), both(remainder, signed)],
    ["i32 div by 0", x.div(0), a.map(() => 0)],
    ["i32 mod by 0", x.mod(0), a.map(() => 0)],
    ["i32 div by -1", x.div(-1), a.map((v) => signed(-v))],
    ["i32 mod by -1", x.mod(-1), a.map(() => 0)],
    ["u32 div", s.div(t), both(quotient, unsigned)],
    ["u32 mod", s.mod(t), both(remainder, unsigned)],
    ["i32 add", x.add(y), both(plus, signed)],
    ["u32 add", s.add(t), both(plus, unsigned)],
    ["i32 mul", x.mul(y), both(Math.imul, signed)],
    ["i32 neg", x.neg(), a.map((v) => signed(-v))],
    ["i32 abs", x.abs(), a.map((v) => signed(Math.abs(v)))],
    ["i32 max", x.maximum(y), both(Math.max, signed)],
    ["u32 min", s.minimum(t), both(Math.min, unsigned)],
  ]);
}

/** Sines of angles so large that f32 resolves no turn, logarithms near 0, and exponentials that are just in range. */
async function hardNumbers(device: Device): Promise<void> {
  const angles = [
    1e4,
    10001.5,
    1e5,
    1e6,
    1e7,
    1e10,
    -1e10,
    2 ** 31,
    1e15,
    1e20,
    1e30,
    3e38,
    16367173 * 2 ** 72,
  ].map(f32); // the last is near a multiple of pi/2
  const near = [0.9999999, 1.0000001, 0.99, 1.01, 0.5, 2, 1e-38, 3e38].map(f32);
  const tiny = [1e-30, -1e-10, 1e-7, -1e-4, 0.3, -0.3, 2, -0.9].map(f32);
  const exponents = [88.7, -87.3, -80, -50, 50, 20.5, -20.5, 1e-7].map(f32);
  const of = (list: readonly number[]): Tensor => tensorOf(device, list, [list.length], "f32");
  await expectAll([
    ["sin", of(angles).sin(), angles.map(Math.sin)],
    [
      "cos",
      of(angles)
        .cos()
        .mul(of(angles.map(() => 1))),
      angles.map(Math.cos),
    ],
    ["log", of(near).log(), near.map(Math.log)],
    ["log1p", of(tiny).log1p(), tiny.map(Math.log1p)],
    ["expm1", of(tiny).expm1(), tiny.map(Math.expm1)],
    ["exp", of(exponents).exp(), exponents.map(Math.exp)],
    ["logAddExp", of([-Infinity, -Infinity, Infinity, 0, 0, 100]).logAddExp(of([-Infinity, 1, Infinity, -20, 0, 1000])), [-Infinity, 1, Infinity, Math.log1p(Math.exp(-20)), Math.log(2), 1000]], // prettier-ignore
    ["logAddExp with NaN", of([NaN, 1]).logAddExp(of([1, NaN])), [NaN, NaN]],
  ]);
}

/** Gradients at NaN, ties and kinks, as in PyTorch. */
async function gradients(device: Device): Promise<void> {
  const values = [NaN, 2, 1, 0, -Infinity];
  const x = tensorOf(device, values, [5], "f32");
  const one = full([5], 1);
  const of = (y: Tensor): Tensor => grad(y.sum(), [x])[0]!;
  const zero = tensorOf(device, [0, 0, -0], [3], "f32");
  await expectAll([
    ["of maximum", of(x.maximum(one)), [1, 1, 0.5, 0, 0]],
    ["of minimum", of(x.minimum(one)), [1, 0, 0.5, 1, 1]],
    ["of abs", of(x.abs()), [0, 1, 1, 0, -1]],
    ["of relu", of(x.relu()), [1, 1, 1, 0, 0]],
    ["of softplus at 0", grad(zero.softplus().sum(), [zero])[0]!, [0.5, 0.5, 0.5]],
    ["of logAddExp at a tie", grad(zero.logAddExp(zero.detach()).sum(), [zero])[0]!, [0.5, 0.5, 0.5]],
  ]);
}

export function specialCases(context: Context): ConformanceCase[] {
  const cases = {
    "functions of NaN, infinities and zeros": unary,
    "pairs of NaN, infinities and numbers": binary,
    "a NaN anywhere is the result of a reduction": reductions,
    "reductions of nothing": reductionsOfNothing,
    "conversions out of range": conversions,
    "integers at the ends of their range, and divided by zero": integers,
    "angles of any size, logarithms near 0, exponentials at the ends of the range": hardNumbers,
    "gradients at NaN, ties and kinks": gradients,
  };
  return Object.entries(cases).map(([name, run]) => ({ name, run: async () => run(await context.device()) }));
}
