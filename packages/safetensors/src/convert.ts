/** Conversion between the element types of files and of the framework. A value that does not fit is an error, never wrapped. */
import { BYTES, f16ToF32, bf16ToF32, viewBytes, type DType, type TypedArray } from "./dtype.ts";
import { wrong } from "./format.ts";
import { FILE_DTYPE_BYTES, type FileDType, type TensorData } from "./safetensors.ts";

/** The file's element type as which each `DType` is written. */
export const FILE_OF_DTYPE: { readonly [D in DType]: FileDType } = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  f64: "F64",
  i32: "I32",
  u32: "U32",
  bool: "BOOL",
};

/** Elements in the framework's storage format: half precision as 16-bit patterns, bool as 32-bit 0 or 1. */
export interface Values {
  readonly dtype: DType;
  readonly values: TypedArray;
}

const widened = (values: Uint8Array | Int8Array | Int16Array | Uint16Array): Values => ({
  dtype: "i32",
  values: Int32Array.from(values),
});

/** A decoder for each file type: returns the `n` elements from byte `at` on, or a text that describes what does not fit. */
const DECODE: {
  readonly [D in FileDType]: (buffer: ArrayBufferLike, at: number, n: number) => Values | string;
} = {
  BOOL: (buffer, at, n) => {
    const values = Uint32Array.from(new Uint8Array(buffer, at, n));
    return values.some((v) => v > 1) ? "a BOOL that is neither 0 nor 1" : { dtype: "bool", values };
  },
  U8: (buffer, at, n) => widened(new Uint8Array(buffer, at, n)),
  I8: (buffer, at, n) => widened(new Int8Array(buffer, at, n)),
  I16: (buffer, at, n) => widened(new Int16Array(buffer, at, n)),
  U16: (buffer, at, n) => widened(new Uint16Array(buffer, at, n)),
  I64: (buffer, at, n) => {
    const from = new BigInt64Array(buffer, at, n);
    const wide = from.find((v) => v !== BigInt.asIntN(32, v));
    return wide === undefined
      ? { dtype: "i32", values: Int32Array.from(from, Number) }
      : `${wide}, beyond i32`;
  },
  U64: (buffer, at, n) => {
    const from = new BigUint64Array(buffer, at, n);
    const wide = from.find((v) => v !== BigInt.asUintN(32, v));
    return wide === undefined
      ? { dtype: "u32", values: Uint32Array.from(from, Number) }
      : `${wide}, beyond u32`;
  },
  F8_E5M2: () => "an 8-bit float, which is not supported",
  F8_E4M3: () => "an 8-bit float, which is not supported",
  F16: (buffer, at, n) => ({ dtype: "f16", values: viewBytes("f16", buffer, at, n) }),
  BF16: (buffer, at, n) => ({ dtype: "bf16", values: viewBytes("bf16", buffer, at, n) }),
  I32: (buffer, at, n) => ({ dtype: "i32", values: viewBytes("i32", buffer, at, n) }),
  U32: (buffer, at, n) => ({ dtype: "u32", values: viewBytes("u32", buffer, at, n) }),
  F32: (buffer, at, n) => ({ dtype: "f32", values: viewBytes("f32", buffer, at, n) }),
  F64: (buffer, at, n) => ({ dtype: "f64", values: viewBytes("f64", buffer, at, n) }),
};

/**
 * The elements of a file's tensor: a view of its bytes, or a copy where the framework stores the type differently (BOOL), lacks it
 * (integers other than I32 and U32) or the bytes are misaligned. 8- and 16-bit integers and I64 become i32, U64 becomes u32. Throws
 * FormatError for 8-bit floats and for values that do not fit. `file` and `tensor` are used in messages.
 */
export function decodeTensor(data: TensorData, file: string, tensor: string): Values {
  const width = FILE_DTYPE_BYTES[data.dtype];
  // A typed array must start at a multiple of its element width; bytes that do not are copied.
  const bytes = data.bytes.byteOffset % width === 0 ? data.bytes : data.bytes.slice();
  const values = DECODE[data.dtype](bytes.buffer, bytes.byteOffset, bytes.byteLength / width);
  if (typeof values !== "string") return values;
  throw wrong(file, values, `${data.dtype} values that this framework can hold`, { tensor });
}

/** The elements of a 16-, 32- or 64-bit float tensor as f32 (F64 is rounded). Throws FormatError for other types. */
export function decodeF32(data: TensorData, file: string, tensor: string): Float32Array {
  const { dtype, values } = decodeTensor(data, file, tensor);
  if (dtype === "f16") return Float32Array.from(values, f16ToF32);
  if (dtype === "bf16") return Float32Array.from(values, bf16ToF32);
  if (dtype === "f64") return Float32Array.from(values);
  if (values instanceof Float32Array) return values;
  throw wrong(file, data.dtype, "a float type", { tensor });
}

/**
 * The bytes that a file stores for `values` in the framework's storage format: a view, except that bool is copied to one byte an
 * element. Throws TypeError if the element width of `values` is not that of `dtype`.
 */
export function encodeTensor(dtype: DType, values: TypedArray): Uint8Array {
  if (dtype === "bool") return Uint8Array.from(values, (value: number) => (value === 0 ? 0 : 1));
  if (values.BYTES_PER_ELEMENT !== BYTES[dtype]) {
    throw new TypeError(
      `a ${values.constructor.name} was given for ${dtype}; need a typed array of ${BYTES[dtype]} bytes an element`,
    );
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
