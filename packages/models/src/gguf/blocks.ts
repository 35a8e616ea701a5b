/**
 * The blocks of GGUF tensors: what each type stores, its values in f32, and for linear types of up to eight bits the same numbers as
 * words with a scale and a bias for every 32 elements, without loss. Codes of five bits take eight there.
 */
import { f16ToF32 } from "@tiedlora/core";
import { packCodes } from "../quantized/form.ts";

/** Numbers of types in files. */
export type BlockType = 0 | 1 | 2 | 3 | 6 | 7 | 8 | 12 | 13 | 14 | 30;

/** Codes of a tensor, one a byte, and the f32 scale and bias of every 32 of them: a value is scale * code + bias in f32. */
export interface Affine {
  readonly codes: Uint8Array;
  readonly scales: Float32Array;
  readonly biases: Float32Array;
}

/** A type of blocks. */
export interface Blocks {
  readonly name: string;
  /** Elements and bytes of a block. */
  readonly elements: number;
  readonly bytes: number;
  /** Writes the values of a block, which begins at byte `at`, from `to` on. */
  readonly decode: (view: DataView, at: number, values: Float32Array, to: number) => void;
  /** For types that are linear with groups of 32: the bits of a code, and a reader of the block. */
  readonly affine?: {
    readonly bits: 4 | 8;
    /** Whether its scales and biases are exact in f16. */
    readonly half: boolean;
    readonly read: (view: DataView, at: number, to: number, out: Affine) => void;
  };
}

/** The elements that share a scale in a linear type. */
export const AFFINE_GROUP = 32;

const half = (view: DataView, at: number): number => f16ToF32(view.getUint16(at, true));

const plain = (
  name: string,
  bytes: number,
  read: (view: DataView, at: number) => number,
): Blocks => ({ name, elements: 1, bytes, decode: (view, at, values, to) => (values[to] = read(view, at)) }); // prettier-ignore

/** A linear type, whose values follow from its codes. */
function linear(
  name: string,
  elements: number,
  bytes: number,
  affine: NonNullable<Blocks["affine"]>,
): Blocks {
  const codes = new Uint8Array(elements);
  const groups = elements / AFFINE_GROUP;
  const one: Affine = { codes, scales: new Float32Array(groups), biases: new Float32Array(groups) };
  const decode: Blocks["decode"] = (view, at, values, to) => {
    affine.read(view, at, 0, one);
    for (let i = 0; i < elements; i++) {
      const group = Math.floor(i / AFFINE_GROUP);
      values[to + i] = Math.fround(one.scales[group]! * codes[i]!) + one.biases[group]!;
    }
  };
  return { name, elements, bytes, decode, affine };
}

/** {f16 d; u8 [16]}: d * (q - 8); the first half of the elements is in the low bits. */
function readQ4_0(view: DataView, at: number, to: number, out: Affine): void {
  const d = half(view, at);
  out.scales[to / AFFINE_GROUP] = d;
  out.biases[to / AFFINE_GROUP] = -8 * d;
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(at + 2 + i);
    out.codes[to + i] = byte & 15;
    out.codes[to + 16 + i] = byte >>> 4;
  }
}

/** {f16 d, m; u8 [16]}: d * q + m. */
function readQ4_1(view: DataView, at: number, to: number, out: Affine): void {
  readQ4_0(view, at + 2, to, out); // the same codes, two bytes later
  out.scales[to / AFFINE_GROUP] = half(view, at);
  out.biases[to / AFFINE_GROUP] = half(view, at + 2);
}

/** Codes of five bits: the highest of each in a word of 32 bits at `high`, the others after it as in Q4_0. */
function fiveBits(view: DataView, high: number, to: number, codes: Uint8Array): void {
  const word = view.getUint32(high, true);
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(high + 4 + i);
    codes[to + i] = (byte & 15) | (((word >>> i) & 1) << 4);
    codes[to + 16 + i] = (byte >>> 4) | (((word >>> (16 + i)) & 1) << 4);
  }
}

/** {f16 d; u32 high bits; u8 [16]}: d * (q - 16). */
function readQ5_0(view: DataView, at: number, to: number, out: Affine): void {
  const d = half(view, at);
  out.scales[to / AFFINE_GROUP] = d;
  out.biases[to / AFFINE_GROUP] = -16 * d;
  fiveBits(view, at + 2, to, out.codes);
}

/** {f16 d, m; u32 high bits; u8 [16]}: d * q + m. */
function readQ5_1(view: DataView, at: number, to: number, out: Affine): void {
  out.scales[to / AFFINE_GROUP] = half(view, at);
  out.biases[to / AFFINE_GROUP] = half(view, at + 2);
  fiveBits(view, at + 4, to, out.codes);
}

/** {f16 d; i8 [32]}: d * q. */
function readQ8_0(view: DataView, at: number, to: number, out: Affine): void {
  const d = half(view, at);
  out.scales[to / AFFINE_GROUP] = d;
  out.biases[to / AFFINE_GROUP] = -128 * d;
  for (let i = 0; i < 32; i++) out.codes[to + i] = view.getInt8(at + 2 + i) + 128;
}

/** {f16 d, dmin; u8 [12]; u8 [128]}: d * scale * q - dmin * min, with eight scales and mins of six bits. */
function readQ4_K(view: DataView, at: number, to: number, out: Affine): void {
  readK(view, at, at + 16, to, out);
}

/** {f16 d, dmin; u8 [12]; u8 [32] high bits; u8 [128]}: as Q4_K, with a fifth bit for each code; bit s of byte i belongs to group s. */
function readQ5_K(view: DataView, at: number, to: number, out: Affine): void {
  readK(view, at, at + 48, to, out);
  for (let s = 0; s < 8; s++)
    for (let i = 0; i < 32; i++) out.codes[to + s * 32 + i]! |= ((view.getUint8(at + 16 + i) >>> s) & 1) << 4;
}

/** What Q4_K and Q5_K share; `low` is where the low four bits of the codes begin. */
function readK(view: DataView, at: number, low: number, to: number, out: Affine): void {
  const [d, dmin] = [half(view, at), half(view, at + 2)];
  const six = (i: number): number => view.getUint8(at + 4 + i);
  for (let s = 0; s < 8; s++) {
    const scale = s < 4 ? six(s) & 63 : (six(s + 4) & 15) | ((six(s - 4) >>> 6) << 4);
    const min = s < 4 ? six(s + 4) & 63 : (six(s + 4) >>> 4) | ((six(s) >>> 6) << 4);
    out.scales[to / AFFINE_GROUP + s] = d * scale;
    out.biases[to / AFFINE_GROUP + s] = -dmin * min;
    // Two groups share 32 bytes: one has the low bits, the next the high ones.
    const bytes = low + (s >>> 1) * 32;
    const shift = (s & 1) * 4;
    for (let i = 0; i < 32; i++) out.codes[to + s * 32 + i] = (view.getUint8(bytes + i) >>> shift) & 15;
  }
}

/** {u8 [128] low bits; u8 [64] high bits; i8 [16] scales; f16 d}: d * scale * (q - 32), with a scale for every 16 elements. */
function decodeQ6_K(view: DataView, at: number, values: Float32Array, to: number): void {
  const d = half(view, at + 208);
  for (let i = 0; i < 256; i++) {
    const [part, lane, column] = [i >>> 7, (i >>> 5) & 3, i & 31];
    const low = view.getUint8(at + part * 64 + (lane & 1) * 32 + column) >>> (lane < 2 ? 0 : 4);
    const high = view.getUint8(at + 128 + part * 32 + column) >>> (2 * lane);
    const scale = Math.fround(d * view.getInt8(at + 192 + (i >>> 4)));
    values[to + i] = scale * (((low & 15) | ((high & 3) << 4)) - 32);
  }
}

const word = new DataView(new ArrayBuffer(4));
function bf16(view: DataView, at: number): number {
  word.setUint16(2, view.getUint16(at, true), true);
  return word.getFloat32(0, true);
}

/** The types that can be read, by their numbers in files. */
export const BLOCKS: { readonly [T in BlockType]: Blocks } = {
  0: plain("F32", 4, (view, at) => view.getFloat32(at, true)),
  1: plain("F16", 2, half),
  2: linear("Q4_0", 32, 18, { bits: 4, half: true, read: readQ4_0 }),
  3: linear("Q4_1", 32, 20, { bits: 4, half: true, read: readQ4_1 }),
  6: linear("Q5_0", 32, 22, { bits: 8, half: true, read: readQ5_0 }),
  7: linear("Q5_1", 32, 24, { bits: 8, half: true, read: readQ5_1 }),
  8: linear("Q8_0", 32, 34, { bits: 8, half: true, read: readQ8_0 }),
  12: linear("Q4_K", 256, 144, { bits: 4, half: false, read: readQ4_K }),
  13: linear("Q5_K", 256, 176, { bits: 8, half: false, read: readQ5_K }),
  14: { name: "Q6_K", elements: 256, bytes: 210, decode: decodeQ6_K },
  30: plain("BF16", 2, bf16),
};

/** Names of other types, for messages. */
const OTHERS: Readonly<Record<number, string>> = {
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  28: "F64",
  29: "IQ1_M",
  39: "MXFP4",
};

export function blockTypeName(type: number): string {
  return isBlockType(type) ? BLOCKS[type].name : (OTHERS[type] ?? String(type));
}

export function isBlockType(type: number): type is BlockType {
  return Object.hasOwn(BLOCKS, type);
}

/** The values of a tensor's bytes. */
export function decodeBlocks(type: BlockType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const { elements, bytes: length, decode } = BLOCKS[type];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array((bytes.byteLength / length) * elements);
  for (let at = 0, to = 0; at < bytes.byteLength; at += length, to += elements) decode(view, at, values, to);
  return values;
}

/** The codes of a tensor of a linear type, packed into words, with its scales and biases. */
export function affineBlocks(
  type: BlockType,
  bytes: Uint8Array,
): { words: Uint32Array; scales: Float32Array; biases: Float32Array } {
  const { elements, bytes: length, affine, name } = BLOCKS[type];
  if (affine === undefined) throw new TypeError(`${name} is not linear`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = (bytes.byteLength / length) * elements;
  const groups = count / AFFINE_GROUP;
  const out: Affine = {
    codes: new Uint8Array(count),
    scales: new Float32Array(groups),
    biases: new Float32Array(groups),
  };
  for (let at = 0, to = 0; at < bytes.byteLength; at += length, to += elements)
    affine.read(view, at, to, out);
  return { words: packCodes(out.codes, affine.bits), scales: out.scales, biases: out.biases };
}
