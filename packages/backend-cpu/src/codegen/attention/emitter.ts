/** The code that attention and its gradient share: addresses of heads, packing, products of packed panels, blocks of queries. */
import type { Operand } from "@tiedlora/kernels";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { BATCH, byteStride, ceilTo, type Geometry, HEAD, rowAndColumn } from "./geometry.ts";
import type { GemmDType, Tile } from "../matmul/gemm.ts";
import { fitsInPlace, packRest, tileColumns } from "../matmul/gemm.ts";
import { i32 } from "../instructions.ts";
import type { GemmImports } from "../matmul/imports.ts";
import { type Arguments, type CodegenOptions, operandAddress } from "../step.ts";

export interface AttentionOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** Used to estimate costs: floating-point operations per nanosecond, and nanoseconds for the exponential of a score. */
export const FLOP_PER_NS = 40;
export const SCORE_NS = 1;
export const PARALLEL_NS = 20_000;

/** Hands out parts of a thread's scratch memory. */
export class ScratchSpace {
  bytes = 0;
  take(bytes: number): number {
    const start = this.bytes;
    this.bytes += ceilTo(bytes, 64);
    return start;
  }
}

/** Emits it into one function of a module. */
export class Emitter {
  readonly f: Fn;
  readonly g: Geometry;
  readonly #gemm: GemmImports;
  readonly #scratch: Local;
  readonly #spare: number;
  readonly #start: (operand: Operand) => Expr;

  constructor(
    f: Fn,
    g: Geometry,
    options: AttentionOptions,
    place: { frame: Local; args: Local; scratch: Local; spare: number; numbers: Arguments },
  ) {
    this.f = f;
    this.g = g;
    this.#gemm = options.gemm;
    this.#scratch = place.scratch;
    this.#spare = place.spare;
    this.#start = (operand) => operandAddress(operand, place.numbers.of(operand.buffer), place, options);
  }

  at(offset: number): Local {
    return this.f.bind(i32.add(this.#scratch, offset));
  }

  least(a: Expr, b: number): Local {
    const x = this.f.local("i32", a);
    this.f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }

  /** The address of [b, h, 0, …]. */
  head(operand: Operand, b: Int, h: Int): Local {
    const [batchStride, headStride] = [byteStride(operand, BATCH), byteStride(operand, HEAD)];
    return this.f.local(
      "i32",
      i32.add(i32.add(this.#start(operand), i32.mul(b, batchStride)), i32.mul(h, headStride)),
    );
  }

  /** Packs `rows` rows of `depth` numbers; strides in bytes. */
  pack(
    side: "A" | "B",
    dtype: GemmDType,
    to: Int,
    from: Int,
    [rowStride, depthStride]: readonly [number, number],
    rows: Int,
    depth: Int,
  ): void {
    this.f.call(this.#gemm.pack(side, dtype), to, from, rowStride, depthStride, rows, depth);
  }

  /** c (+)= a · b for panels that are packed with depth `depth`; c must have room for whole tiles. */
  multiply(a: Int, b: Int, c: Int, stride: number, rows: Int, columns: Int, depth: Int, add: Int): void {
    this.f.call(this.#gemm.block, a, b, c, stride, rows, columns, depth, add, this.at(this.#spare));
  }

  /**
   * c = a · b, where a is `rows` rows of an operand, each as wide as a head, that start at `from`; `spare` is memory to pack
   * them in.
   */
  multiplyRows(a: Operand, from: Local, rows: Local, b: Int, c: Local, columns: Int, spare: Local): void {
    const { f } = this;
    const gemm = this.#gemm;
    const { params, tile, scoreStride } = this.g;
    const [rowStride, stride] = rowAndColumn(a);
    const pack = gemm.pack("A", a.dtype as GemmDType);
    if (!fitsInPlace(a, params.d, tile)) {
      f.call(pack, spare, from, rowStride, stride, rows, params.d);
      this.multiply(spare, b, c, scoreStride, this.roundUp(rows, tile.rows), columns, params.d, 0);
      return;
    }
    packRest(f, pack, tile, { to: spare, from, rowStride, rows, k: params.d });
    const block = [b, c, scoreStride, rows, columns, params.d, 0, this.at(this.#spare)];
    f.call(gemm.blockInPlace, from, rowStride, spare, ...block);
  }

  /**
   * c = panel · b, where the panel holds scores, with zeros for hidden keys, and b is packed with depth `packedDepth`, of
   * which the first `depth` are used.
   */
  multiplyScores(panel: Local, b: Local, c: Local, rows: Int, depth: Expr, packedDepth: number): void {
    const { f, g } = this;
    const columns = tileColumns(g.tile);
    const whole = this.roundUp(depth, g.tile.unroll);
    for (let j = 0; j < g.widthColumns; j += columns) {
      const strip = i32.add(b, 4 * j * packedDepth);
      const to = f.bind(i32.add(c, 4 * j));
      const block = [strip, to, g.widthStride, rows, columns, whole, 0, this.at(this.#spare)];
      f.call(this.#gemm.blockInPlace, panel, g.scoreStride, panel, ...block);
    }
  }

  /**
   * Runs `body` for the blocks of queries `first`, `first + step`, …, with the block's first query, its number of queries,
   * and the number of keys that they see.
   */
  blocks(first: Int, step: number, body: (i0: Local, rows: Local, keys: Local) => void): void {
    const { f, g } = this;
    const { q, kv, causal } = g.params;
    const i0 = f.local("i32");
    f.for(i0, i32.mul(first, g.queries), q, step * g.queries, () => {
      const rows = this.least(i32.sub(q, i0), g.queries);
      const keys = f.local("i32", kv);
      if (causal) {
        f.set(keys, this.least(i32.add(i32.add(i0, rows), kv - q), kv));
        f.set(keys, i32.select(keys, 1, i32.ge_s(keys, 1)));
      }
      body(i0, rows, keys);
    });
  }

  /** `x` rounded up to a multiple of `step`. */
  roundUp(x: Expr, step: number): Local {
    return this.f.bind(i32.mul(i32.div_u(i32.add(x, step - 1), step), step));
  }
}

export const flipped = ([row, column]: readonly [number, number]): [number, number] => [column, row];
