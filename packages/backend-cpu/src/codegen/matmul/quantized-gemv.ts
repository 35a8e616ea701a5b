/**
 * Products of a few rows with a quantized weight, as in generation token by token. Codes become numbers in registers,
 * and a group's sum is scaled once. Numbers of four bits come out with even and odd places apart, so the rows
 * are first copied in that order.
 */
import { BYTES, type Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Expr, type Fn, i32s, type Local, type Module } from "../assembler.ts";
import { f32x4, i32, v128 } from "../instructions.ts";
import { loadLanes } from "../loops/load-store.ts";
import { addressOf, Decoder, type Parts, Scales, UNIT } from "./decoder.ts";
import { isAlongDepth, type QuantizedOperand } from "./quantized.ts";

/** A product of `m` rows: A [m, k] with contiguous rows, and B [k, n] with contiguous columns. */
interface SkinnyQuantized {
  readonly m: number;
  readonly k: number;
  readonly a: Operand;
  readonly b: QuantizedOperand;
  /** Bytes from row to row of C. */
  readonly rowStride: number;
}

const lastStrides = ({ view }: Operand): [number, number] =>
  view.strides.slice(-2) as unknown as [number, number];

/** Whether the kernel for a few rows suits a product. */
export function isSkinnyQuantized(m: number, a: Operand, b: QuantizedOperand): boolean {
  return m <= 4 && isAlongDepth(b) && lastStrides(a)[1] === 1;
}

/** Bytes of scratch memory that the kernel copies the rows of A to. */
export const copiedBytes = (m: number, k: number): number => 4 * m * k;

/** gemv(a, start, words, scales, biases, c, columns, add, copy): `columns` columns of C (+)= A·B, one after another. */
export function emitQuantizedGemv(module: Module, product: SkinnyQuantized, fma: boolean): Fn {
  return module.fn(null, i32s(9), [], (f, from, start, words, scales, biases, c, columns, add, copy) => {
    const decoder = new Decoder(f, fma, product.b.quantized);
    const call = { ...product, decoder, parts: [words, scales, biases] as const, add, copy };
    copyRows(call, from);
    const [n, target, first] = [f.local("i32"), f.local("i32", c), f.local("i32", start)];
    f.for(n, 0, columns, 1, () => {
      dots(call, first, target);
      f.add(first, lastStrides(product.b)[1]);
      f.add(target, 4);
    });
  });
}

interface Emission extends SkinnyQuantized {
  readonly decoder: Decoder;
  readonly parts: Parts;
  readonly add: Local;
  readonly copy: Local;
}

/** Copies the rows of A as f32, in the order in which numbers are decoded. */
function copyRows({ decoder, m, k, a, copy }: Emission, from: Local): void {
  const { f, math, quantized, stretch } = decoder;
  const bytes = BYTES[a.dtype];
  const [x, to, end] = [f.local("i32"), f.local("i32", copy), f.local("i32")];
  for (let r = 0; r < m; r++) {
    f.set(x, i32.add(from, r * lastStrides(a)[0] * bytes));
    f.set(end, i32.add(to, 4 * k));
    f.while(
      () => i32.lt_s(to, end),
      () => {
        for (let j = 0; j < stretch; j += 8) {
          const [p, q] = [0, 4].map((i) => f.bind(loadLanes(math, a.dtype, x, 1, (j + i) * bytes))) as [Local, Local]; // prettier-ignore
          const isApart = quantized.bits === 4;
          v128.store(f, to, isApart ? v128.shuffle32(p, q, [0, 2, 4, 6]) : p, isApart ? 2 * j : 4 * j);
          v128.store(f, to, isApart ? v128.shuffle32(p, q, [1, 3, 5, 7]) : q, isApart ? 2 * (j + stretch) : 4 * (j + 4)); // prettier-ignore
        }
        f.add(x, stretch * bytes);
        f.add(to, 4 * stretch);
      },
    );
  }
}

/** The most codes whose decoding is written out. */
const UNROLLED = 64;

/** Multiplies all rows of A by the column of B that begins with number `first`, into C at `target`. */
function dots(e: Emission, first: Local, target: Local): void {
  const { decoder, parts, m, k, copy } = e;
  const { f, math, quantized, stretch } = decoder;
  const { group } = quantized;
  const parallel = m === 1 ? 4 : m === 2 ? 2 : 1; // independent sums hide the latency of an addition
  const totals = Array.from({ length: m }, () => f.local("v128", math.k(0)));
  const sums = totals.map(() => Array.from({ length: parallel }, () => f.local("v128")));
  const [p, scales] = [f.local("i32", addressOf(decoder, parts, first)), new Scales(decoder, parts, first)];
  const [x, g, u] = [f.local("i32", copy), f.local("i32"), f.local("i32")];
  const codes = group % UNROLLED === 0 ? UNROLLED : stretch;
  f.for(g, 0, k, group, () => {
    const { scale, bias } = scales.splat();
    scales.advance(1);
    for (const sum of sums.flat()) f.set(sum, math.k(0));
    const some = (): void => {
      for (let i = 0; i < codes; i += UNIT) {
        decoder.apart(p, i).forEach((number, v) => {
          // with biases each number is scaled: in sums of codes and sums of biases, much would cancel
          const y = f.bind(bias === null ? number : math.madd(number, scale, bias));
          sums.forEach((row, r) => {
            const sum = at(row, v % parallel, "sum");
            f.set(sum, math.madd(v128.load(x, 4 * (r * k + i + 4 * v)), y, sum));
          });
        });
        // never taken, since addresses are even: see Tile.rowGroup. V8 drops a condition that it has seen before
        f.breakIf(i32.eq(x, i + 1), codes === group ? 0 : 1);
      }
      f.add(p, decoder.bytes(codes));
      f.add(x, 4 * codes);
    };
    if (codes === group) f.block(some);
    else f.for(u, 0, group, codes, some);
    sums.forEach((row, r) => {
      const total = at(totals, r, "total");
      const sum = row.reduce<Expr>((all, one) => (all === one ? one : f32x4.add(all, one)), row[0]!);
      f.set(total, bias === null ? math.madd(sum, scale, total) : f32x4.add(sum, total));
    });
  });
  store(e, totals, target);
}

/** Adds the lanes of each sum, and stores or adds the results. */
function store({ decoder: { f }, rowStride, add }: Emission, totals: readonly Local[], target: Local): void {
  totals.forEach((sum, r) => {
    f.set(sum, f32x4.add(sum, v128.shuffle32(sum, sum, [2, 3, 0, 1])));
    f.set(sum, f32x4.add(sum, v128.shuffle32(sum, sum, [1, 0, 3, 2])));
    f.if(add, () => f.set(sum, f32x4.add(sum, v128.load32_splat(target, r * rowStride))));
    v128.store32_lane(f, target, sum, 0, r * rowStride);
  });
}
