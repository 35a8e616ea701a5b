/** The inputs and weights of recorded cases, bit for bit as in test/recorded/values.py, and the parser of numbers. */
import { type DType, isFloat } from "@tiedlora/core";
import { prng } from "../prng.ts";

/** How many elements of a longer result are recorded, evenly spread. */
const SAMPLES = 64;

const ODD: { readonly [text: string]: number } = { inf: Infinity, "-inf": -Infinity, nan: NaN };

export const parseNumber = (text: string): number => ODD[text] ?? Number(text);

const fraction = (random: () => number): number => Math.floor(random() * 2 ** 24) / 2 ** 24;

/** The `n` values of a description such as `u -2 2 17`, `e -20 14 17` or `= 1 2 nan`. */
export function valuesOf(dtype: DType, n: number, [kind, ...rest]: readonly string[]): number[] {
  if (kind === "=") return rest.map(parseNumber);
  const [low, high, seed] = rest.map(Number) as [number, number, number];
  const random = prng(seed);
  return Array.from({ length: n }, () => {
    if (kind === "e") {
      const sign = random() < 0.5 ? -1 : 1;
      const power = low + Math.floor(random() * (high - low));
      return Math.fround(sign * 2 ** power * (1 + fraction(random)));
    }
    if (dtype === "bool") return random() < 0.5 ? 1 : 0;
    if (!isFloat(dtype)) return low + Math.floor(random() * (high - low));
    return Math.fround(low + (high - low) * fraction(random));
  });
}

/** The weights of the elements of a result in the loss that is differentiated. */
export function weights(n: number, seed: number): Float32Array {
  const random = prng(seed);
  return Float32Array.from({ length: n }, () => 0.5 + fraction(random));
}

/** The positions that are recorded of a result of `n` elements. */
export function positions(n: number): number[] {
  if (n <= SAMPLES) return Array.from({ length: n }, (_, i) => i);
  return Array.from({ length: SAMPLES }, (_, i) => (i < SAMPLES - 1 ? Math.floor((i * n) / SAMPLES) : n - 1));
}
