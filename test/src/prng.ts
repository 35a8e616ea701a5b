/**
 * Seeded random data for tests. It does not use the framework's own generator: a test must not depend on what it tests.
 */
import { type DType, f32ToBf16, f32ToF16, isFloat, type TypedArray, viewBytes, BYTES } from "@tiedlora/core";

/** A small seeded generator (mulberry32). Returns uniform numbers in [0, 1). */
export function prng(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * `length` elements in the raw storage of `dtype`. Floats are mostly uniform in [-2, 2), with zeros, ones and small
 * integers among them, so that ties, exact sums and sign changes occur; integers are small, with a few extreme ones. With
 * `special`, one float in thirty is NaN or infinite, or huge.
 */
export function randomArray(dtype: DType, length: number, seed: number, special = false): TypedArray {
  const random = prng(seed);
  const array = viewBytes(dtype, new ArrayBuffer(length * BYTES[dtype]));
  for (let i = 0; i < length; i++)
    array[i] = encode(dtype, isFloat(dtype) ? float(random, special) : integer(dtype, random));
  return array;
}

/** The raw storage pattern of `value`. */
export function encode(dtype: DType, value: number): number {
  if (dtype === "f16") return f32ToF16(value);
  return dtype === "bf16" ? f32ToBf16(value) : value;
}

const SPECIAL = [NaN, Infinity, -Infinity, 3e9];

function float(random: () => number, special: boolean): number {
  const kind = random();
  if (special && kind > 0.97) return SPECIAL[Math.floor(random() * SPECIAL.length)]!;
  if (kind < 0.08) return 0;
  if (kind < 0.2) return Math.floor(random() * 7) - 3;
  return random() * 4 - 2;
}

function integer(dtype: DType, random: () => number): number {
  if (dtype === "bool") return random() < 0.5 ? 0 : 1;
  const low = dtype === "i32" ? -9 : 0;
  if (random() < 0.06) return Math.floor(random() * 2 ** 31);
  return low + Math.floor(random() * 20);
}
