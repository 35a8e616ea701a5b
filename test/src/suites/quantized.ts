/**
 * Products with quantized weights, forward and backward, and rows of quantized tables. Scales and biases are powers of two and
 * small whole numbers, so that whole-number codes give results that are exact, and equal to those of the formula.
 */
import {
  codeValue,
  f32ToF16,
  grad,
  key,
  type CodeTable,
  type Device,
  Parameter,
  realize,
  type Tensor,
  uniformArray,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { ConformanceCase, Context } from "./context.ts";

interface Format {
  readonly bits: 4 | 8;
  readonly table: CodeTable;
  readonly group: number;
  readonly half?: true;
  readonly biases?: true;
}

const FORMATS: readonly Format[] = [
  { bits: 4, table: "nf4", group: 64 },
  { bits: 4, table: "linear", group: 32, half: true, biases: true },
  { bits: 4, table: "signed", group: 128 },
  { bits: 8, table: "signed", group: 64, half: true },
  { bits: 8, table: "linear", group: 128, biases: true },
  { bits: 4, table: "nf4", group: 8 }, // smaller than kernels read: lowered
];

/** [rows of x, out, in]: one row, and more than tiles and blocks hold; `out` is no multiple of anything. */
const SIZES: readonly (readonly [number, number, number])[] = [
  [1, 37, 256],
  [70, 83, 640],
];

const whole = (seed: number, count: number, from: number, to: number): Float64Array =>
  Float64Array.from(uniformArray(key(seed), count, from, to + 1), Math.floor);

/** A weight with random codes. Scales in half precision are f32 on a backend that has no f16; they are exact in both. */
function drawQuantized(shape: readonly number[], format: Format, device: Device): nn.QuantizedValues {
  const { bits, table, group } = format;
  const half = format.half && device.backend.caps.dtypes.has("f16");
  const size = shape.reduce((a, b) => a * b, 1);
  const words = Uint32Array.from(whole(1, (size * bits) / 32, 0, 2 ** 32 - 1));
  const scales = (numbers: Float64Array): nn.ScaleValues =>
    half ? { values: Uint16Array.from(numbers, f32ToF16), dtype: "f16" } : Float32Array.from(numbers);
  return {
    bits,
    table,
    group,
    shape,
    words,
    scales: scales(whole(2, size / group, -3, 0).map((exponent) => 2 ** exponent)),
    ...(format.biases ? { biases: scales(whole(3, size / group, -8, 8)) } : {}),
  };
}

/** The numbers of a weight from `drawQuantized`, in float64. */
function numbersOf(values: nn.QuantizedValues, format: Format): Float32Array {
  const { bits, words, group, shape } = values;
  const size = shape.reduce((a, b) => a * b, 1);
  const scales = whole(2, size / group, -3, 0).map((exponent) => 2 ** exponent);
  const biases = format.biases ? whole(3, size / group, -8, 8) : new Float64Array(size / group);
  return Float32Array.from({ length: size }, (_, i) => {
    const q = (words[Math.floor((i * bits) / 32)]! >>> ((i * bits) % 32)) & (2 ** bits - 1);
    return codeValue(values, q) * scales[Math.floor(i / group)]! + biases[Math.floor(i / group)]!;
  });
}

function compare(what: string, found: ArrayLike<number>, wanted: ArrayLike<number>, most: number): void {
  for (let i = 0; i < wanted.length; i++)
    if (!(Math.abs(found[i]! - wanted[i]!) <= most))
      throw new Error(`${what}: element ${i} is ${found[i]}, but should be ${wanted[i]}`);
}

/** C [m, n] = A [m, k] · B, where `at` gives the index of element (k, n) of B; in float64. */
function multiply(
  a: Float32Array,
  b: Float32Array,
  [m, k, n]: readonly [number, number, number],
  at: (k: number, n: number) => number,
): Float64Array {
  return Float64Array.from({ length: m * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n), i % n];
    let sum = 0;
    for (let p = 0; p < k; p++) sum += a[row * k + p]! * b[at(p, column)]!;
    return sum;
  });
}

const nameOf = ({ bits, table, group, half, biases }: Format): string =>
  `${table} of ${bits} bits in groups of ${group}${half ? ", half-precision scales" : ""}${biases ? ", biases" : ""}`;

export function quantizedCases(context: Context): ConformanceCase[] {
  const f16 = context.options.precision?.factors === "f16";
  return FORMATS.flatMap((format) => [
    {
      name: `a quantized weight (${nameOf(format)}) has the numbers of its formula, and so have its rows`,
      run: async () => {
        const device = await context.device();
        const values = drawQuantized([13, 256], format, device);
        const wanted = numbersOf(values, format);
        const weight = nn.QuantizedParameter.fromValues(device, values);
        compare("the weight", await weight.data(), wanted, 0);
        const rows = new nn.Embedding(weight).forward(device.tensor([12, 0, 5], { dtype: "i32" }));
        const picked = [12, 0, 5].flatMap((row) => [...wanted.subarray(256 * row, 256 * (row + 1))]);
        compare("its rows", await rows.data(), picked, 0);
      },
    },
    ...(format === FORMATS[0] ? (["on", "off"] as const) : (["on"] as const)).map((fusion) => ({
      name: `products with a quantized weight (${nameOf(format)}), forward and backward${fusion === "off" ? ", without fusion" : ""}`,
      run: async () => {
        const device = await context.device(fusion);
        for (const [m, out, width] of SIZES) {
          const values = drawQuantized([out, width], format, device);
          const numbers = numbersOf(values, format);
          const x = Float32Array.from(whole(4, m * width, -3, 3));
          const h = Float32Array.from(whole(5, m * out, -3, 3));
          const input = Parameter.from(device, x, [m, width]);
          const product = new nn.Linear(nn.QuantizedParameter.fromValues(device, values)).forward(input);
          const loss = product.mul(device.tensor(h, { shape: [m, out] })).sum(); // its gradient by x is h W
          const [gradient] = grad(loss, [input]) as [Tensor];
          realize(product, gradient);
          const error = format.table === "nf4" ? (f16 ? 2 ** -9 : 2 ** -20) : 0;
          const [y, g] = [
            multiply(x, numbers, [m, width, out], (k, n) => n * width + k),
            multiply(h, numbers, [m, out, width], (k, n) => k * width + n),
          ];
          const title = `[${m}, ${width}] · [${width}, ${out}]`;
          compare(title, await product.data(), y, error * width);
          compare(`the gradient of ${title}`, await gradient.data(), g, error * out);
        }
      },
    })),
  ]);
}
