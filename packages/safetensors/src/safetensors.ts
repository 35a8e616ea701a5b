/**
 * The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps, little-endian and
 * row-major. The reader checks the whole header before it allocates memory for any tensor; then it reads tensors one at a time
 * or in pieces. Format: https://huggingface.co/docs/safetensors
 */
import { decodeUtf8, describeValue, encodeUtf8, wrong, isRecord, parseJsonObject } from "./format.ts";
import { readExactly, readExactlyInto, type Source } from "./format.ts";

/** Bytes of one element, in the format's own order of types. Writers sort tensors by this order reversed: wide elements first. */
export const FILE_DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

/** Element types as files name them. */
export type FileDType = keyof typeof FILE_DTYPE_BYTES;

/** Headers of more bytes than this are refused, as by every reader of the format. */
const MAX_HEADER_BYTES = 100_000_000;

/** The entry of one tensor in a file's header. */
export interface TensorEntry {
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  /** The tensor's bytes are those from offset `begin` in the file up to, not including, `end`. */
  readonly begin: number;
  readonly end: number;
}

/** A tensor with its bytes as the file stores them. */
export interface TensorData {
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** An open file, or several shards presented as one file. */
export interface TensorFile {
  readonly name: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  /** Reads a whole tensor. Rejects with FormatError if there is none of that name. */
  read(name: string): Promise<TensorData>;
  /**
   * Reads `length` bytes of a tensor from byte `offset` of it on: for tensors too large to hold in memory twice. Rejects with
   * FormatError if there is no such tensor, with RangeError if the bytes are not within it.
   */
  readBytes(name: string, offset: number, length: number): Promise<Uint8Array>;
  /** As `readBytes`, into `target`: without a copy where the source can do that. */
  readInto(name: string, offset: number, target: Uint8Array): Promise<void>;
  /** The file that holds a tensor, and a text that changes when that file does (see `Source.stamp`). */
  stamp(name: string): Promise<{ readonly file: string; readonly stamp: string }>;
  /** Closes the source; tensors cannot be read afterwards. */
  close(): Promise<void>;
}

/**
 * Reads and checks the header, allocating memory for nothing else. Rejects with FormatError if the header is invalid. Takes
 * ownership of the source: closing the file closes it, and an invalid header closes it at once.
 */
export async function openSafetensors(source: Source): Promise<TensorFile> {
  const { entries, metadata } = await readHeader(source).catch(async (error: unknown) => {
    await source.close?.();
    throw error;
  });
  const entry = (name: string): TensorEntry => {
    const found = entries.get(name);
    if (found) return found;
    throw wrong(source.name, "no such tensor", `one of the file's ${entries.size} tensors`, { tensor: name });
  };
  /** The position in the source of bytes of a tensor. */
  const place = (name: string, offset: number, length: number): number => {
    const { begin, end } = entry(name);
    if (offset >= 0 && length >= 0 && begin + offset + length <= end) return begin + offset;
    throw new RangeError(`${name}: bytes ${offset}..${offset + length} of a tensor of ${end - begin} bytes`);
  };
  const readBytes = async (name: string, offset: number, length: number): Promise<Uint8Array> =>
    readExactly(source, place(name, offset, length), length);
  return {
    name: source.name,
    entries,
    metadata,
    readBytes,
    readInto: async (name, offset, target) =>
      readExactlyInto(source, place(name, offset, target.byteLength), target),
    stamp: async (name) => {
      entry(name);
      return { file: source.name, stamp: (await source.stamp?.()) ?? String(source.size) };
    },
    read: async (name) => {
      const { dtype, shape, begin, end } = entry(name);
      return { dtype, shape, bytes: await readBytes(name, 0, end - begin) };
    },
    close: async () => source.close?.(),
  };
}

interface Header {
  entries: ReadonlyMap<string, TensorEntry>;
  metadata: ReadonlyMap<string, string>;
}

async function readHeader(source: Source): Promise<Header> {
  const file = source.name;
  const room = Math.min(source.size - 8, MAX_HEADER_BYTES);
  if (room < 2) {
    throw wrong(file, `${source.size} bytes`, "8 bytes of length and a header");
  }
  const start = await readExactly(source, 0, 9);
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (start[8] !== 0x7b) {
    const pickle = (start[0] === 0x80 && start[1]! < 6) || (start[0] === 0x50 && start[1] === 0x4b);
    throw wrong(
      file,
      pickle ? "a Python pickle" : `a header that starts with byte ${start[8]}`,
      "safetensors",
      {
        hint: pickle
          ? "Pickles run code when read and are never read here: save with safetensors in Python " +
            "(save_file, or save_pretrained with safe_serialization=True) and give that file."
          : "",
      },
    );
  }
  if (length < 2n || length > BigInt(room)) {
    throw wrong(file, `a header of ${length} bytes`, `a header of 2 to ${room} bytes`);
  }
  const text = decodeUtf8(await readExactly(source, 8, Number(length)), file);
  return parseHeader(parseJsonObject(text, file, 3), file, 8 + Number(length), source.size);
}

function parseHeader(json: Record<string, unknown>, file: string, dataStart: number, size: number): Header {
  const entries = new Map<string, TensorEntry>();
  let metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(json)) {
    if (name === "__metadata__") metadata = parseMetadata(value, file);
    else entries.set(name, parseEntry(name, value, file, dataStart, size));
  }
  checkCoverage(entries, file, dataStart, size);
  return { entries, metadata };
}

function parseMetadata(value: unknown, file: string): Map<string, string> {
  const metadata = new Map<string, string>();
  for (const [key, text] of isRecord(value) ? Object.entries(value) : [["", null] as const]) {
    if (typeof text !== "string") {
      throw wrong(file, describeValue(value), "an object of strings", { tensor: "__metadata__" });
    }
    metadata.set(key, text);
  }
  return metadata;
}

function parseEntry(
  name: string,
  value: unknown,
  file: string,
  dataStart: number,
  size: number,
): TensorEntry {
  const fail = (found: string, expected: string): never => {
    throw wrong(file, found, expected, { tensor: name });
  };
  if (!isRecord(value)) return fail(describeValue(value), "an object with dtype, shape and data_offsets");
  const { dtype, shape, data_offsets: offsets } = value;
  if (!isFileDType(dtype)) {
    return fail(`dtype ${describeValue(dtype)}`, `one of ${Object.keys(FILE_DTYPE_BYTES).join(" ")}`);
  }
  if (!isCounts(shape)) return fail(`shape ${describeValue(shape)}`, "a list of whole numbers from 0");
  if (!isCounts(offsets) || offsets.length !== 2)
    return fail(`data_offsets ${describeValue(offsets)}`, "[begin, end]");
  const [begin, end] = [dataStart + offsets[0]!, dataStart + offsets[1]!];
  if (begin > end || end > size) {
    return fail(
      `data_offsets ${describeValue(offsets)}`,
      `begin <= end <= ${size - dataStart}, the bytes after the header`,
    );
  }
  const bytes = byteCount(dtype, shape);
  if (bytes !== end - begin) {
    const expected = Number.isNaN(bytes) ? "more bytes than a file can have" : `${bytes} bytes`;
    return fail(`${end - begin} bytes`, `${expected} for ${dtype} [${shape.join(", ")}]`);
  }
  return { dtype, shape, begin, end };
}

/**
 * Checks that the tensors cover all bytes from the header to the end of the file exactly once: a gap could hide data, and an
 * overlap would make two tensors share bytes.
 */
function checkCoverage(
  entries: ReadonlyMap<string, TensorEntry>,
  file: string,
  start: number,
  size: number,
): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let at = start;
  for (const [tensor, { begin, end }] of sorted) {
    if (begin !== at) {
      const what =
        begin < at ? "an overlap with the tensor before it" : `a hole of ${begin - at} bytes before it`;
      throw wrong(file, what, "tensors that follow one another without holes", { tensor });
    }
    at = end;
  }
  if (at !== size) {
    throw wrong(file, `${size - at} bytes after the last tensor`, `a file of ${at} bytes`);
  }
}

function isFileDType(value: unknown): value is FileDType {
  return typeof value === "string" && Object.hasOwn(FILE_DTYPE_BYTES, value);
}

/** The number of bytes of a tensor, or NaN, which equals no number, if it is not a safe integer. */
export function byteCount(dtype: FileDType, shape: readonly number[]): number {
  let count: number = FILE_DTYPE_BYTES[dtype];
  for (const n of shape) count *= n;
  return Number.isSafeInteger(count) ? count : NaN;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
}

/** A tensor to be written. `bytes` is called only when it is the tensor's turn, so that one tensor is in memory at a time. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  /** Returns the tensor's bytes, row-major and little-endian; called once, just before they are written. */
  bytes(): Uint8Array | Promise<Uint8Array>;
}

/**
 * Generates the file in pieces, byte for byte as the Rust and Python writers do: tensors of wide elements first, then by name,
 * with the header padded to a multiple of 8 bytes so that every tensor is aligned. Metadata, if not empty, should contain
 * `format: "pt"`: transformers refuses files with metadata but without it.
 * @throws if a name is given twice or is "__metadata__", the header is too long, or a tensor's bytes do not fit its shape.
 */
export async function* writeSafetensors(
  tensors: Iterable<TensorToWrite>,
  metadata: Iterable<readonly [string, string]> = [["format", "pt"]],
): AsyncGenerator<Uint8Array, void, undefined> {
  const order = Object.keys(FILE_DTYPE_BYTES);
  const sorted = [...tensors].sort(
    (a, b) =>
      order.indexOf(b.dtype) - order.indexOf(a.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  yield headerBytes(sorted, Object.fromEntries(metadata));
  for (const tensor of sorted) {
    const bytes = await tensor.bytes();
    const expected = byteCount(tensor.dtype, tensor.shape);
    if (bytes.byteLength !== expected) {
      throw new Error(
        `${tensor.name}: ${bytes.byteLength} bytes given; ${tensor.dtype} [${tensor.shape.join(", ")}] has ${expected}`,
      );
    }
    yield bytes;
  }
}

function headerBytes(tensors: readonly TensorToWrite[], metadata: Record<string, string>): Uint8Array {
  const header = new Map<string, unknown>();
  if (Object.keys(metadata).length > 0) header.set("__metadata__", metadata);
  let begin = 0;
  for (const { name, dtype, shape } of tensors) {
    if (name === "__metadata__" || header.has(name)) {
      throw new Error(
        `the tensor name ${JSON.stringify(name)} is given twice or reserved; write a tied tensor once`,
      );
    }
    const end = begin + byteCount(dtype, shape);
    header.set(name, { dtype, shape, data_offsets: [begin, end] });
    begin = end;
  }
  // Not Object.fromEntries: an object would move names that look like indices to the front.
  const fields = [...header].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = encodeUtf8(`{${fields.join(",")}}`);
  const length = Math.ceil(json.byteLength / 8) * 8;
  if (length > MAX_HEADER_BYTES)
    throw new Error(`a header of ${length} bytes; the format allows ${MAX_HEADER_BYTES}`);
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

/** Like `writeSafetensors`, but returns the whole file in memory: for small files. */
export async function serialize(
  tensors: Iterable<TensorToWrite>,
  metadata?: Iterable<readonly [string, string]>,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSafetensors(tensors, metadata)) chunks.push(chunk);
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}
