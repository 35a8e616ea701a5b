/** Access to buffers of raw bytes as numbers, and to operands as lists of element offsets. */
import { bf16ToF32, BYTES, type ComputeType, type DType, f16ToF32, f32ToBf16, f32ToF16 } from "../dtype.ts";
import { roundTo, viewBytes } from "../dtype.ts";
import type { Operand, QuantizedStorage } from "../kernel.ts";
import { codeValue } from "../quantization.ts";
import { product } from "../shape.ts";

/** A value of type `from` converted to `to`. */
export function convert(value: number, from: ComputeType, to: DType): number {
  if (to === "bool") return value === 0 ? 0 : 1;
  if ((to === "i32" || to === "u32") && (from === "f32" || from === "f64")) {
    const [low, high] = to === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
    return Math.min(Math.max(Math.trunc(value), low), high) || 0; // NaN gives 0
  }
  return to === "f32" ? value : roundTo(to, value); // the interpreter computes f32 in float64
}

/** Reads and writes the elements of a buffer as numbers. */
export interface Elements {
  get(index: number): number;
  set(index: number, value: number): void;
}

/** The elements of `bytes` stored as `dtype`. */
export function elements(bytes: ArrayBuffer, dtype: DType): Elements {
  const array = viewBytes(dtype, bytes, 0, Math.floor(bytes.byteLength / BYTES[dtype]));
  const [decode, encode] = CODEC[dtype];
  return {
    get: (i) => decode(array[i]!),
    set: (i, value) => {
      array[i] = encode(value);
    },
  };
}

const same = (x: number): number => x;
const CODEC: { readonly [D in DType]: readonly [decode: typeof same, encode: typeof same] } = {
  f32: [same, same],
  f64: [same, same],
  i32: [same, same],
  u32: [same, same],
  bool: [same, same],
  f16: [f16ToF32, f32ToF16],
  bf16: [bf16ToF32, f32ToBf16],
};

/** The numbers of a quantized weight, each rounded to f32 like the product that it is the sum of. */
export function dequantized(
  { buffer, dtype }: Operand,
  quantized: QuantizedStorage,
  buffers: readonly ArrayBuffer[],
): Pick<Elements, "get"> {
  const { bits, group, scales, biases } = quantized;
  const words = elements(buffers[buffer]!, dtype);
  const perGroup = ({ buffer: from, dtype: type, view }: Operand): ((i: number) => number) => {
    const numbers = elements(buffers[from]!, type);
    return (i) => numbers.get(view.offset + Math.floor(i / group) * view.strides[0]!);
  };
  const scale = perGroup(scales);
  const bias = biases && perGroup(biases);
  const perWord = 32 / bits;
  return {
    get: (i) => {
      const q = (words.get(Math.floor(i / perWord)) >>> ((i % perWord) * bits)) & (2 ** bits - 1);
      const scaled = Math.fround(Math.fround(codeValue(quantized, q)) * scale(i));
      return bias ? Math.fround(scaled + bias(i)) : scaled;
    },
  };
}

/**
 * For every index of `shape`, row-major: `base` plus the strides' part of its element offset in the operand, or INVALID outside
 * the valid range. The first axis of `shape` is axis `firstAxis` of the operand's view.
 */
export function offsets(
  operand: Operand,
  shape: readonly number[],
  firstAxis: number,
  base: number,
): Int32Array {
  const out = new Int32Array(product(shape));
  const index = shape.map(() => 0);
  for (let i = 0; i < out.length; i++) {
    let at = base;
    let valid = true;
    index.forEach((x, d) => {
      const range = operand.view.valid?.[firstAxis + d];
      if (range && (x < range[0] || x >= range[1])) valid = false;
      at += x * operand.view.strides[firstAxis + d]!;
    });
    out[i] = valid ? at : INVALID;
    for (let d = shape.length - 1; d >= 0 && ++index[d]! === shape[d]; d--) index[d] = 0;
  }
  return out;
}

/** The offset that marks an element outside the valid range (padding). */
export const INVALID: number = -(2 ** 31);
