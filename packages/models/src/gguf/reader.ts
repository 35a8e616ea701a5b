/**
 * The GGUF format of llama.cpp, versions 2 and 3: metadata, then the list of tensors, then their bytes in blocks. The reader checks
 * the whole header before a tensor is read. What blocks mean is in blocks.ts.
 */
import { describeValue, FormatError, type Source } from "@tiedlora/core";
import { BLOCKS, blockTypeName, type BlockType, isBlockType } from "./blocks.ts";

/** A value of the metadata. 64-bit numbers beyond 2^53 are refused. */
export type GgufValue = number | string | boolean | readonly GgufValue[];

/** A tensor of the file. */
export interface GgufTensor {
  readonly type: BlockType;
  /** As in PyTorch: the axis whose elements are consecutive comes last. */
  readonly shape: readonly number[];
  readonly begin: number;
  readonly bytes: number;
}

/** An open file. */
export interface GgufFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** All bytes of a tensor. */
  read(tensor: GgufTensor): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Headers with vocabularies have a few MB. */
const MAX_HEADER_BYTES = 2 ** 28;
const FIRST_READ = 2 ** 22;
const MAX_DEPTH = 4;
const MAX_AXES = 4;

/** Thrown inside of this file where the bytes at hand end. */
class Short extends Error {}

/** Opens a file and reads its header. It takes ownership of the source, and closes it if the header is invalid. */
export async function openGguf(source: Source): Promise<GgufFile> {
  try {
    const header = await readHeader(source);
    return {
      name: source.name,
      ...header,
      read: ({ begin, bytes }) => readAll(source, begin, bytes),
      close: async () => source.close?.(),
    };
  } catch (error) {
    await source.close?.();
    throw error;
  }
}

async function readAll(source: Source, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await source.read(offset, length);
  if (bytes.byteLength === length) return bytes;
  throw new FormatError({
    file: source.name,
    found: `${bytes.byteLength} bytes at offset ${offset}`,
    expected: `${length} bytes`,
    hint: "The file is cut short, or changed while it was read.",
  });
}

type Header = Pick<GgufFile, "metadata" | "tensors">;

/** Parses longer and longer beginnings of the file until the header is complete. */
async function readHeader(source: Source): Promise<Header> {
  for (let length = FIRST_READ; ; length *= 4) {
    const most = Math.min(source.size, MAX_HEADER_BYTES);
    const bytes = await source.read(0, Math.min(length, most));
    try {
      return parseHeader(new Cursor(bytes, source.name, most), source.size);
    } catch (error) {
      if (!(error instanceof Short)) throw error;
      if (length >= most)
        throw new FormatError({
          file: source.name,
          found: `a header that does not end within ${most} bytes`,
          expected: "a complete header",
          hint: "The file is cut short.",
        });
    }
  }
}

function parseHeader(cursor: Cursor, size: number): Header {
  const { file } = cursor;
  const magic = cursor.u32();
  if (magic !== 0x46554747)
    throw new FormatError({ file, found: `a file that starts with ${hex(magic)}`, expected: "GGUF" });
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    const swapped = version === 0x02000000 || version === 0x03000000;
    throw new FormatError({
      file,
      tensor: "version",
      found: swapped ? "a file of a big-endian machine" : String(version),
      expected: "version 2 or 3, little-endian",
    });
  }
  const tensorCount = cursor.count(24, "tensors"); // the least bytes that a tensor's entry takes
  const metadata = readMetadata(cursor, cursor.count(13, "entries of metadata"));
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 8 || alignment % 8 !== 0 || alignment > 2 ** 20)
    throw new FormatError({
      file,
      tensor: "general.alignment",
      found: describeValue(alignment),
      expected: "a multiple of 8",
    });
  const entries = Array.from({ length: tensorCount }, () => readEntry(cursor));
  const start = Math.ceil(cursor.at / alignment) * alignment;
  return { metadata, tensors: placed(entries, file, start, size, alignment) };
}

const hex = (n: number): string => `0x${n.toString(16).padStart(8, "0")}`;

function readMetadata(cursor: Cursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const name = cursor.text("a name in the metadata");
    if (metadata.has(name))
      throw new FormatError({
        file: cursor.file,
        tensor: name,
        found: "the name twice",
        expected: "each name once",
      });
    metadata.set(name, readValue(cursor, cursor.u32(), name, 0));
  }
  return metadata;
}

const ARRAY = 9;

/** The types of metadata by number: the least bytes of a value, and its reader. */
const VALUES: readonly (readonly [bytes: number, read: (cursor: Cursor, name: string) => GgufValue])[] = [
  [1, (c) => c.view(1).getUint8(0)],
  [1, (c) => c.view(1).getInt8(0)],
  [2, (c) => c.view(2).getUint16(0, true)],
  [2, (c) => c.view(2).getInt16(0, true)],
  [4, (c) => c.u32()],
  [4, (c) => c.view(4).getInt32(0, true)],
  [4, (c) => c.view(4).getFloat32(0, true)],
  [1, (c, name) => c.flag(name)],
  [8, (c, name) => c.text(name)],
  [12, () => false], // an array, which is read below
  [8, (c, name) => c.whole(c.view(8).getBigUint64(0, true), name)],
  [8, (c, name) => c.whole(c.view(8).getBigInt64(0, true), name)],
  [8, (c) => c.view(8).getFloat64(0, true)],
];

function readValue(cursor: Cursor, type: number, name: string, depth: number): GgufValue {
  const known = VALUES[type];
  const fail = (found: string, expected: string): never => {
    throw new FormatError({ file: cursor.file, tensor: name, found, expected });
  };
  if (known === undefined) return fail(`a value of type ${type}`, `a type from 0 to ${VALUES.length - 1}`);
  if (type !== ARRAY) return known[1](cursor, name);
  if (depth === MAX_DEPTH) return fail(`lists nested deeper than ${MAX_DEPTH}`, "fewer");
  const element = cursor.u32();
  if (VALUES[element] === undefined) return fail(`a list of type ${element}`, "a known type");
  const count = cursor.count(VALUES[element][0], name);
  return Array.from({ length: count }, () => readValue(cursor, element, name, depth + 1));
}

interface Entry extends Omit<GgufTensor, "begin"> {
  readonly name: string;
  readonly offset: number;
}

function readEntry(cursor: Cursor): Entry {
  const name = cursor.text("a tensor's name");
  const fail = (found: string, expected: string): never => {
    throw new FormatError({ file: cursor.file, tensor: name, found, expected });
  };
  const axes = cursor.u32();
  if (axes < 1 || axes > MAX_AXES) fail(`${axes} axes`, `1 to ${MAX_AXES}`);
  const shape = Array.from({ length: axes }, () => cursor.whole(cursor.view(8).getBigUint64(0, true), name)).reverse(); // prettier-ignore
  const type = cursor.u32();
  if (!isBlockType(type))
    return fail(`blocks of type ${blockTypeName(type)}`, Object.values(BLOCKS).map((b) => b.name).join(", ")); // prettier-ignore
  const { elements, bytes: blockBytes } = BLOCKS[type];
  if (shape.at(-1)! % elements !== 0)
    fail(`rows of ${shape.at(-1)} elements`, `a multiple of ${elements}, the elements of a block of ${BLOCKS[type].name}`); // prettier-ignore
  const bytes = (shape.reduce((a, b) => a * b, 1) / elements) * blockBytes;
  if (!Number.isSafeInteger(bytes)) fail(`shape [${shape.join(", ")}]`, "sizes that a file can have");
  return { name, type, shape, bytes, offset: cursor.whole(cursor.view(8).getBigUint64(0, true), name) };
}

/** Tensors by name, after checking that each lies in the file and that no two share bytes. */
function placed(
  entries: readonly Entry[],
  file: string,
  start: number,
  size: number,
  alignment: number,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  let end = start;
  for (const entry of entries.toSorted((a, b) => a.offset - b.offset)) {
    const { name, type, shape, bytes, offset } = entry;
    const begin = start + offset;
    const fail = (found: string, expected: string, hint?: string): never => {
      throw new FormatError({ file, tensor: name, found, expected, hint });
    };
    if (tensors.has(name)) fail("it twice", "it once");
    if (offset % alignment !== 0) fail(`offset ${offset}`, `a multiple of ${alignment}`);
    if (begin < end) fail("an overlap with another tensor", "tensors that share no bytes");
    if (begin + bytes > size)
      fail(`bytes ${begin} to ${begin + bytes}`, `bytes within the file's ${size}`, "The file is cut short.");
    tensors.set(name, { type, shape, begin, bytes });
    end = begin + bytes;
  }
  return tensors;
}

/** Reads the header from its beginning on. */
class Cursor {
  readonly #bytes: Uint8Array;
  /** The most bytes that the header can have. */
  readonly #most: number;
  readonly file: string;
  at = 0;

  constructor(bytes: Uint8Array, file: string, most: number) {
    this.#bytes = bytes;
    this.file = file;
    this.#most = most;
  }

  /** The next `length` bytes. */
  view(length: number): DataView {
    if (this.at + length > this.#bytes.byteLength) throw new Short();
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + this.at, length);
    this.at += length;
    return view;
  }

  u32(): number {
    return this.view(4).getUint32(0, true);
  }

  whole(value: bigint, name: string): number {
    if (value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= -BigInt(Number.MAX_SAFE_INTEGER))
      return Number(value);
    throw new FormatError({ file: this.file, tensor: name, found: String(value), expected: "at most 2^53" });
  }

  /** A number of things that take at least `bytes` each: more than fit into a header are refused before memory is taken. */
  count(bytes: number, name: string): number {
    const count = this.view(8).getBigUint64(0, true);
    const room = Math.floor((this.#most - this.at) / bytes);
    if (count <= BigInt(room)) return Number(count);
    throw new FormatError({
      file: this.file,
      tensor: name,
      found: `a count of ${count}`,
      expected: `at most ${room}, which is what the file has room for`,
    });
  }

  text(name: string): string {
    const length = this.count(1, name);
    const { buffer, byteOffset } = this.view(length);
    // Vocabularies of byte-level tokenizers may hold pieces that are not UTF-8; they become replacement characters.
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(buffer, byteOffset, length));
  }

  flag(name: string): boolean {
    const value = this.view(1).getUint8(0);
    if (value <= 1) return value === 1;
    throw new FormatError({ file: this.file, tensor: name, found: String(value), expected: "0 or 1" });
  }
}
