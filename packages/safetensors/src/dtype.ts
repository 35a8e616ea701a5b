/**
 * Element types in memory: their widths, their typed arrays, and the bit patterns of half precision.
 * `f16` and `bf16` are 16-bit patterns; `bool` is 32-bit 0 or 1, so that every backend can hold it.
 */

export type DType = "f32" | "f16" | "bf16" | "f64" | "i32" | "u32" | "bool";

/** The typed arrays that hold values on the host; f16 and bf16 are bit patterns in a Uint16Array. */
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array;

/** Bytes of one element in memory. */
export const BYTES: { readonly [D in DType]: number } = {
  f32: 4,
  f16: 2,
  bf16: 2,
  f64: 8,
  i32: 4,
  u32: 4,
  bool: 4,
};

/** New zeroed storage for `length` elements: half precision as 16-bit patterns, `bool` as 32-bit 0 or 1. */
export function allocateArray(dtype: DType, length: number): TypedArray {
  return viewBytes(dtype, new ArrayBuffer(length * BYTES[dtype]));
}

/** Views raw bytes from byte `offset` on as the typed array that stores `dtype`; `length` is in elements (default: to the end). */
export function viewBytes(dtype: DType, bytes: ArrayBufferLike, offset = 0, length?: number): TypedArray {
  switch (dtype) {
    case "f32":
      return new Float32Array(bytes, offset, length);
    case "f64":
      return new Float64Array(bytes, offset, length);
    case "i32":
      return new Int32Array(bytes, offset, length);
    case "u32":
    case "bool":
      return new Uint32Array(bytes, offset, length);
    case "f16":
    case "bf16":
      return new Uint16Array(bytes, offset, length);
  }
}

const f32 = new Float32Array(1);
const bits = new Uint32Array(f32.buffer);

/** The f32 value of a bf16 pattern. */
export function bf16ToF32(pattern: number): number {
  bits[0] = pattern << 16;
  return f32[0]!;
}

/** The bf16 pattern nearest to `value`, ties to even; NaN stays NaN. */
export function f32ToBf16(value: number): number {
  f32[0] = value;
  const x = bits[0]!;
  if ((x & 0x7fffffff) > 0x7f800000) return ((x >>> 16) | 0x40) & 0xffff;
  return ((x + 0x7fff + ((x >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The f32 value of an IEEE half-precision pattern. */
export function f16ToF32(pattern: number): number {
  const sign = pattern & 0x8000 ? -1 : 1;
  const exponent = (pattern >>> 10) & 0x1f;
  const fraction = pattern & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The IEEE half-precision pattern nearest to the f32 `value`, ties to even. */
export function f32ToF16(value: number): number {
  f32[0] = value;
  const x = bits[0]!;
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // below the smallest normal 2^-14: a multiple of 2^-24, rounded ties to even
    const scaled = Math.abs(f32[0]) * 2 ** 24;
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** The first `size` elements of raw bytes as a typed array of numbers: half precision is converted to f32, the rest is a view. */
export function decode(bytes: ArrayBufferLike, dtype: DType, size: number): TypedArray {
  const raw = viewBytes(dtype, bytes, 0, size);
  if (dtype === "f16") return Float32Array.from(raw, f16ToF32);
  if (dtype === "bf16") return Float32Array.from(raw, bf16ToF32);
  return raw;
}

/** Conversions that assignment to the typed array does not do by itself. */
const CONVERT: { readonly [D in DType]?: (value: number) => number } = {
  f16: f32ToF16,
  bf16: f32ToBf16,
  bool: (value) => (value === 0 ? 0 : 1),
};

/**
 * Copies numbers into the storage format of `dtype`: rounded to a float type, truncated and wrapped to an integer type; for bool, 0
 * becomes 0 and every other number, NaN too, 1.
 */
export function encode(values: ArrayLike<number>, dtype: DType): TypedArray {
  const out = allocateArray(dtype, values.length);
  const convert = CONVERT[dtype];
  if (!convert) out.set(values);
  else for (let i = 0; i < values.length; i++) out[i] = convert(values[i]!);
  return out;
}
