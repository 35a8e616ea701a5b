/** Quantized tensors as other programs write them, made from formulas that are written down here a second time. */
import {
  bf16ToF32,
  BYTES,
  encode,
  f16ToF32,
  type FileDType,
  FILE_OF_DTYPE,
  type TensorToWrite,
} from "@tiedlora/core";

/** NF4's numbers. */
export const NF4_NUMBERS: readonly number[] = [-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1]; // prettier-ignore

/** The tensors of a file, to be changed before they are written. */
export class Parts extends Map<string, TensorToWrite> {
  replace(name: string, dtype: FileDType, shape: readonly number[], bytes: Uint8Array): void {
    this.set(name, { name, dtype, shape, bytes: () => bytes });
  }

  json(name: string, value: unknown): void {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    this.replace(name, "U8", [bytes.length], bytes);
  }

  rename(from: string, to: string): void {
    const tensor = this.get(from)!;
    this.delete(from);
    this.set(to, { ...tensor, name: to });
  }

  reshape(name: string, shape: readonly number[]): void {
    this.set(name, { ...this.get(name)!, shape });
  }
}

/** Numbers from -1 to 1 that follow from a seed. */
export function randoms(seed: number, count: number): Float32Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => next() * 2 - 1);
}

const bytesOf = (array: Float32Array | Uint32Array | Uint16Array): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** A weight with random codes and scales as bitsandbytes writes it, and its values. */
export function bitsandbytesTensors(
  name: string,
  shape: readonly [number, number],
  seed: number,
  { nested, scale = 1 }: { readonly nested: boolean; readonly scale?: number },
): { parts: Parts; expected: Float32Array } {
  const count = shape[0] * shape[1];
  const random = randoms(seed, count + 2 * 256 + 2 * count);
  const codes = Array.from({ length: count }, (_, i) => Math.floor((random[i]! + 1) * 8));
  const blocks = count / 64;
  const parts = new Parts();
  parts.replace(name, "U8", [count / 2, 1], Uint8Array.from({ length: count / 2 }, (_, i) => codes[2 * i]! * 16 + codes[2 * i + 1]!)); // prettier-ignore
  parts.replace(`${name}.quant_map`, "F32", [16], bytesOf(Float32Array.from(NF4_NUMBERS)));
  const state = { quant_type: "nf4", blocksize: 64, dtype: "bfloat16", shape };
  let absmax: number[];
  if (nested) {
    const map = random.slice(count, count + 256).map((x) => x * scale * 0.3);
    const bytes = Uint8Array.from({ length: blocks }, (_, i) => (random[count + 256 + i]! + 1) * 128);
    const factors = Float32Array.from({ length: Math.ceil(blocks / 256) }, (_, i) => 1 + random[count + i]!);
    const offset = Math.fround(0.37 * scale);
    absmax = Array.from(bytes, (byte, i) =>
      Math.fround(Math.fround(map[byte]! * factors[Math.floor(i / 256)]!) + offset),
    );
    parts.replace(`${name}.absmax`, "U8", [blocks], bytes);
    parts.replace(`${name}.nested_absmax`, "F32", [factors.length], bytesOf(factors));
    parts.replace(`${name}.nested_quant_map`, "F32", [256], bytesOf(map));
    parts.json(`${name}.quant_state.bitsandbytes__nf4`, { ...state, nested_blocksize: 256, nested_dtype: "float32", nested_offset: offset }); // prettier-ignore
  } else {
    const scales = Float32Array.from({ length: blocks }, (_, i) => (random[count + 512 + i]! + 1.1) * scale);
    absmax = [...scales];
    parts.replace(`${name}.absmax`, "F32", [blocks], bytesOf(scales));
    parts.json(`${name}.quant_state.bitsandbytes__nf4`, state);
  }
  const value = (code: number, i: number): number => Math.fround(NF4_NUMBERS[code]!) * absmax[Math.floor(i / 64)]!; // prettier-ignore
  return { parts, expected: Float32Array.from(codes, value) };
}

/** A module with random codes, scales and biases as MLX writes it, and its values. */
export function mlxTensors(
  path: string,
  [out, inputs]: readonly [number, number],
  { bits, group }: { readonly bits: 4 | 8; readonly group: number },
  dtype: "f32" | "f16" | "bf16",
  seed: number,
  scale = 1,
): { parts: Parts; expected: Float32Array } {
  const count = out * inputs;
  const random = randoms(seed, count + 2 * (count / group));
  const codes = Array.from({ length: count }, (_, i) => Math.floor((random[i]! + 1) * 2 ** (bits - 1)));
  const words = new Uint32Array((count * bits) / 32);
  for (let w = 0; w < words.length; w++) {
    let word = 0n;
    for (let j = 32 / bits - 1; j >= 0; j--) word = word * BigInt(2 ** bits) + BigInt(codes[w * (32 / bits) + j]!); // prettier-ignore
    words[w] = Number(word);
  }
  const groups = count / group;
  const scales = encode(random.slice(count, count + groups).map((x) => x * scale), dtype); // prettier-ignore
  const biases = encode(
    random.slice(count + groups).map((x) => x * scale),
    dtype,
  );
  const parts = new Parts();
  parts.replace(`${path}.weight`, "U32", [out, (inputs * bits) / 32], bytesOf(words));
  for (const [name, array] of [["scales", scales], ["biases", biases]] as const) // prettier-ignore
    parts.replace(`${path}.${name}`, FILE_OF_DTYPE[dtype], [out, inputs / group], new Uint8Array(array.buffer, 0, groups * BYTES[dtype])); // prettier-ignore
  const widen = dtype === "f16" ? f16ToF32 : dtype === "bf16" ? bf16ToF32 : (x: number) => x;
  const expected = Float32Array.from(codes, (code, i) => {
    const g = Math.floor(i / group);
    return Math.fround(widen(scales[g]!) * code) + widen(biases[g]!);
  });
  return { parts, expected };
}
