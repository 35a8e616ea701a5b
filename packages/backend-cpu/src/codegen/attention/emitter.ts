/** The code that attention and its gradient share: addresses of heads, packing, products of packed panels, blocks of queries. */
import type { Operand } from "@tiedlora/kernels";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { BATCH, ceilTo, type Geometry, HEAD } from "./geometry.ts";
import { AttentionSizes, type AttentionStep } from "./numbers.ts";
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
  readonly sizes: AttentionSizes;
  readonly #gemm: GemmImports;
  readonly #scratch: Local;
  readonly #start: (operand: Operand) => Expr;

  constructor(
    f: Fn,
    step: AttentionStep,
    gemm: GemmImports,
    place: { frame: Local; args: Local; scratch: Local; numbers: Arguments },
  ) {
    const sizes = new AttentionSizes(f, place.args, step);
    this.f = f;
    this.g = step.g;
    this.sizes = sizes;
    this.#gemm = gemm;
    this.#scratch = place.scratch;
    this.#start = (operand) => {
      const argument = place.numbers.of(operand.buffer);
      return operandAddress(operand, argument, place, sizes.sizes, sizes.nameOf(operand));
    };
  }

  /** The address of a panel in scratch memory. */
  at(panel: string): Local {
    return this.f.bind(i32.add(this.#scratch, this.sizes.int(`panel ${panel}`)));
  }

  least(a: Expr, b: Int): Local {
    const x = this.f.local("i32", a);
    this.f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }

  /** The address of [b, h, 0, …]. */
  head(operand: Operand, b: Int, h: Int): Local {
    const batchStride = this.sizes.stride(operand, BATCH);
    const headStride = this.sizes.stride(operand, HEAD);
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
    [rowStride, depthStride]: readonly [Int, Int],
    rows: Int,
    depth: Int,
  ): void {
    this.f.call(this.#gemm.pack(side, dtype), to, from, rowStride, depthStride, rows, depth);
  }

  /** c (+)= a · b for panels that are packed with depth `depth`; c must have room for whole tiles. */
  multiply(a: Int, b: Int, c: Int, stride: Int, rows: Int, columns: Int, depth: Int, add: Int): void {
    this.f.call(this.#gemm.block, a, b, c, stride, rows, columns, depth, add, this.at("spare"));
  }

  /**
   * c = a · b, where a is `rows` rows of an operand, each as wide as a head, that start at `from`; `spare` is memory to pack
   * them in.
   */
  multiplyRows(a: Operand, from: Local, rows: Local, b: Int, c: Local, columns: Int, spare: Local): void {
    const { f } = this;
    const gemm = this.#gemm;
    const { params, tile } = this.g;
    const scoreStride = this.sizes.int("scoreStride");
    const [rowStride, stride] = this.sizes.rowAndColumn(a);
    const pack = gemm.pack("A", a.dtype as GemmDType);
    if (!fitsInPlace(a, params.d, tile)) {
      f.call(pack, spare, from, rowStride, stride, rows, params.d);
      this.multiply(spare, b, c, scoreStride, this.roundUp(rows, tile.rows), columns, params.d, 0);
      return;
    }
    packRest(f, pack, tile, { to: spare, from, rowStride, rows, k: params.d });
    const block = [b, c, scoreStride, rows, columns, params.d, 0, this.at("spare")];
    f.call(gemm.blockInPlace, from, rowStride, spare, ...block);
  }

  /**
   * c = panel · b, where the panel holds scores, with zeros for hidden keys, and b is packed over all keys, of which the first
   * `depth` are used.
   */
  multiplyScores(panel: Local, b: Local, c: Local, rows: Int, depth: Expr): void {
    const { f, g } = this;
    const columns = tileColumns(g.tile);
    const whole = this.roundUp(depth, g.tile.unroll);
    for (let j = 0; j < g.widthColumns; j += columns) {
      const strip = i32.add(b, this.sizes.sizes.times("keyDepth", 4 * j));
      const to = f.bind(i32.add(c, 4 * j));
      const block = [strip, to, g.widthStride, rows, columns, whole, 0, this.at("spare")];
      f.call(this.#gemm.blockInPlace, panel, this.sizes.int("scoreStride"), panel, ...block);
    }
  }

  /**
   * Runs `body` for the blocks of queries `first`, `first + step`, …, with the block's first query, its number of queries,
   * and the number of keys that they see. The number called `stride` is `step` blocks of queries.
   */
  blocks(first: Int, stride: string, body: (i0: Local, rows: Local, keys: Local) => void): void {
    const { f, g, sizes } = this;
    const [q, kv, queries] = [sizes.int("q"), sizes.int("kv"), sizes.int("queries")];
    const i0 = f.local("i32");
    f.for(i0, i32.mul(first, queries), q, sizes.int(stride), () => {
      const rows = this.least(i32.sub(q, i0), queries);
      const keys = f.local("i32", kv);
      if (g.params.causal) {
        f.set(keys, this.least(i32.add(i32.add(i0, rows), sizes.int("shift")), kv));
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

export const flipped = ([row, column]: readonly [Int, Int]): [Int, Int] => [column, row];
