/** Shared by the readers of quantized checkpoints: tensors that must be there, of one of a few types and of a certain length. */
import {
  byteCount,
  FILE_DTYPE_BYTES,
  type FileDType,
  FormatError,
  type TensorFile,
  type TypedArray,
  viewBytes,
} from "@tiedlora/core";
import type { ScaleDType } from "./form.ts";

/** Throws a FormatError about a tensor of `file`. */
export function refuseTensor(
  file: TensorFile,
  tensor: string,
  found: string,
  expected: string,
  hint?: string,
): never {
  throw new FormatError({ file: file.name, tensor, found, expected, hint });
}

/** Bytes as text. Throws FormatError if they are not UTF-8. */
export function decodeText(bytes: Uint8Array, file: string, tensor: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError({ file, tensor, found: "bytes that are not UTF-8", expected: "UTF-8 text" });
  }
}

/** The type of the tensor `name`. Throws FormatError unless it is there, of one of `dtypes`, and has `length` elements. */
export function requireTensor<D extends FileDType>(
  file: TensorFile,
  name: string,
  dtypes: readonly D[],
  length: number,
): D {
  const entry = file.entries.get(name);
  const expected = `${dtypes.join(" or ")} of ${length} elements`;
  if (entry === undefined) return refuseTensor(file, name, "no such tensor", expected);
  const { dtype, shape } = entry;
  const count = byteCount(dtype, shape) / FILE_DTYPE_BYTES[dtype];
  if (!dtypes.some((one) => one === dtype) || count !== length)
    refuseTensor(file, name, `${dtype} [${shape.join(", ")}]`, expected);
  return dtype as D;
}

/** Elements `from` up to `to` of a float tensor, as stored: half precision as patterns. */
export async function readPatterns(
  file: TensorFile,
  name: string,
  dtype: ScaleDType,
  from: number,
  to: number,
): Promise<TypedArray> {
  const width = dtype === "f32" ? 4 : 2;
  const bytes = await file.readBytes(name, from * width, (to - from) * width);
  return viewBytes(dtype, bytes.slice().buffer);
}

/** Words that a tensor holds from byte `offset` on: as many as fill `into`, or `count` new ones. */
export async function readWords(
  file: TensorFile,
  name: string,
  offset: number,
  count: number,
  into?: Uint32Array,
): Promise<Uint32Array> {
  const words = into ?? new Uint32Array(count);
  await file.readInto(name, offset, new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
  return words;
}

/** Elements `from` up to `to` of an F32 tensor. */
export async function readF32(
  file: TensorFile,
  name: string,
  from: number,
  to: number,
): Promise<Float32Array> {
  return (await readPatterns(file, name, "f32", from, to)) as Float32Array;
}
