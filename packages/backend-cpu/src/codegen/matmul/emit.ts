/**
 * Emits the loops around the GEMM core. They go over panels of C, each of which starts at row `im` and column `jc`. A panel
 * is the sum of its terms. Each term is cut along k into blocks, which start at `pc`; a block's rows of A are packed in
 * groups, which start at `ic`. (The names are those of Van Zee and van de Geijn, "BLIS", 2015.)
 */
import type { Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import type { Sizes } from "../sizes.ts";
import { bufferAddress, type CodegenOptions, operandAddress, type Place } from "../step.ts";
import { type GemmDType, packRest, type Tile } from "./gemm.ts";
import type { GemmImports } from "./imports.ts";
import type { Blocking } from "./numbers.ts";
import { mBlock, type Term } from "./plan.ts";
import { isQuantized } from "./quantized.ts";

export interface MatmulOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** A term of the sum A₀ B₀ + A₁ B₁ + …, with the arguments and the function that its code refers to. */
interface StepTerm extends Term {
  readonly arguments: { readonly a: number; readonly b: number; readonly parts: readonly number[] };
  /** Its place in the sum; the first term overwrites the panel, the others add to it. */
  readonly number: number;
  /** Whether its rows of A can be read in place. */
  readonly isInPlace: boolean;
  /** The kernel for products of few rows; null if it does not suit the term. */
  readonly gemv: Fn | null;
  /** The function that packs B, if B is quantized and is packed. */
  readonly packB: Fn | null;
}

/** The plan of a product, and the functions and locals that its code refers to. */
interface MatmulStep {
  readonly blocking: Blocking;
  readonly options: MatmulOptions;
  readonly sizes: Sizes;
  readonly terms: readonly StepTerm[];
  /** C, if the product is written to it directly; null if an epilogue stores it. */
  readonly target: { readonly operand: Operand; readonly argument: number } | null;
  readonly epilogue: Fn | null;
  readonly place: Place & { readonly scratch: Local };
}

/** The part of C that a chunk computes. */
interface Area {
  readonly m0: Local;
  readonly m1: Local;
  readonly n0: Local;
  readonly n1: Local;
}

/** A panel of C: `rows` from row `im` on, `columns` from column `jc` on, at the address `target`. */
interface Panel {
  readonly im: Local;
  readonly rows: Local;
  readonly jc: Local;
  readonly columns: Local;
  readonly target: Local;
}

/** The addresses of a term's first elements, A[b, 0, 0] and B[b, 0, 0]. */
interface Origin {
  readonly a: Local;
  /** Of a quantized B: the number of that element in the weight. */
  readonly b: Local;
  /** Of a quantized B: the addresses of words, scales and biases. */
  readonly parts: readonly Int[];
}

/** A block of A, a block of B, and the address of their product. */
interface BlockProduct {
  readonly a: Expr;
  /** Memory for the packed rows of A: all rows, or only those that are not read in place. */
  readonly packedA: Expr;
  readonly packedB: Expr;
  readonly target: Expr;
  readonly rows: Local;
  readonly columns: Local;
  readonly depth: Local;
  readonly add: Int;
}

export class MatmulEmitter {
  readonly #f: Fn;
  readonly #step: MatmulStep;

  constructor(f: Fn, step: MatmulStep) {
    this.#f = f;
    this.#step = step;
  }

  emit(chunk: Local): void {
    const f = this.#f;
    const size = (name: string): Int => this.#size(name);
    const rest = f.local("i32", i32.div_u(chunk, size("partsN")));
    const n0 = f.bind(i32.mul(i32.rem_u(chunk, size("partsN")), size("nPer")));
    const n1 = this.#least(i32.add(n0, size("nPer")), size("n"));
    const m0 = f.bind(i32.mul(i32.rem_u(rest, size("partsM")), size("mPer")));
    const m1 = this.#least(i32.add(m0, size("mPer")), size("m"));
    const b0 = f.bind(i32.mul(i32.div_u(rest, size("partsM")), size("batchPerChunk")));
    const b1 = this.#least(i32.add(b0, size("batchPerChunk")), size("batches"));
    const b = f.local("i32");
    f.for(b, b0, b1, 1, () => this.#product(b, { m0, m1, n0, n1 }));
  }

  #size(name: string): Int {
    return this.#step.sizes.int(name);
  }

  /** Emits the code for an area of product `b`. */
  #product(b: Local, area: Area): void {
    const { terms, blocking } = this.#step;
    const origins = terms.map((term) => ({
      a: this.#origin(term.a, `A${term.number}`, term.arguments.a, b),
      b: this.#origin(term.b, `B${term.number}`, term.arguments.b, b),
      parts: this.#partsOf(term),
    }));
    if (blocking.layout.resident === null) this.#packing(origins, b, area);
    else this.#resident(origins, b, area);
  }

  /** Emits loops that pack B again for every panel, one block at a time. */
  #packing(origins: readonly Origin[], b: Local, { m0, m1, n0, n1 }: Area): void {
    const f = this.#f;
    const { terms, target: c, place } = this.#step;
    const start = c === null ? null : this.#origin(c.operand, "C", c.argument, b);
    const [im, jc] = [f.local("i32"), f.local("i32")];
    f.for(im, m0, m1, this.#size("mPanel"), () => {
      const rows = this.#least(i32.sub(m1, im), this.#size("mPanel"));
      f.for(jc, n0, n1, this.#size("nBlock"), () => {
        const columns = this.#least(i32.sub(n1, jc), this.#size("nBlock"));
        const target =
          start === null
            ? f.bind(i32.add(place.scratch, this.#size("panel")))
            : f.bind(i32.add(i32.add(start, i32.mul(im, this.#size("rowStride"))), i32.shl(jc, 2)));
        const panel = { im, rows, jc, columns, target };
        terms.forEach((term, t) => this.#addTerm(term, at(origins, t, "term"), panel));
        this.#finish(b, panel);
      });
    });
  }

  /** Emits loops that first pack B over all of k, so that every panel of C is finished while it is in cache. */
  #resident(origins: readonly Origin[], b: Local, { m0, m1, n0, n1 }: Area): void {
    const f = this.#f;
    const { terms, place, sizes } = this.#step;
    const [im, jc] = [f.local("i32"), f.local("i32")];
    const target = f.bind(i32.add(place.scratch, this.#size("panel")));
    const packedA = place.scratch;
    const packedB = (t: number, pc: Local): Expr =>
      i32.add(i32.add(place.scratch, this.#size(`start${t}`)), i32.mul(pc, sizes.times("nBlock", 4)));
    f.for(jc, n0, n1, this.#size("nBlock"), () => {
      const columns = this.#least(i32.sub(n1, jc), this.#size("nBlock"));
      terms.forEach((term, t) => {
        const pc = f.local("i32");
        this.#overDepth(term, pc, (depth) => {
          this.#packB(term, at(origins, t, "term"), packedB(t, pc), { pc, jc, columns, depth });
        });
      });
      f.for(im, m0, m1, this.#size("mPanel"), () => {
        const rows = this.#least(i32.sub(m1, im), this.#size("mPanel"));
        terms.forEach((term, t) => {
          const pc = f.local("i32");
          this.#overDepth(term, pc, (depth) => {
            const a = f.bind(this.#within(term, at(origins, t, "term").a, im, pc));
            const add = term.number === 0 ? i32.ne(pc, 0) : 1;
            this.#multiply(term, { a, packedA, packedB: packedB(t, pc), target, rows, columns, depth, add });
          });
        });
        this.#finish(b, { im, rows, jc, columns, target });
      });
    });
  }

  /** Adds a term to a panel. */
  #addTerm(term: StepTerm, from: Origin, { im, rows, jc, columns, target }: Panel): void {
    const f = this.#f;
    const { options, place } = this.#step;
    const packedA = place.scratch;
    const packedB = f.bind(i32.add(place.scratch, this.#size("packedB")));
    const isFirst = term.number === 0;
    if (term.gemv !== null) {
      const firstB = i32.add(from.b, i32.mul(jc, this.#size(`B${term.number}c`)));
      const copy = isQuantized(term.b) ? [packedA] : [];
      f.call(term.gemv, from.a, firstB, ...from.parts, target, columns, isFirst ? 0 : 1, ...copy);
      return;
    }
    const [pc, ic] = [f.local("i32"), f.local("i32")];
    const mostRows = mBlock(options.tile);
    this.#overDepth(term, pc, (depth) => {
      this.#packB(term, from, packedB, { pc, jc, columns, depth });
      f.for(ic, 0, rows, mostRows, () => {
        this.#multiply(term, {
          rows: this.#least(i32.sub(rows, ic), mostRows),
          a: f.bind(this.#within(term, from.a, f.bind(i32.add(im, ic)), pc)),
          packedA,
          packedB,
          target: i32.add(target, i32.mul(ic, this.#size("rowStride"))),
          columns,
          depth,
          add: isFirst ? i32.ne(pc, 0) : 1,
        });
      });
    });
  }

  /** Packs the block of B that begins at row `pc` and column `jc`. */
  #packB(
    term: StepTerm,
    { b, parts }: Origin,
    to: Expr,
    { pc, jc, columns, depth }: { readonly [K in "pc" | "jc" | "columns" | "depth"]: Local },
  ): void {
    const f = this.#f;
    const [bK, bColumn] = [this.#size(`B${term.number}r`), this.#size(`B${term.number}c`)];
    const from = i32.add(i32.add(b, i32.mul(pc, bK)), i32.mul(jc, bColumn));
    if (term.packB !== null) {
      f.call(term.packB, to, from, ...parts, columns, depth);
      return;
    }
    const pack = this.#step.options.gemm.pack("B", term.b.dtype as GemmDType);
    f.call(pack, to, from, bColumn, bK, columns, depth);
  }

  /** The addresses of a quantized B's words, scales and biases, or nothing. */
  #partsOf({ b, arguments: { b: words, parts } }: StepTerm): readonly Int[] {
    if (!isQuantized(b)) return [];
    const [scales, biases] = parts.map((part) => this.#f.bind(bufferAddress(this.#step.place, part)));
    return [this.#f.bind(bufferAddress(this.#step.place, words)), scales ?? 0, biases ?? 0];
  }

  /**
   * Multiplies a block of A by a block of B, after packing the rows of A that are not read in place: all of them, or the last
   * few.
   */
  #multiply(term: StepTerm, block: BlockProduct): void {
    const f = this.#f;
    const { options, place } = this.#step;
    const { gemm, tile } = options;
    const { a, packedA, packedB, target, rows, columns, depth, add } = block;
    const [rowBytes, kBytes] = [this.#size(`A${term.number}r`), this.#size(`A${term.number}c`)];
    const pack = gemm.pack("A", term.a.dtype as GemmDType);
    const spare = i32.add(place.scratch, this.#size("spare"));
    const common = [packedA, packedB, target, this.#size("rowStride"), rows, columns, depth, add, spare];
    if (term.isInPlace) {
      packRest(f, pack, tile, { to: packedA, from: a, rowStride: rowBytes, rows, k: depth });
      f.call(gemm.blockInPlace, a, rowBytes, ...common);
    } else {
      f.call(pack, packedA, a, rowBytes, kBytes, rows, depth);
      f.call(gemm.block, ...common);
    }
  }

  /** Runs the epilogue on a panel. */
  #finish(b: Local, { im, rows, jc, columns, target }: Panel): void {
    const f = this.#f;
    const { epilogue, place } = this.#step;
    if (epilogue === null) return;
    const row = f.bind(i32.add(i32.mul(b, this.#size("m")), im));
    const [endRow, endColumn] = [i32.add(row, rows), i32.add(jc, columns)];
    f.call(epilogue, place.frame, place.args, place.scratch, row, endRow, jc, endColumn, target);
  }

  /** Runs `body` with the depth of each block of k; `pc` is the block's start. An empty sum has one block, of depth 0. */
  #overDepth({ number: t, k: depth }: StepTerm, pc: Local, body: (depth: Local) => void): void {
    const [k, longest] = [this.#size(`k${t}`), this.#size(`longest${t}`)];
    this.#f.for(pc, 0, depth > 0 ? k : 1, longest, () => body(this.#least(i32.sub(k, pc), longest)));
  }

  /** The address of an operand's element [b, 0, 0]; of a quantized one, the element's number. */
  #origin(operand: Operand, name: string, argument: number, b: Local): Local {
    const f = this.#f;
    const { blocking, place, sizes } = this.#step;
    const { batch } = blocking.problem;
    const first = isQuantized(operand)
      ? this.#size(`${name}o`)
      : operandAddress(operand, argument, place, sizes, name);
    const p = f.local("i32", first);
    const rest = f.local("i32", b);
    for (let d = batch.length - 1; d >= 0; d--) {
      const moves = at(operand.view.strides, d, "stride") !== 0 && at(batch, d, "axis") > 1;
      const length = this.#size(`b${d}`);
      if (moves) f.set(p, i32.add(p, i32.mul(i32.rem_u(rest, length), this.#size(`${name}s${d}`))));
      f.set(rest, i32.div_u(rest, length));
    }
    return p;
  }

  /** The address of element [row, k] of A, whose element [0, 0] is at `origin`. */
  #within({ number: t }: StepTerm, origin: Int, row: Local, k: Local): Expr {
    const [rowBytes, kBytes] = [this.#size(`A${t}r`), this.#size(`A${t}c`)];
    return i32.add(i32.add(origin, i32.mul(row, rowBytes)), i32.mul(k, kBytes));
  }

  #least(a: Int, b: Int): Local {
    const x = this.#f.local("i32", a);
    this.#f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }
}
