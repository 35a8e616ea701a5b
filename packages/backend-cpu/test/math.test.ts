/** The vector math stays within the errors that `src/codegen/math.ts` states, over the whole range of f32. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { LoopKernel, UnaryOp } from "@tiedlora/kernels";
import { CpuBackend } from "../src/device/backend.ts";
import { denseOperand, runOn } from "./support/run.ts";

const backend = new CpuBackend({ threads: 1 });
after(() => backend.close());

async function apply(op: UnaryOp, values: Float32Array): Promise<Float32Array> {
  const shape = [values.length];
  const kernel: LoopKernel = {
    type: "loop",
    outer: shape,
    inner: [],
    body: [
      { op: "load", from: denseOperand(0, "f32", shape), dtype: "f32" },
      { op, a: 0, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(1, "f32", shape), value: 1 }],
  };
  const contents = [values.slice().buffer, new ArrayBuffer(4 * values.length)];
  return new Float32Array((await runOn(backend, [kernel], contents))[1]!);
}

/** The distance between neighboring f32 at x. */
function ulp(x: number): number {
  const exponent = Math.floor(Math.log2(Math.max(Math.abs(x), 2 ** -126)));
  return 2 ** (exponent - 23);
}

/** Every 9,973rd f32 between two bounds, both signs, from the subnormal to the largest. */
function sweep(from: number, to: number): Float32Array {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  const out: number[] = [];
  for (let b = 1; b < 0x7f800000; b += 9973) {
    bits[0] = b;
    for (const x of [value[0]!, -value[0]!]) if (x >= from && x <= to) out.push(x);
  }
  return Float32Array.from(out);
}

/** erf to double precision: its series near 0, a continued fraction of erfc beyond. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  if (Math.abs(x) > 2.5) {
    let fraction = 0;
    for (let n = 120; n > 0; n--) fraction = n / 2 / (Math.abs(x) + fraction);
    const tail = Math.exp(-x * x) / (Math.abs(x) + fraction) / Math.sqrt(Math.PI);
    return Math.sign(x) * (1 - tail);
  }
  let [term, sum] = [x, x];
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

interface Claim {
  readonly op: UnaryOp;
  readonly exact: (x: number) => number;
  readonly range: readonly [number, number];
  readonly ulps: number;
  readonly absolute?: number;
}

const CLAIMS: readonly Claim[] = [
  { op: "exp", exact: Math.exp, range: [-103, 88.7], ulps: 2 },
  { op: "expm1", exact: Math.expm1, range: [-3.4e38, 88.7], ulps: 3 },
  { op: "log", exact: Math.log, range: [0, 3.4e38], ulps: 2 },
  { op: "log1p", exact: Math.log1p, range: [-1, 3.4e38], ulps: 3 },
  { op: "sin", exact: Math.sin, range: [-3.4e38, 3.4e38], ulps: 2, absolute: 1e-7 },
  { op: "cos", exact: Math.cos, range: [-3.4e38, 3.4e38], ulps: 2, absolute: 1e-7 },
  { op: "tanh", exact: Math.tanh, range: [-3.4e38, 3.4e38], ulps: 4 },
  { op: "erf", exact: erf, range: [-3.4e38, 3.4e38], ulps: 10, absolute: 3e-7 },
  { op: "sqrt", exact: Math.sqrt, range: [0, 3.4e38], ulps: 0.5 },
  { op: "rsqrt", exact: (x) => 1 / Math.sqrt(x), range: [2 ** -126, 3.4e38], ulps: 2 },
  { op: "recip", exact: (x) => 1 / x, range: [-3.4e38, 3.4e38], ulps: 0.5 },
];

for (const { op, exact, range, ulps, absolute = 0 } of CLAIMS) {
  test(`${op} within ${ulps} ulp`, async () => {
    const x = sweep(...range);
    const y = await apply(op, x);
    assert.ok(x.length > 10_000);
    y.forEach((value, i) => {
      const want = exact(x[i]!);
      if (Math.fround(want) === value) return; // also beyond the range of f32
      const error = Math.abs(value - want);
      const allowed = ulps * ulp(want) * (1 + 1e-6) + absolute;
      assert.ok(error <= allowed, `${op}(${x[i]}) = ${value}, exactly ${want}: ${error / ulp(want)} ulp`);
    });
  });
}

const SPECIAL: {
  readonly [K in Exclude<UnaryOp, "neg" | "abs" | "floor" | "not" | "recip">]: readonly number[];
} = {
  // of NaN, -Infinity, Infinity, 0
  exp: [NaN, 0, Infinity, 1],
  expm1: [NaN, -1, Infinity, 0],
  log: [NaN, NaN, Infinity, -Infinity],
  log1p: [NaN, NaN, Infinity, 0],
  sin: [NaN, NaN, NaN, 0],
  cos: [NaN, NaN, NaN, 1],
  tanh: [NaN, -1, 1, 0],
  erf: [NaN, -1, 1, 0],
  sqrt: [NaN, NaN, Infinity, 0],
  rsqrt: [NaN, NaN, 0, Infinity],
};

for (const [op, expected] of Object.entries(SPECIAL)) {
  test(`${op} of NaN, infinities and zero`, async () => {
    const y = await apply(op as UnaryOp, Float32Array.from([NaN, -Infinity, Infinity, 0]));
    expected.forEach((want, i) => {
      const error = Math.abs(y[i]! - want);
      assert.ok(Object.is(y[i], want) || error <= 1e-6, `${op}, case ${i}: ${y[i]} instead of ${want}`);
    });
  });
}
