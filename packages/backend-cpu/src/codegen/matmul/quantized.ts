/**
 * Quantized weights as second factors of products, packed for the GEMM core. Scaling rounds the product and the sum, as the
 * definition does, so there is no fused multiply-add.
 */
import type { Operand, QuantizedStorage } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Fn, i32s, type Local, type Module } from "../assembler.ts";
import { i32, memory, v128 } from "../instructions.ts";
import { addressOf, Decoder, type Parts, Scales, UNIT } from "./decoder.ts";
import { type Tile, tileColumns } from "./gemm.ts";

/** A second factor that is quantized. */
export type QuantizedOperand = Operand & { readonly quantized: QuantizedStorage };

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
export const isAlongDepth = (b: QuantizedOperand): boolean => lastStrides(b)[0] === 1;

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
