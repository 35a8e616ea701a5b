/**
 * Emits the loops around the GEMM core. They go over panels of C, each of which starts at row `im` and column `jc`. A panel
 * is the sum of its terms. Each term is cut along k into blocks, which start at `pc`; a block's rows of A are packed in
 * groups, which start at `ic`. (The names are those of Van Zee and van de Geijn, "BLIS", 2015.)
 */
import { BYTES, type Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import type { Expr, Fn, Int, Local } from "../assembler.ts";
import { i32 } from "../instructions.ts";
import { bufferAddress, type CodegenOptions, operandAddress, type Place } from "../step.ts";
import { fitsInPlace, type GemmDType, packRest, type Tile } from "./gemm.ts";
import type { GemmImports } from "./imports.ts";
import { isQuantized } from "./quantized.ts";
import { type Grid, kBlock, mBlock, type Problem, product, type ScratchLayout, type Term } from "./plan.ts";

export interface MatmulOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** A term of the sum A₀ B₀ + A₁ B₁ + …, with the arguments and the function that its code refers to. */
interface StepTerm extends Term {
  readonly arguments: { readonly a: number; readonly b: number; readonly parts: readonly number[] };
  /** The first term overwrites the panel, the others add to it. */
  readonly isFirst: boolean;
  /** The kernel for products of few rows; null if it does not suit the term. */
  readonly gemv: Fn | null;
  /** The function that packs B, if B is quantized and is packed. */
  readonly packB: Fn | null;
}

/** The plan of a product, and the functions and locals that its code refers to. */
interface MatmulStep {
  readonly problem: Problem;
  readonly grid: Grid;
  readonly layout: ScratchLayout;
  /** Bytes from row to row of a panel. */
  readonly rowStride: number;
  readonly options: MatmulOptions;
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

  /** `parts`: the number of parts that the rows and the columns of C are cut into. */
  emit(chunk: Local, parts: { readonly m: number; readonly n: number }): void {
    const f = this.#f;
    const { problem, grid } = this.#step;
    const rest = f.local("i32", i32.div_u(chunk, parts.n));
    const n0 = f.bind(i32.mul(i32.rem_u(chunk, parts.n), grid.nPer));
    const n1 = this.#least(i32.add(n0, grid.nPer), problem.n);
    const m0 = f.bind(i32.mul(i32.rem_u(rest, parts.m), grid.mPer));
    const m1 = this.#least(i32.add(m0, grid.mPer), problem.m);
    const b0 = f.bind(i32.mul(i32.div_u(rest, parts.m), grid.batchPerChunk));
    const b1 = this.#least(i32.add(b0, grid.batchPerChunk), product(problem.batch));
    const b = f.local("i32");
    f.for(b, b0, b1, 1, () => this.#product(b, { m0, m1, n0, n1 }));
  }

  /** Emits the code for an area of product `b`. */
  #product(b: Local, area: Area): void {
    const { terms, layout } = this.#step;
    const origins = terms.map((term) => ({
      a: this.#origin(term.a, term.arguments.a, b),
      b: this.#origin(term.b, term.arguments.b, b),
      parts: this.#partsOf(term),
    }));
    if (layout.resident === null) this.#packing(origins, b, area);
    else this.#resident(layout.resident, origins, b, area);
  }

  /** Emits loops that pack B again for every panel, one block at a time. */
  #packing(origins: readonly Origin[], b: Local, { m0, m1, n0, n1 }: Area): void {
    const f = this.#f;
    const { terms, layout, rowStride, target: c, place } = this.#step;
    const start = c === null ? null : this.#origin(c.operand, c.argument, b);
    const [im, jc] = [f.local("i32"), f.local("i32")];
    f.for(im, m0, m1, layout.mPanel, () => {
      const rows = this.#least(i32.sub(m1, im), layout.mPanel);
      f.for(jc, n0, n1, layout.nBlock, () => {
        const columns = this.#least(i32.sub(n1, jc), layout.nBlock);
        const target =
          start === null
            ? f.bind(i32.add(place.scratch, layout.panel))
            : f.bind(i32.add(i32.add(start, i32.mul(im, rowStride)), i32.shl(jc, 2)));
        const panel = { im, rows, jc, columns, target };
        terms.forEach((term, t) => this.#addTerm(term, at(origins, t, "term"), panel));
        this.#finish(b, panel);
      });
    });
  }

  /**
   * Emits loops that first pack B over all of k, each term at its address in `starts`, so that every panel of C is finished
   * while it is in cache.
   */
  #resident(starts: readonly number[], origins: readonly Origin[], b: Local, { m0, m1, n0, n1 }: Area): void {
    const f = this.#f;
    const { terms, layout, place } = this.#step;
    const [im, jc] = [f.local("i32"), f.local("i32")];
    const target = f.bind(i32.add(place.scratch, layout.panel));
    const packedA = f.bind(i32.add(place.scratch, layout.a));
    const packedB = (t: number, pc: Local): Expr =>
      i32.add(i32.add(place.scratch, at(starts, t, "term")), i32.mul(pc, 4 * layout.nBlock));
    f.for(jc, n0, n1, layout.nBlock, () => {
      const columns = this.#least(i32.sub(n1, jc), layout.nBlock);
      terms.forEach((term, t) => {
        const pc = f.local("i32");
        this.#overDepth(term.k, pc, (depth) => {
          this.#packB(term, at(origins, t, "term"), packedB(t, pc), { pc, jc, columns, depth });
        });
      });
      f.for(im, m0, m1, layout.mPanel, () => {
        const rows = this.#least(i32.sub(m1, im), layout.mPanel);
        terms.forEach((term, t) => {
          const pc = f.local("i32");
          this.#overDepth(term.k, pc, (depth) => {
            const a = f.bind(within(term.a, at(origins, t, "term").a, im, pc));
            const add = term.isFirst ? i32.ne(pc, 0) : 1;
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
    const { layout, rowStride, options, place } = this.#step;
    const packedA = f.bind(i32.add(place.scratch, layout.a));
    const packedB = f.bind(i32.add(place.scratch, layout.b));
    if (term.gemv !== null) {
      const firstB = i32.add(from.b, i32.mul(jc, bytesOfLastTwo(term.b)[1]));
      const copy = isQuantized(term.b) ? [packedA] : [];
      f.call(term.gemv, from.a, firstB, ...from.parts, target, columns, term.isFirst ? 0 : 1, ...copy);
      return;
    }
    const [pc, ic] = [f.local("i32"), f.local("i32")];
    const mostRows = mBlock(options.tile);
    this.#overDepth(term.k, pc, (depth) => {
      this.#packB(term, from, packedB, { pc, jc, columns, depth });
      f.for(ic, 0, rows, mostRows, () => {
        this.#multiply(term, {
          rows: this.#least(i32.sub(rows, ic), mostRows),
          a: f.bind(within(term.a, from.a, f.bind(i32.add(im, ic)), pc)),
          packedA,
          packedB,
          target: i32.add(target, i32.mul(ic, rowStride)),
          columns,
          depth,
          add: term.isFirst ? i32.ne(pc, 0) : 1,
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
    const [bK, bColumn] = bytesOfLastTwo(term.b);
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
  #multiply(term: Term, block: BlockProduct): void {
    const f = this.#f;
    const { options, layout, rowStride, place } = this.#step;
    const { gemm, tile } = options;
    const { a, packedA, packedB, target, rows, columns, depth, add } = block;
    const [rowBytes, kBytes] = bytesOfLastTwo(term.a);
    const pack = gemm.pack("A", term.a.dtype as GemmDType);
    const spare = i32.add(place.scratch, layout.spare);
    const common = [packedA, packedB, target, rowStride, rows, columns, depth, add, spare];
    if (fitsInPlace(term.a, term.k, tile)) {
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
    const { problem, epilogue, place } = this.#step;
    if (epilogue === null) return;
    const row = f.bind(i32.add(i32.mul(b, problem.m), im));
    const [endRow, endColumn] = [i32.add(row, rows), i32.add(jc, columns)];
    f.call(epilogue, place.frame, place.args, place.scratch, row, endRow, jc, endColumn, target);
  }

  /** Runs `body` with the depth of each block of k; `pc` is the block's start. An empty sum has one block, of depth 0. */
  #overDepth(k: number, pc: Local, body: (depth: Local) => void): void {
    const longest = Math.max(kBlock(k), 1);
    this.#f.for(pc, 0, Math.max(k, 1), longest, () => body(this.#least(i32.sub(k, pc), longest)));
  }

  /** The address of an operand's element [b, 0, 0]; of a quantized one, the element's number. */
  #origin(operand: Operand, argument: number, b: Local): Local {
    const f = this.#f;
    const { problem, place, options } = this.#step;
    const first = isQuantized(operand)
      ? operand.view.offset
      : operandAddress(operand, argument, place, options);
    const p = f.local("i32", first);
    const rest = f.local("i32", b);
    for (let d = problem.batch.length - 1; d >= 0; d--) {
      const stride = at(operand.view.strides, d, "stride") * bytesOfOne(operand);
      const length = at(problem.batch, d, "axis");
      if (stride !== 0 && length > 1) f.set(p, i32.add(p, i32.mul(i32.rem_u(rest, length), stride)));
      f.set(rest, i32.div_u(rest, length));
    }
    return p;
  }

  #least(a: Int, b: number): Local {
    const x = this.#f.local("i32", a);
    this.#f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }
}

/** The address of element [row, k] of a factor whose element [0, 0] is at `origin`. */
function within(operand: Operand, origin: Int, row: Local, k: Local): Expr {
  const [rowBytes, kBytes] = bytesOfLastTwo(operand);
  return i32.add(i32.add(origin, i32.mul(row, rowBytes)), i32.mul(k, kBytes));
}

/** What addresses of an operand count: bytes; of a quantized one, numbers. */
const bytesOfOne = (operand: Operand): number => (isQuantized(operand) ? 1 : BYTES[operand.dtype]);

function bytesOfLastTwo(operand: Operand): [number, number] {
  const last = operand.view.strides.slice(-2);
  const bytes = bytesOfOne(operand);
  return [at(last, 0, "stride") * bytes, at(last, 1, "stride") * bytes];
}
