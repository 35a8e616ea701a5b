/** Turns the codes of quantized weights into numbers, in registers: those of four bits by looking up each byte of the number in a table. */
import { BYTES, codeValue, type Operand, type QuantizedStorage } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { f32x4, i32, i32x4, i8x16, v128 } from "../instructions.ts";
import { loadSplat, widen } from "../loops/load-store.ts";
import { VectorMath } from "../math.ts";

/** Codes that are turned into numbers together, and what groups, rows and blocks are multiples of. */
export const UNIT = 16;

/** The addresses of a weight's words, scales and biases (0 without biases), as its functions take them. */
export type Parts = readonly [words: Local, scales: Local, biases: Local];

/** Turns codes into numbers. */
export class Decoder {
  readonly f: Fn;
  readonly math: VectorMath;
  readonly quantized: QuantizedStorage;

  constructor(f: Fn, fma: boolean, quantized: QuantizedStorage) {
    this.f = f;
    this.math = new VectorMath(f, fma);
    this.quantized = quantized;
  }

  /** Bytes of `count` codes. */
  bytes(count: number): number {
    return (count * this.quantized.bits) / 8;
  }

  /** Sixteen neighbors, from the codes at an address: four vectors. */
  neighbors(p: Local, offset: number): Expr[] {
    const { f } = this;
    if (this.quantized.bits === 8) return this.#ofBytes(f.bind(v128.load(p, offset)));
    const { low, high } = this.#halves(v128.load64_zero(p, offset));
    const order = Array.from({ length: UNIT }, (_, i) => (i % 2) * UNIT + (i >> 1));
    return this.#lookUp(f.bind(i8x16.shuffle(low, high, order)));
  }

  /** The codes among which `apart` begins with those at even places. */
  get stretch(): number {
    const { bits, group } = this.quantized;
    return bits === 4 && group % (2 * UNIT) === 0 ? 2 * UNIT : UNIT;
  }

  /**
   * Sixteen numbers of the stretch at an address, the first of which has the number `from` in it: as `neighbors`, but of four bits
   * those with even places in the stretch come first, and then the others.
   */
  apart(p: Local, from: number): Expr[] {
    const { f, stretch } = this;
    const start = this.bytes(from - (from % stretch));
    if (this.quantized.bits === 8) return this.neighbors(p, start);
    if (stretch === UNIT) {
      const { low, high } = this.#halves(v128.load64_zero(p, start));
      return this.#lookUp(f.bind(v128.shuffle32(low, high, [0, 1, 4, 5])));
    }
    const codes = v128.load(p, start);
    const shifted = from % stretch === 0 ? codes : i32x4.shr_u(codes, 4);
    return this.#lookUp(f.bind(v128.and(shifted, this.math.ki(0x0f0f0f0f))));
  }

  /** The numbers in one word of each of four rows: for each number of a word a vector with a lane for each row. */
  columns(rows: readonly Local[]): Expr[] {
    const { f } = this;
    let words: Expr = v128.load32_zero(at(rows, 0, "row"));
    for (let r = 1; r < 4; r++) words = v128.load32_lane(at(rows, r, "row"), words, r);
    const bound = f.bind(words);
    const order = Array.from({ length: UNIT }, (_, i) => 4 * (i % 4) + (i >> 2));
    const byColumn = f.bind(i8x16.shuffle(bound, bound, order));
    if (this.quantized.bits === 8) return this.#ofBytes(byColumn);
    const { low, high } = this.#halves(byColumn);
    const [even, odd] = [this.#lookUp(low), this.#lookUp(high)];
    return even.flatMap((x, b) => [x, at(odd, b, "column")]);
  }

  /** The number times the scale, plus the bias if there is one. */
  scaled(number: Expr, { scale, bias }: { readonly scale: Expr; readonly bias: Expr | null }): Expr {
    const product = f32x4.mul(number, scale);
    return bias === null ? product : f32x4.add(product, bias);
  }

  /** The low and the high four bits of each byte. */
  #halves(bytes: Expr): { low: Local; high: Local } {
    const { f, math } = this;
    const x = f.bind(bytes);
    const mask = math.ki(0x0f0f0f0f);
    return { low: f.bind(v128.and(x, mask)), high: f.bind(v128.and(i32x4.shr_u(x, 4), mask)) };
  }

  /**
   * The numbers of sixteen codes of eight bits. A code in the last bits of 2²³ is 2²³ + code as f32, from which subtracting is exact.
   */
  #ofBytes(codes: Local): Expr[] {
    const { math } = this;
    const [zero, exponent] = [math.ki(0), math.ki(0x4b004b00)];
    const offset = math.k(2 ** 23 - codeValue(this.quantized, 0));
    return [0, 1].flatMap((half) => {
      const pairs = this.#zip(codes, zero, half, 1);
      return [0, 1].map((quarter) => f32x4.sub(this.#zip(pairs, exponent, quarter, 2), offset));
    });
  }

  /** The numbers of sixteen codes of four bits, one in each byte. */
  #lookUp(codes: Local): Expr[] {
    const { f, math } = this;
    const numbers = Float32Array.from({ length: UNIT }, (_, q) => codeValue(this.quantized, q));
    const bytes = new Uint8Array(numbers.buffer);
    const plane = (p: number): Local => {
      const own = bytes.filter((_, i) => i % 4 === p);
      if (own.every((byte) => byte === 0)) return math.ki(0);
      const words = [...new Uint32Array(own.buffer)];
      return f.bind(math.lookUp(f.constant(`table:${words.join()}`, v128.const32(words)), codes));
    };
    const planes = [0, 1, 2, 3].map(plane);
    const [p0, p1, p2, p3] = planes as [Local, Local, Local, Local];
    const isEmpty = p0 === p1; // both are zero
    return [0, 1].flatMap((half) => {
      const [low, high] = [isEmpty ? p0 : this.#zip(p0, p1, half, 1), this.#zip(p2, p3, half, 1)];
      return [0, 1].map((quarter) => this.#zip(low, high, quarter, 2));
    });
  }

  /** The first or second half of two vectors, by turns `size` bytes of each. */
  #zip(a: Expr, b: Expr, half: number, size: number): Local {
    const order = Array.from({ length: UNIT }, (_, i) => {
      const [turn, byte] = [Math.floor(i / size), i % size];
      return (turn % 2) * UNIT + 8 * half + size * (turn >> 1) + byte;
    });
    return this.f.bind(i8x16.shuffle(a, b, order));
  }
}

/** A running pointer to the scales, and one to the biases if there are any. */
export class Scales {
  readonly #decoder: Decoder;
  readonly #parts: readonly { readonly p: Local; readonly operand: Operand }[];

  /** Those of the group of number `index`. */
  constructor(decoder: Decoder, [, scales, biases]: Parts, index: Expr) {
    const { f, quantized } = decoder;
    const group = f.bind(i32.div_u(index, quantized.group));
    const pointer = (base: Local, operand: Operand): { p: Local; operand: Operand } => {
      const bytes = BYTES[operand.dtype];
      const p = i32.add(i32.add(base, operand.view.offset * bytes), i32.mul(group, bytes));
      return { p: f.local("i32", p), operand };
    };
    this.#decoder = decoder;
    this.#parts = [
      pointer(scales, quantized.scales),
      ...(quantized.biases ? [pointer(biases, quantized.biases)] : []),
    ];
  }

  /** Scale and bias in all lanes. */
  splat(): { scale: Local; bias: Local | null } {
    const { f, math } = this.#decoder;
    const [scale, bias] = this.#parts.map(({ p, operand }) => f.bind(loadSplat(math, operand.dtype, p, 0)));
    return { scale: scale as Local, bias: bias ?? null };
  }

  /** Scales and biases of four rows, one in each lane. */
  static lanes(rows: readonly Scales[]): { scale: Local; bias: Local | null } {
    const { f, math } = at(rows, 0, "row").#decoder;
    const [scale, bias] = at(rows, 0, "row").#parts.map(({ operand: { dtype } }, i) => {
      const ps = rows.map((row) => at(row.#parts, i, "part").p);
      const first = at(ps, 0, "row");
      const isHalf = BYTES[dtype] === 2;
      let raw: Expr = isHalf ? i32x4.splat(i32.load16_u(first)) : v128.load32_zero(first);
      ps.slice(1).forEach((p, lane) => {
        raw = isHalf
          ? i32x4.replace_lane(raw, lane + 1, i32.load16_u(p))
          : v128.load32_lane(p, raw, lane + 1);
      });
      return f.bind(widen(math, dtype, isHalf ? f.bind(raw) : raw));
    });
    return { scale: scale as Local, bias: bias ?? null };
  }

  /** Moves on by a number of groups. */
  advance(groups: number): void {
    for (const { p, operand } of this.#parts) this.#decoder.f.add(p, groups * BYTES[operand.dtype]);
  }
}

/** The address of the word that holds number `index`, the first in its word. */
export function addressOf({ quantized }: Decoder, [words]: Parts, index: Int): Expr {
  const bytes = quantized.bits === 4 ? i32.shr_u(index, 1) : index;
  return i32.add(words, bytes);
}
