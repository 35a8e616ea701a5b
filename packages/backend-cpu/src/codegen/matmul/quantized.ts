/**
 * Quantized weights as second factors of products: packing for the GEMM core, and products of a few rows. Codes become numbers
 * sixteen at a time, in registers: those of four bits by looking up each byte of the number in a table. Scaling rounds the
 * product and the sum, as the definition does, so there is no fused multiply-add.
 */
import { BYTES, codeValue, type Operand, type QuantizedStorage } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Expr, type Fn, i32s, type Int, type Local, type Module } from "../assembler.ts";
import { f32x4, i32, i32x4, i8x16, memory, v128 } from "../instructions.ts";
import { loadLanes, loadSplat, widen } from "../loops/load-store.ts";
import { VectorMath } from "../math.ts";
import { type Tile, tileColumns } from "./gemm.ts";

/** Codes that are turned into numbers together, and what groups, rows and blocks are multiples of. */
export const UNIT = 16;

/** A second factor that is quantized. */
type QuantizedOperand = Operand & { readonly quantized: QuantizedStorage };

export const isQuantized = (operand: Operand): operand is QuantizedOperand => operand.quantized !== undefined;

const lastStrides = ({ view }: Operand): [number, number] =>
  view.strides.slice(-2) as unknown as [number, number];

/** Whether there are kernels for a quantized B [...batch, k, n]: its rows or columns are whole rows of the weight. */
export function readsQuantized({ view, quantized }: QuantizedOperand, k: number, n: number): boolean {
  const { group } = quantized;
  const [bK, bN] = view.strides.slice(-2);
  if (group % UNIT !== 0 || view.offset % group !== 0 || view.moving) return false;
  if (view.strides.slice(0, -2).some((stride) => stride % group !== 0)) return false;
  return (
    (bK === 1 && k % group === 0 && bN! % group === 0) || (bN === 1 && n % group === 0 && bK! % group === 0)
  );
}

/** Whether the numbers along k are neighbors. */
const isAlongDepth = (b: QuantizedOperand): boolean => lastStrides(b)[0] === 1;

/** The addresses of a weight's words, scales and biases (0 without biases), as its functions take them. */
type Parts = readonly [words: Local, scales: Local, biases: Local];

/** Turns codes into numbers. */
class Decoder {
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
    if (this.quantized.bits === 8) {
      const codes = f.bind(v128.load(p, offset));
      return [0, 1, 2, 3].map((j) => this.#ofBytes(codes, [4 * j, 4 * j + 1, 4 * j + 2, 4 * j + 3]));
    }
    const { low, high } = this.#halves(v128.load64_zero(p, offset));
    const order = Array.from({ length: UNIT }, (_, i) => (i % 2) * UNIT + (i >> 1));
    return this.#lookUp(f.bind(i8x16.shuffle(low, high, order)));
  }

  /** The numbers in one word of each of four rows: for each number of a word a vector with a lane for each row. */
  columns(rows: readonly Local[]): Expr[] {
    const { f } = this;
    let words: Expr = v128.load32_zero(at(rows, 0, "row"));
    for (let r = 1; r < 4; r++) words = v128.load32_lane(at(rows, r, "row"), words, r);
    const bound = f.bind(words);
    if (this.quantized.bits === 8)
      return [0, 1, 2, 3].map((b) => this.#ofBytes(bound, [b, 4 + b, 8 + b, 12 + b]));
    const order = Array.from({ length: UNIT }, (_, i) => 4 * (i % 4) + (i >> 2));
    const { low, high } = this.#halves(f.bind(i8x16.shuffle(bound, bound, order)));
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

  /** Codes of eight bits, in the bytes with the given numbers. */
  #ofBytes(codes: Local, bytes: readonly number[]): Expr {
    const zero = this.math.ki(0);
    const number = f32x4.convert_i32x4_s(
      i8x16.shuffle(
        codes,
        zero,
        bytes.flatMap((b) => [b, UNIT, UNIT, UNIT]),
      ),
    );
    const first = codeValue(this.quantized, 0);
    return first === 0 ? number : f32x4.add(number, this.math.k(first));
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
      return f.bind(i8x16.swizzle(f.constant(`table:${words.join()}`, v128.const32(words)), codes));
    };
    const planes = [0, 1, 2, 3].map(plane);
    /** The first or second half of two vectors, by turns `size` bytes of each. */
    const zip = (a: Expr, b: Expr, half: number, size: number): Local => {
      const order = Array.from({ length: UNIT }, (_, i) => {
        const [turn, byte] = [Math.floor(i / size), i % size];
        return (turn % 2) * UNIT + 8 * half + size * (turn >> 1) + byte;
      });
      return f.bind(i8x16.shuffle(a, b, order));
    };
    const [p0, p1, p2, p3] = planes as [Local, Local, Local, Local];
    const isEmpty = p0 === p1; // both are zero
    return [0, 1].flatMap((half) => {
      const [low, high] = [isEmpty ? p0 : zip(p0, p1, half, 1), zip(p2, p3, half, 1)];
      return [0, 1].map((quarter) => zip(low, high, quarter, 2));
    });
  }
}

/** A running pointer to the scales, and one to the biases if there are any. */
class Scales {
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

/**
 * pack(to, start, words, scales, biases, columns, depth): packs a block of B for the GEMM core, in strips; `start` is the number
 * of the block's first element in the weight.
 */
export function emitQuantizedPack(module: Module, b: QuantizedOperand, tile: Tile): Fn {
  return module.fn(null, i32s(7), [], (f, to, start, words, scales, biases, columns, depth) => {
    const decoder = new Decoder(f, tile.fma, b.quantized);
    const padded = f.bind(i32.and(i32.add(depth, tile.unroll - 1), -tile.unroll));
    const block = { b, height: tileColumns(tile), to, start, columns, depth, padded };
    const parts = [words, scales, biases] as const;
    if (isAlongDepth(b)) packAlongDepth(decoder, parts, block);
    else packAlongColumns(decoder, parts, block);
  });
}

interface Block {
  readonly b: QuantizedOperand;
  /** Columns of a strip. */
  readonly height: number;
  readonly to: Local;
  readonly start: Local;
  readonly columns: Local;
  readonly depth: Local;
  readonly padded: Local;
}

/** Four columns of B, which are rows of the weight, at a time; beyond the last column, that column again. */
function packAlongDepth(decoder: Decoder, parts: Parts, block: Block): void {
  const { f, quantized } = decoder;
  const { b, height, to, start, columns, depth, padded } = block;
  const perWord = 32 / quantized.bits;
  const [column, k, left, end] = [f.local("i32"), f.local("i32"), f.local("i32"), f.local("i32")];
  const all = f.bind(i32.and(i32.add(columns, height - 1), -height));
  f.for(column, 0, all, 4, () => {
    const inStrip = i32.shl(i32.and(column, height - 1), 2);
    const target = f.local(
      "i32",
      i32.add(i32.add(to, inStrip), i32.mul(i32.shl(i32.and(column, -height), 2), padded)),
    );
    const firsts = [0, 1, 2, 3].map((r) => {
      const own = f.bind(i32.add(column, r));
      const last = f.bind(i32.sub(columns, 1));
      const index = i32.select(own, last, i32.lt_s(own, last));
      return f.bind(i32.add(start, i32.mul(index, lastStrides(b)[1])));
    });
    const rows = firsts.map((first) => f.local("i32", addressOf(decoder, parts, first)));
    const scales = firsts.map((first) => new Scales(decoder, parts, first));
    f.set(left, i32.sub(quantized.group, i32.rem_u(at(firsts, 0, "row"), quantized.group)));
    f.set(k, 0);
    f.while(
      () => i32.lt_s(k, depth),
      () => {
        f.set(end, i32.add(k, left));
        f.set(end, i32.select(end, depth, i32.lt_s(end, depth)));
        f.set(left, quantized.group);
        const by = Scales.lanes(scales);
        for (const row of scales) row.advance(1);
        f.while(
          () => i32.lt_s(k, end),
          () => {
            decoder.columns(rows).forEach((numbers, j) => {
              v128.store(f, target, decoder.scaled(numbers, by), 4 * height * j);
            });
            for (const row of rows) f.add(row, 4);
            f.add(target, 4 * height * perWord);
            f.add(k, perWord);
          },
        );
      },
    );
    // `target` is now beyond the last number of these columns: the rest of the padded depth is zero
    f.while(
      () => i32.lt_s(k, padded),
      () => {
        v128.store(f, target, decoder.math.ki(0));
        f.add(target, 4 * height);
        f.add(k, 1);
      },
    );
  });
}

/** Neighboring columns of B, which are neighbors in the weight: several units of a row at a time, since rows are far apart. */
function packAlongColumns(decoder: Decoder, parts: Parts, block: Block): void {
  const { f, quantized } = decoder;
  const { b, height, to, start, columns, depth, padded } = block;
  const rowStride = lastStrides(b)[0];
  const [column, k] = [f.local("i32", 0), f.local("i32")];
  const perUnit = UNIT / height;
  for (const units of [4, 1]) {
    f.while(
      () => i32.le_s(i32.add(column, units * UNIT), columns),
      () => {
        const first = f.bind(i32.add(start, column));
        const row = f.local("i32", addressOf(decoder, parts, first));
        const scales = Array.from(
          { length: units },
          (_, u) => new Scales(decoder, parts, i32.add(first, u * UNIT)),
        );
        const strips = Array.from({ length: units * perUnit }, (_, s) =>
          f.local("i32", i32.add(to, i32.mul(i32.shl(i32.add(column, s * height), 2), padded))),
        );
        f.for(k, 0, depth, 1, () => {
          scales.forEach((scale, u) => {
            const by = scale.splat();
            decoder.neighbors(row, decoder.bytes(u * UNIT)).forEach((numbers, j) => {
              const strip = at(strips, u * perUnit + Math.floor((4 * j) / height), "strip");
              v128.store(f, strip, decoder.scaled(numbers, by), (16 * j) % (4 * height));
            });
            scale.advance(rowStride / quantized.group);
          });
          f.add(row, decoder.bytes(rowStride));
          for (const strip of strips) f.add(strip, 4 * height);
        });
        const rest = f.bind(i32.mul(i32.sub(padded, depth), 4 * height));
        for (const strip of strips) memory.fill(f, strip, 0, rest);
        f.add(column, units * UNIT);
      },
    );
  }
}

/** The address of the word that holds number `index`, the first in its word. */
function addressOf({ quantized }: Decoder, [words]: Parts, index: Int): Expr {
  const bytes = quantized.bits === 4 ? i32.shr_u(index, 1) : index;
  return i32.add(words, bytes);
}

/** A product of `m` rows: A [m, k] with contiguous rows, and B [k, n] with contiguous columns. */
interface SkinnyQuantized {
  readonly m: number;
  readonly k: number;
  readonly a: Operand;
  readonly b: QuantizedOperand;
  /** Bytes from row to row of C. */
  readonly rowStride: number;
}

/** Whether the kernel for a few rows suits a product. */
export function isSkinnyQuantized(m: number, a: Operand, b: QuantizedOperand): boolean {
  return m <= 4 && isAlongDepth(b) && lastStrides(a)[1] === 1;
}

/** gemv(a, start, words, scales, biases, c, columns, add): `columns` columns of C (+)= A·B, one after another. */
export function emitQuantizedGemv(module: Module, product: SkinnyQuantized, fma: boolean): Fn {
  const { m, k, a, b, rowStride } = product;
  const { group } = b.quantized;
  return module.fn(null, i32s(8), [], (f, from, start, words, scales, biases, c, columns, add) => {
    const decoder = new Decoder(f, fma, b.quantized);
    const { math } = decoder;
    const parts = [words, scales, biases] as const;
    const [aBytes, aRow] = [BYTES[a.dtype], lastStrides(a)[0] * BYTES[a.dtype]];
    const parallel = m === 1 ? 4 : m === 2 ? 2 : 1; // independent sums hide the latency of an addition
    const sums = Array.from({ length: m * parallel }, () => f.local("v128"));
    const [n, target, first] = [f.local("i32"), f.local("i32", c), f.local("i32", start)];
    const [x, p, g, u] = [f.local("i32"), f.local("i32"), f.local("i32"), f.local("i32")];
    f.for(n, 0, columns, 1, () => {
      for (const sum of sums) f.set(sum, math.k(0));
      f.set(x, from);
      f.set(p, addressOf(decoder, parts, first));
      const scale = new Scales(decoder, parts, first);
      f.for(g, 0, k, group, () => {
        const by = scale.splat();
        scale.advance(1);
        f.for(u, 0, group, UNIT, () => {
          decoder.neighbors(p, 0).forEach((numbers, j) => {
            const y = f.bind(decoder.scaled(numbers, by));
            for (let r = 0; r < m; r++) {
              const sum = at(sums, r * parallel + (j % parallel), "sum");
              f.set(sum, math.madd(loadLanes(math, a.dtype, x, 1, r * aRow + 4 * j * aBytes), y, sum));
            }
          });
          f.add(p, decoder.bytes(UNIT));
          f.add(x, UNIT * aBytes);
        });
      });
      for (let r = 0; r < m; r++) {
        const [total, ...others] = sums.slice(r * parallel, (r + 1) * parallel) as [Local, ...Local[]];
        for (const other of others) f.set(total, f32x4.add(total, other));
        f.set(total, f32x4.add(total, v128.shuffle32(total, total, [2, 3, 0, 1])));
        f.set(total, f32x4.add(total, v128.shuffle32(total, total, [1, 0, 3, 2])));
        f.if(add, () => f.set(total, f32x4.add(total, v128.load32_splat(target, r * rowStride))));
        v128.store32_lane(f, target, total, 0, r * rowStride);
      }
      f.add(target, 4);
      f.add(first, lastStrides(b)[1]);
    });
  });
}
