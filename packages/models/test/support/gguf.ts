/** GGUF files for tests: a writer, and the values of blocks by formulas that are written down here a second time. */
import { f16ToF32, f32ToF16 } from "@tiedlora/core";
import type { OutputFile } from "../../src/save.ts";

/** A value with its type in the file. */
export type Meta =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

export interface GgufTensorToWrite {
  readonly type: number;
  /** As in PyTorch. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Files as bytes and texts, by their names. */
export async function contentsOf(files: readonly OutputFile[]): Promise<Map<string, Uint8Array | string>> {
  const contents = new Map<string, Uint8Array | string>();
  for (const [name, content] of files) {
    if (typeof content === "string" || content instanceof Uint8Array) contents.set(name, content);
    else {
      const pieces: Uint8Array[] = [];
      for await (const piece of content) pieces.push(piece);
      contents.set(name, Buffer.concat(pieces));
    }
  }
  return contents;
}

class Writer {
  #bytes = new Uint8Array(1024);
  #at = 0;

  #room(length: number): DataView {
    if (this.#at + length > this.#bytes.length) {
      const larger = new Uint8Array(2 * (this.#at + length));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    const view = new DataView(this.#bytes.buffer, this.#at, length);
    this.#at += length;
    return view;
  }

  u32(value: number): void {
    this.#room(4).setUint32(0, value, true);
  }
  u64(value: number | bigint): void {
    this.#room(8).setBigUint64(0, BigInt(value), true);
  }
  f32(value: number): void {
    this.#room(4).setFloat32(0, value, true);
  }
  bytes(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at - bytes.length);
  }
  text(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }
  pad(alignment: number): void {
    this.#room((alignment - (this.#at % alignment)) % alignment);
  }
  get written(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }

  meta(value: Meta): void {
    if ("texts" in value) return this.#list(8, value.texts, (text) => this.text(text));
    if ("i32s" in value) return this.#list(5, value.i32s, (n) => this.u32(n));
    if ("f32s" in value) return this.#list(6, value.f32s, (n) => this.f32(n));
    this.u32("u32" in value ? 4 : "f32" in value ? 6 : "bool" in value ? 7 : 8);
    if ("u32" in value) this.u32(value.u32);
    else if ("f32" in value) this.f32(value.f32);
    else if ("bool" in value) this.bytes(Uint8Array.of(Number(value.bool)));
    else this.text(value.text);
  }

  #list<T>(type: number, values: readonly T[], write: (value: T) => void): void {
    this.u32(9);
    this.u32(type);
    this.u64(values.length);
    for (const value of values) write(value);
  }
}

/** A file of version 3. */
export function ggufBytes(
  metadata: Readonly<Record<string, Meta>>,
  tensors: Readonly<Record<string, GgufTensorToWrite>>,
): Uint8Array {
  const w = new Writer();
  w.bytes(new TextEncoder().encode("GGUF"));
  w.u32(3);
  w.u64(Object.keys(tensors).length);
  w.u64(Object.keys(metadata).length);
  for (const [name, value] of Object.entries(metadata)) {
    w.text(name);
    w.meta(value);
  }
  let offset = 0;
  for (const [name, { type, shape, bytes }] of Object.entries(tensors)) {
    w.text(name);
    w.u32(shape.length);
    for (const n of shape.toReversed()) w.u64(n);
    w.u32(type);
    w.u64(offset);
    offset += Math.ceil(bytes.length / 32) * 32;
  }
  for (const { bytes } of Object.values(tensors)) {
    w.pad(32);
    w.bytes(bytes);
  }
  return w.written;
}

/** Rows of queries or keys as llama.cpp's converter orders them: reshape(heads, 2, width / 2).swapaxes(1, 2). */
export function interleave<T>(rows: readonly T[], heads: number): T[] {
  const half = rows.length / heads / 2;
  const turned: T[] = [];
  for (let head = 0; head < heads; head++)
    for (let pair = 0; pair < half; pair++)
      for (let side = 0; side < 2; side++) turned.push(rows[(head * 2 + side) * half + pair]!);
  return turned;
}

/** Random bytes of blocks, with small scales, by the type's number. */
export function randomBlocks(type: number, elements: number, seed: number): Uint8Array {
  const [size, bytes, halves] = ({ 2: [32, 18, [0]], 3: [32, 20, [0, 2]], 6: [32, 22, [0]], 7: [32, 24, [0, 2]], 8: [32, 34, [0]], 12: [256, 144, [0, 2]], 13: [256, 176, [0, 2]], 14: [256, 210, [208]] } as const)[type as 2]; // prettier-ignore
  const out = new Uint8Array((elements / size) * bytes);
  let state = seed * 7919 + 17;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8;
  for (let i = 0; i < out.length; i++) out[i] = next();
  for (let at = 0; at < out.length; at += bytes)
    for (const half of halves) {
      const bits = f32ToF16(((next() % 2001) - 1000) / 2 ** 20);
      out[at + half] = bits & 255;
      out[at + half + 1] = bits >>> 8;
    }
  return out;
}

const bitsOf = (bytes: Uint8Array, first: number, count: number): number => {
  let value = 0;
  for (let bit = count - 1; bit >= 0; bit--) value = value * 2 + ((bytes[(first + bit) >> 3]! >> ((first + bit) & 7)) & 1); // prettier-ignore
  return value;
};
const halfAt = (bytes: Uint8Array, at: number): number => f16ToF32(bytes[at]! + 256 * bytes[at + 1]!);
const signed = (byte: number): number => (byte > 127 ? byte - 256 : byte);

/** Of Q4_K and Q5_K: `low` is where the low four bits of codes begin, `fifth` the fifth bit. */
function ofK(b: Uint8Array, i: number, low: number, fifth: number): number {
  const s = Math.floor(i / 32);
  // Eight scales, then eight minimums: six bits each; the high two of the last four are the high two of the first four bytes.
  const six = (from: number): number =>
    s < 4
      ? bitsOf(b, 32 + 8 * (from + s), 6)
      : bitsOf(b, 32 + 8 * (8 + s - 4) + (from === 0 ? 0 : 4), 4) +
        16 * bitsOf(b, 32 + 8 * (from + s - 4) + 6, 2);
  const q = bitsOf(b, 8 * (low + 32 * Math.floor(s / 2) + (i % 32)) + (s % 2) * 4, 4) + 16 * fifth;
  return Math.fround(halfAt(b, 0) * six(0) * q) - halfAt(b, 2) * six(4);
}

/** The value of one element of a block, bit by bit from the format's description. */
const VALUES: Readonly<Record<number, (block: Uint8Array, i: number) => number>> = {
  2: (b, i) => halfAt(b, 0) * (bitsOf(b, 16 + 8 * (i % 16) + (i < 16 ? 0 : 4), 4) - 8),
  3: (b, i) => Math.fround(halfAt(b, 0) * bitsOf(b, 32 + 8 * (i % 16) + (i < 16 ? 0 : 4), 4)) + halfAt(b, 2),
  6: (b, i) =>
    halfAt(b, 0) * (bitsOf(b, 48 + 8 * (i % 16) + (i < 16 ? 0 : 4), 4) + 16 * bitsOf(b, 16 + i, 1) - 16),
  7: (b, i) =>
    Math.fround(
      halfAt(b, 0) * (bitsOf(b, 64 + 8 * (i % 16) + (i < 16 ? 0 : 4), 4) + 16 * bitsOf(b, 32 + i, 1)),
    ) + halfAt(b, 2),
  8: (b, i) => halfAt(b, 0) * signed(b[2 + i]!),
  12: (b, i) => ofK(b, i, 16, 0),
  13: (b, i) => ofK(b, i, 48, bitsOf(b, 8 * (16 + (i % 32)) + Math.floor(i / 32), 1)),
  14: (b, i) => {
    const [part, rest] = [Math.floor(i / 128), i % 128];
    const low = bitsOf(b, 8 * (64 * part + (rest % 64)) + (rest < 64 ? 0 : 4), 4);
    const high = bitsOf(b, 8 * (128 + 32 * part + (rest % 32)) + 2 * Math.floor(rest / 32), 2);
    const scale = signed(b[192 + Math.floor(i / 16)]!);
    return Math.fround(halfAt(b, 208) * scale) * (low + 16 * high - 32);
  },
};
const SIZES: Readonly<Record<number, readonly [number, number]>> = { 2: [32, 18], 3: [32, 20], 6: [32, 22], 7: [32, 24], 8: [32, 34], 12: [256, 144], 13: [256, 176], 14: [256, 210] }; // prettier-ignore

/** The values of blocks in f32. */
export function blockValues(type: number, bytes: Uint8Array): Float32Array {
  const [size, length] = SIZES[type]!;
  return Float32Array.from({ length: (bytes.length / length) * size }, (_, i) => {
    const block = Math.floor(i / size) * length;
    return VALUES[type]!(bytes.subarray(block, block + length), i % size);
  });
}
