/**
 * Compares elementary functions and activations with their formulas in float64: values, gradients and second derivatives from
 * -10,000 to 10,000, at both zeros and infinities, and at NaN.
 *
 * An error is measured against the result's scale: the largest of |result| and the terms that its formula adds, such as
 * 1 and tanh² in 1 - tanh². It may be four units in the last place of the scale (4 · 2^-23) plus 2^-125, since small results
 * may be flushed to zero. A device that also flushes operands and intermediate values, as WGSL allows, may lose |x| times
 * as much, and may treat a subnormal x as zero.
 */
import { type Device, grad, realize, type Tensor } from "@tiedlora/core";
import { erf } from "../bounds/erf.ts";
import type { ConformanceCase, Context } from "./context.ts";

/** A result, and the terms that its formula adds. */
type Exact = readonly [result: number, ...terms: number[]];
type Formula = (x: number) => Exact;

interface Claim {
  readonly name: string;
  readonly f: (x: Tensor) => Tensor;
  /** The function, its derivative, its second derivative. */
  readonly orders: readonly Formula[];
  /** The smallest argument for which it is defined. */
  readonly from?: number;
  /** The values of the orders at NaN, if they are not all NaN. */
  readonly atNaN?: readonly number[];
}

const sigmoid = (x: number): number => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));
/** σ(x) σ(-x). */
const bell = (x: number): number => sigmoid(x) * sigmoid(-x);
const normal = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
/** f where |x| is below 1,000. Beyond that the gate is shut or open: 0 on the left, `right` on the right. */
const gate =
  (f: Formula, right: (x: number) => number): Formula =>
  (x) =>
    Math.abs(x) < 1000 ? f(x) : [x > 0 ? right(x) : 0];
const same = (x: number): number => x;
const C = Math.sqrt(2 / Math.PI);
const u = (x: number): number => C * (x + 0.044715 * x ** 3);
const slope = (x: number): number => C * (1 + 3 * 0.044715 * x * x);

const ACTIVATIONS: readonly Claim[] = [
  {
    name: "sigmoid",
    f: (x) => x.sigmoid(),
    orders: [(x) => [sigmoid(x)], (x) => [bell(x)], (x) => [bell(x) * (sigmoid(-x) - sigmoid(x)), bell(x)]],
  },
  {
    name: "silu",
    f: (x) => x.silu(),
    orders: [
      gate((x) => [x * sigmoid(x)], same),
      gate(
        (x) => [sigmoid(x) + x * bell(x), sigmoid(x), x * bell(x)],
        () => 1,
      ),
      gate(
        (x) => [bell(x) * (2 + x * (sigmoid(-x) - sigmoid(x))), 2 * bell(x), x * bell(x)],
        () => 0,
      ),
    ],
  },
  {
    name: "softplus",
    f: (x) => x.softplus(),
    orders: [
      (x) => [Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))],
      (x) => [sigmoid(x)],
      (x) => [bell(x)],
    ],
  },
  {
    name: "tanh",
    f: (x) => x.tanh(),
    orders: [
      (x) => [Math.tanh(x)],
      (x) => [4 * bell(2 * x), 1],
      (x) => [-8 * Math.tanh(x) * bell(2 * x), 2 * Math.tanh(x)],
    ],
  },
  {
    name: "gelu",
    f: (x) => x.gelu(),
    orders: [
      gate((x) => [(x / 2) * (1 + erf(x * Math.SQRT1_2)), x / 2], same),
      gate(
        (x) => [(1 + erf(x * Math.SQRT1_2)) / 2 + x * normal(x), 0.5, x * normal(x)],
        () => 1,
      ),
    ],
  },
  {
    name: 'gelu("tanh")',
    f: (x) => x.gelu("tanh"),
    orders: [
      gate((x) => [x * sigmoid(2 * u(x)), x / 2], same),
      gate(
        (x) => [
          sigmoid(2 * u(x)) + 2 * x * bell(2 * u(x)) * slope(x),
          0.5,
          2 * x * bell(2 * u(x)) * slope(x),
        ],
        () => 1,
      ),
    ],
  },
  {
    name: "relu",
    f: (x) => x.relu(),
    orders: [(x) => [Math.max(x, 0)], (x) => [Number(x > 0)]],
    atNaN: [NaN, 1], // as in PyTorch: the value is NaN, the gradient is not
  },
];

const FUNCTIONS: readonly Claim[] = [
  { name: "exp", f: (x) => x.exp(), orders: [(x) => [Math.exp(x)], (x) => [Math.exp(x)]] },
  {
    name: "expm1",
    f: (x) => x.expm1(),
    orders: [(x) => [Math.expm1(x)], (x) => [Math.exp(x)], (x) => [Math.exp(x)]],
  },
  { name: "log", f: (x) => x.log(), orders: [(x) => [Math.log(x)], (x) => [1 / x]], from: 2 ** -126 },
  {
    name: "log1p",
    f: (x) => x.log1p(),
    orders: [(x) => [Math.log1p(x)], (x) => [1 / (1 + x)], (x) => [-1 / (1 + x) ** 2]],
    from: -0.999,
  },
  {
    name: "sin",
    f: (x) => x.sin(),
    orders: [(x) => [Math.sin(x), Math.min(1, Math.abs(x))], (x) => [Math.cos(x), 1]],
  },
  {
    name: "cos",
    f: (x) => x.cos(),
    orders: [(x) => [Math.cos(x), 1], (x) => [-Math.sin(x), Math.min(1, Math.abs(x))]],
  },
  { name: "erf", f: (x) => x.erf(), orders: [(x) => [erf(x), 1]] },
];

/** Zero, infinity and magnitudes from 2^-130 to 10,000, some where f32 exponentials overflow or underflow; with both signs. */
function points(from: number): Float32Array<ArrayBuffer> {
  const sizes = [
    0,
    Infinity,
    1e4,
    9.0109,
    17.33,
    87.3,
    88,
    88.72,
    88.8,
    89,
    100,
    103.9,
    104,
    0.9999999,
    1.0000001,
  ];
  for (let e = -130; e < 13.2; e += 0.37) sizes.push(2 ** e);
  for (let x = 0.03; x < 120; x *= 1.013) sizes.push(x);
  for (let x = 0.21; x < 30; x += 0.219) sizes.push(x);
  return Float32Array.from([...sizes, ...sizes.map((x) => -x)].filter((x) => !(x < from)).concat(NaN));
}

/** Whether the device flushes subnormal numbers to zero. */
async function flushesSubnormals(device: Device): Promise<boolean> {
  return (
    (await device
      .tensor([2 ** -126])
      .mul(device.tensor([0.5]))
      .sum()
      .item()) === 0
  );
}

/** Describes the fault of a result at x, or returns null; `lost` is the error that flushing may cause. */
function complaint(x: number, found: number, [exact, ...terms]: Exact, lost: number): string | null {
  if (Object.is(found, exact) || found === exact || Math.fround(exact) === found) return null;
  const scale = Math.max(Math.abs(exact), ...terms.map(Math.abs));
  const allowed = 4 * 2 ** -23 * scale + lost;
  if (Math.abs(found - exact) <= allowed) return null;
  if (Math.abs(exact) > 3.402e38 && Math.abs(found) > 3.402e38) return null;
  return `${found} at ${x} instead of ${exact}: ${(Math.abs(found - exact) / scale / 2 ** -23).toFixed(1)} ulp of its scale`;
}

async function check(device: Device, claims: readonly Claim[]): Promise<void> {
  const wrong: string[] = [];
  const runs = claims.map((claim) => {
    const at = points(claim.from ?? -Infinity);
    const x = device.tensor(at);
    const orders = [claim.f(x)];
    while (orders.length < claim.orders.length) orders.push(...grad(orders.at(-1)!.sum(), [x]));
    return { claim, at, orders };
  });
  realize(...runs.flatMap(({ orders }) => orders));
  const flushes = await flushesSubnormals(device);
  for (const { claim, at, orders } of runs) {
    for (const [order, tensor] of orders.entries()) {
      const found = await tensor.data();
      const bad = Array.from(at).flatMap((x, i) => {
        const exactAt = (at: number): Exact =>
          Number.isNaN(at) ? [claim.atNaN?.[order] ?? NaN] : claim.orders[order]!(at);
        const lost = 2 ** -125 * (flushes && Number.isFinite(x) ? Math.max(1, Math.abs(x)) : 1);
        const asZero = flushes && Math.abs(x) < 2 ** -126;
        if (asZero && complaint(x, found[i]!, exactAt(x < 0 ? -0 : 0), lost) === null) return [];
        return complaint(x, found[i]!, exactAt(x), lost) ?? [];
      });
      if (bad.length > 0)
        wrong.push(`${claim.name}${"'".repeat(order)}, ${bad.length} wrong: ${bad.slice(0, 4).join("; ")}`);
    }
  }
  if (wrong.length > 0) throw new Error(wrong.join("\n"));
}

export function functionCases(context: Context): ConformanceCase[] {
  return [
    {
      name: "activations, their gradients and second derivatives keep their precision everywhere",
      run: async () => check(await context.device(), ACTIVATIONS),
    },
    {
      name: "elementary functions and their derivatives keep their precision everywhere",
      run: async () => check(await context.device(), FUNCTIONS),
    },
  ];
}
