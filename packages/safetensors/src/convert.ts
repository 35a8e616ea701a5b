/** Between the element types of files and those of the framework. A value that does not fit is an error, never wrapped. */
import { BYTES, f16ToF32, bf16ToF32, viewBytes, type DType, type TypedArray } from "./dtype.ts";
import { wrong } from "./format.ts";
import { FILE_DTYPE_BYTES, type FileDType, type TensorData } from "./safetensors.ts";

/** The type that a tensor is written as. */
export const FILE_OF_DTYPE: { readonly [D in DType]: FileDType } = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  f64: "F64",
  i32: "I32",
  u32: "U32",
  bool: "BOOL",
};

/** Elements in the framework's storage: half precision as 16-bit patterns, bool as 32-bit 0 or 1. */
export interface Values {
  readonly dtype: DType;
  readonly values: TypedArray;
}

const widened = (values: Uint8Array | Int8Array | Int16Array | Uint16Array): Values => ({
  dtype: "i32",
  values: Int32Array.from(values),
});

/** By the file's type: its elements, or a text that says what does not fit. `n` elements start at `at`. */
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

/** Views (or, where the framework has no such type, converts) a tensor of a file. `file` and `tensor` are for messages. */
export function decodeTensor(data: TensorData, file: string, tensor: string): Values {
  const width = FILE_DTYPE_BYTES[data.dtype];
  // A typed array cannot start off its own grid: such bytes are copied.
  const bytes = data.bytes.byteOffset % width === 0 ? data.bytes : data.bytes.slice();
  const values = DECODE[data.dtype](bytes.buffer, bytes.byteOffset, bytes.byteLength / width);
  if (typeof values !== "string") return values;
  throw wrong(file, values, `${data.dtype} values that this framework can hold`, { tensor });
}

/** A float tensor of any width as f32 (an f64 is rounded). */
export function decodeF32(data: TensorData, file: string, tensor: string): Float32Array {
  const { dtype, values } = decodeTensor(data, file, tensor);
  if (dtype === "f16") return Float32Array.from(values, f16ToF32);
  if (dtype === "bf16") return Float32Array.from(values, bf16ToF32);
  if (dtype === "f64") return Float32Array.from(values);
  if (values instanceof Float32Array) return values;
  throw wrong(file, data.dtype, "a float type", { tensor });
}

/** The bytes of storage as a file has them. */
export function encodeTensor(dtype: DType, values: TypedArray): Uint8Array {
  if (dtype === "bool") return Uint8Array.from(values);
  if (values.BYTES_PER_ELEMENT !== BYTES[dtype]) {
    throw new TypeError(
      `${values.constructor.name} given for ${dtype}, which has ${BYTES[dtype]} bytes an element`,
    );
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
