/**
 * Compares derivatives with finite differences in double precision: for random inputs x, a random direction d and random
 * weights w, the sum of the gradients' components along d must be the slope of w · f(x + t d) at t = 0.
 *
 * The slope is a five-point difference. Points are multiples of 2^-13, so that they are exact in f32 as well.
 */
import { type Device, type DType, grad, stack, type Tensor } from "@tiedlora/core";
import { prng } from "./prng.ts";
import { isFloatSpec, type OpCase, type OpRecord, sample } from "./records/record.ts";

const H = 2 ** -10;
/** F'(0) ≈ Σ weight · F(t), with error h⁴ F⁽⁵⁾/30. */
const STENCIL: readonly (readonly [t: number, weight: number])[] = [
  [-2 * H, 1 / (12 * H)],
  [-H, -8 / (12 * H)],
  [H, 8 / (12 * H)],
  [2 * H, -1 / (12 * H)],
];
/**
 * Relative to the sum of the absolute values of all terms. In the records' domains truncation is below 1e-8 of it, and rounding
 * (1e-16 of F, divided by h) below 1e-12; a wrong rule is off by the size of a term.
 */
const TOLERANCE = 1e-6;

/** A scalar function of several tensors. */
type Scalar = (inputs: readonly Tensor[]) => Tensor;

interface Point {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly values: number[];
  /** Null if the input is not differentiated. */
  readonly direction: number[] | null;
}

const snap = (x: number): number => Math.round(x * 1024) / 1024;

function drawPoints(test: OpCase, record: OpRecord, seed: number): Point[] {
  const random = prng(seed ^ 0x5bd1e995);
  return test.inputs.map((spec, i) => {
    const n = spec.shape.reduce((a, d) => a * d, 1);
    const isFloat = isFloatSpec(spec);
    const dtype = isFloat ? (record.derivativeInputs ?? "f64") : spec.dtypes[0]!;
    const values = sample(spec.domain, spec.dtypes[0]!, n, seed + i).map((x) => (isFloat ? snap(x) : x));
    const direction = isFloat && !spec.fixed ? values.map(() => Math.round(random() * 16 - 8) / 8) : null;
    return { shape: spec.shape, dtype, values, direction };
  });
}

function tensorsAt(device: Device, points: readonly Point[], t: number): Tensor[] {
  return points.map(({ shape, dtype, values, direction }) => {
    const moved = direction ? values.map((x, i) => x + t * direction[i]!) : values;
    const array =
      dtype === "f64"
        ? Float64Array.from(moved)
        : dtype === "f32"
          ? Float32Array.from(moved)
          : Int32Array.from(moved);
    if (dtype === "bool" || dtype === "u32") return device.tensor(Uint32Array.from(moved), { shape, dtype });
    return device.tensor(array, { shape, dtype });
  });
}

/** Σ w · output over all float outputs, with weights from `seed`. */
function weighted(device: Device, outputs: readonly Tensor[], seed: number): Tensor {
  const terms = outputs
    .filter((y) => y.dtype === "f32" || y.dtype === "f64")
    .map((y, i) => {
      const random = prng(seed + 977 * i);
      const weights = Float64Array.from({ length: y.size }, () => random() * 2 - 1);
      return y
        .cast("f64")
        .mul(device.tensor(weights, { shape: y.shape, dtype: "f64" }))
        .sum();
    });
  if (terms.length === 0) throw new Error("no output has a derivative");
  return terms.reduce((a, b) => a.add(b));
}

/** Throws unless the derivative of `f` at `points` along their directions agrees with the differences. */
async function checkSlope(device: Device, f: Scalar, points: readonly Point[], what: string): Promise<void> {
  const inputs = tensorsAt(device, points, 0);
  const varied = inputs.flatMap((x, i) =>
    points[i]!.direction ? [{ x, direction: points[i]!.direction }] : [],
  );
  const gradients = grad(f(inputs), varied.map(({ x }) => x)); // prettier-ignore
  const parts = gradients.map((g, i) => {
    const d = device.tensor(Float64Array.from(varied[i]!.direction), { shape: g.shape, dtype: "f64" });
    return g.cast("f64").mul(d);
  });
  const analytic = parts.map((p) => p.sum()).reduce((a, b) => a.add(b));
  const size = parts.map((p) => p.abs().sum()).reduce((a, b) => a.add(b));
  const samples = STENCIL.map(([t]) => f(tensorsAt(device, points, t)));
  const [slope, scale, ...values] = await stack([analytic, size, ...samples]).data();
  const difference = STENCIL.reduce((sum, [, weight], i) => sum + weight * values[i]!, 0);
  const allowed = TOLERANCE * (scale! + Math.abs(difference) + 1e-3);
  if (Math.abs(slope! - difference) <= allowed) return;
  const shown = test(points);
  throw new Error(
    `${what}: the gradient gives ${slope}, differences ${difference} (allowed ${allowed.toExponential(1)})\n${shown}`,
  );
}

const test = (points: readonly Point[]): string =>
  points
    .map(
      ({ shape, dtype, values }, i) =>
        `  input ${i}: ${dtype} [${shape.join(", ")}] = [${values.slice(0, 12).join(", ")}${values.length > 12 ? ", …" : ""}]`,
    )
    .join("\n");

/** Checks the first or the second derivatives of one case of a record. */
export async function checkDerivative(
  device: Device,
  record: OpRecord,
  opCase: OpCase,
  seed: number,
  order: 1 | 2,
): Promise<void> {
  const points = drawPoints(opCase, record, seed);
  const first: Scalar = (inputs) => weighted(device, [opCase.build(inputs)].flat(), seed + 1);
  if (order === 1) return checkSlope(device, first, points, opCase.call);
  const second: Scalar = (inputs) => {
    const varied = inputs.filter((_, i) => points[i]!.direction !== null);
    return weighted(device, grad(first(inputs), varied), seed + 2);
  };
  return checkSlope(device, second, points, `second derivative of ${opCase.call}`);
}
