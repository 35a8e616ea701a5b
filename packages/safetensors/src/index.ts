/**
 * Reading and writing safetensors files. The entry point "@tiedlora/safetensors/node" adds access to Node's file system.
 * @module
 */
export { decodeF32, decodeTensor, encodeTensor, FILE_OF_DTYPE, type Values } from "./convert.ts";
export {
  allocateArray,
  bf16ToF32,
  BYTES,
  decode,
  type DType,
  encode,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  type TypedArray,
  viewBytes,
} from "./dtype.ts";
export {
  blobSource,
  type BlobLike,
  bytesSource,
  describeValue,
  type Fault,
  FileError,
  type Files,
  FormatError,
  isPlainFileName,
  isRecord,
  memoryFiles,
  parseJson,
  parseJsonObject,
  readText,
  type Source,
} from "./format.ts";
export {
  byteCount,
  FILE_DTYPE_BYTES,
  type FileDType,
  openSafetensors,
  serialize,
  type TensorData,
  type TensorEntry,
  type TensorFile,
  type TensorToWrite,
  writeSafetensors,
} from "./safetensors.ts";
export { openWeights, parseIndex } from "./sharded.ts";
export { type ByteStream, streamInto } from "./stream.ts";
