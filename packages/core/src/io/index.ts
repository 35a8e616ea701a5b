/** Reading and writing files; the part for Node's file system is the entry point "@tiedlora/core/node". */
export { decodeF32, decodeTensor, encodeTensor, FILE_OF_DTYPE, type Values } from "./convert.ts";
export {
  blobSource,
  type BlobLike,
  bytesSource,
  describeValue,
  type Fault,
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
