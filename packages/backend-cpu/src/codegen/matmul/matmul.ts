/**
 * The matmul step: blocking around the GEMM core, all shapes and strides constants of the code. Threads share a product
 * by parts of C; k is cut at fixed places, so the parts do not change a bit of the result.
 */
import { BYTES, type Epilogue, type LoopKernel, type Operand } from "@tiedlora/kernels";
import type { Callable, Expr, Fn, Int, Local, Module } from "../assembler.ts";
import { i32s } from "../assembler.ts";
import { fitsInPlace, type GemmDType, packRest, type Tile } from "./gemm.ts";
import { emitGemv, isSkinny } from "./gemv.ts";
import { i32 } from "../instructions.ts";
import { LoopEmitter } from "../loops/emit.ts";
import type { CodegenOptions, StepFunction } from "../loops/kernel.ts";
import { bufferAddress, operandAddress, scalarAddress, STEP_PARAMS } from "../loops/kernel.ts";
import { canonicalise, PRODUCT } from "../loops/nest.ts";
import { schedule } from "../loops/schedule.ts";
import type { Grid, Layout, MatmulCall, Problem } from "./plan.ts";
import { costOf, gridOf, kBlock, layoutOf, mBlock, problemOf, product } from "./plan.ts";

/** The GEMM core as imported into a program. */
export interface GemmImports {
  readonly pack: (side: "A" | "B", dtype: GemmDType) => Callable;
  readonly block: Callable;
  readonly blockInPlace: Callable;
}

export interface MatmulOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** Adds the step's function to the module under `name`. */
export function compileMatmul(
  module: Module,
  name: string,
  call: MatmulCall,
  options: MatmulOptions,
): StepFunction {
  const problem = problemOf(call);
  const { tile } = options;
  const skinny = problem.terms.map(({ a, b }) => isSkinny(problem.m, a, b));
  const cost = costOf(problem, skinny);
  const grid = gridOf(problem, cost, tile, options.threads);
  const layout = layoutOf(problem, grid, tile, skinny.includes(true));
  const buffers: number[] = [];
  const slotOf = (operand: Operand): number => {
    const at = buffers.indexOf(operand.buffer);
    return at >= 0 ? at : buffers.push(operand.buffer) - 1;
  };
  const slots = {
    terms: problem.terms.map(({ a, b }) => ({ a: slotOf(a), b: slotOf(b) })),
    direct: problem.direct === null ? -1 : slotOf(problem.direct),
  };
  const epilogue =
    problem.epilogue && compileEpilogue(module, problem, problem.epilogue, layout, options, slotOf);
  const gemv = problem.terms.map(({ a, b, k }, t) => {
    const rowStride = 4 * (problem.direct?.view.strides.at(-2) ?? layout.nBlock);
    return skinny[t] === true ? emitGemv(module, { m: problem.m, k, a, b, rowStride }, options.fma) : null;
  });
  const parts = { m: Math.ceil(problem.m / grid.mPer), n: Math.ceil(problem.n / grid.nPer) };
  const batchChunks = Math.ceil(product(problem.batch) / grid.batchPerChunk);
  module.fn(name, STEP_PARAMS, [], (f, frame, args, chunk, scratch) => {
    new MatmulEmitter(f, {
      problem,
      grid,
      layout,
      options,
      slots,
      epilogue,
      gemv,
      frame,
      args,
      scratch,
    }).emit(chunk, parts);
  });
  return { chunks: batchChunks * parts.m * parts.n, cost, scratchBytes: layout.bytes, buffers };
}

interface Emission {
  readonly problem: Problem;
  readonly grid: Grid;
  readonly layout: Layout;
  readonly options: MatmulOptions;
  readonly slots: {
    readonly terms: readonly { readonly a: number; readonly b: number }[];
    readonly direct: number;
  };
  readonly epilogue: Fn | null;
  /** By term: its kernel for few rows. */
  readonly gemv: readonly (Fn | null)[];
  readonly frame: Local;
  readonly args: Local;
  readonly scratch: Local;
}

class MatmulEmitter {
  private readonly f: Fn;
  private readonly e: Emission;

  constructor(f: Fn, emission: Emission) {
    this.f = f;
    this.e = emission;
  }

  private least(a: Int, b: number): Local {
    const x = this.f.local("i32", a);
    this.f.set(x, i32.select(x, b, i32.lt_s(x, b)));
    return x;
  }

  emit(chunk: Local, parts: { readonly m: number; readonly n: number }): void {
    const { f } = this;
    const { problem, grid } = this.e;
    const batches = product(problem.batch);
    const rest = f.local("i32", i32.div_u(chunk, parts.n));
    const n0 = f.bind(i32.mul(i32.rem_u(chunk, parts.n), grid.nPer));
    const n1 = this.least(i32.add(n0, grid.nPer), problem.n);
    const m0 = f.bind(i32.mul(i32.rem_u(rest, parts.m), grid.mPer));
    const m1 = this.least(i32.add(m0, grid.mPer), problem.m);
    const b0 = f.bind(i32.mul(i32.div_u(rest, parts.m), grid.batchPerChunk));
    const b1 = this.least(i32.add(b0, grid.batchPerChunk), batches);
    const b = f.local("i32");
    f.for(b, b0, b1, 1, () => this.product(b, m0, m1, n0, n1));
  }

  /** The address of an operand's element [b, 0, 0]. */
  private origin(operand: Operand, slot: number, b: Local): Local {
    const { f } = this;
    const { problem } = this.e;
    const bytes = BYTES[operand.dtype];
    const p = f.local("i32", operandAddress(operand, slot, this.e, this.e.options));
    const rest = f.local("i32", b);
    for (let d = problem.batch.length - 1; d >= 0; d--) {
      const stride = (operand.view.strides[d] ?? 0) * bytes;
      const length = problem.batch[d] ?? 1;
      if (stride !== 0 && length > 1) f.set(p, i32.add(p, i32.mul(i32.rem_u(rest, length), stride)));
      f.set(rest, i32.div_u(rest, length));
    }
    return p;
  }

  /** Rows m0..m1 and columns n0..n1 of product `b`. */
  private product(b: Local, m0: Local, m1: Local, n0: Local, n1: Local): void {
    const { f } = this;
    const { problem, layout, slots, scratch } = this.e;
    const origins = problem.terms.map((term, t) => ({
      a: this.origin(term.a, slots.terms[t]?.a ?? 0, b),
      b: this.origin(term.b, slots.terms[t]?.b ?? 0, b),
    }));
    if (layout.resident !== null) return this.resident(layout.resident, origins, b, { m0, m1, n0, n1 });
    const c = problem.direct === null ? null : this.origin(problem.direct, slots.direct, b);
    const [im, jc] = [f.local("i32"), f.local("i32")];
    f.for(im, m0, m1, layout.mPanel, () => {
      const rows = this.least(i32.sub(m1, im), layout.mPanel);
      f.for(jc, n0, n1, layout.nBlock, () => {
        const columns = this.least(i32.sub(n1, jc), layout.nBlock);
        const rowStride = 4 * (problem.direct?.view.strides.at(-2) ?? layout.nBlock);
        const target =
          c === null
            ? f.bind(i32.add(scratch, layout.panel))
            : f.bind(i32.add(i32.add(c, i32.mul(im, rowStride)), i32.shl(jc, 2)));
        problem.terms.forEach((_, t) => {
          const from = origins[t] as { a: Local; b: Local };
          this.term(t, from, { im, rows, jc, columns, target, rowStride });
        });
        this.finish(b, im, rows, jc, columns, target);
      });
    });
  }

  /** Runs the epilogue on the panel at `target`. */
  private finish(b: Local, im: Local, rows: Local, column: Local, columns: Local, target: Local): void {
    const { f } = this;
    const { problem, epilogue, frame, args, scratch } = this.e;
    if (epilogue === null) return;
    const row = f.bind(i32.add(i32.mul(b, problem.m), im));
    const end = { row: i32.add(row, rows), column: i32.add(column, columns) };
    f.call(epilogue, frame, args, scratch, row, end.row, column, end.column, target);
  }

  /** As `product`, with B packed over all of k: every panel of C is finished while it is in cache. */
  private resident(
    at: readonly number[],
    origins: readonly { readonly a: Local; readonly b: Local }[],
    b: Local,
    { m0, m1, n0, n1 }: { readonly m0: Local; readonly m1: Local; readonly n0: Local; readonly n1: Local },
  ): void {
    const { f } = this;
    const { problem, layout, options, scratch } = this.e;
    const [im, jc] = [f.local("i32"), f.local("i32")];
    const target = f.bind(i32.add(scratch, layout.panel));
    const packedA = f.bind(i32.add(scratch, layout.a));
    const packedB = (t: number, pc: Local): Expr =>
      i32.add(i32.add(scratch, at[t] ?? 0), i32.mul(pc, 4 * layout.nBlock));
    /** For each block of k: where it starts, and its depth. */
    const blocks = (k: number, body: (pc: Local, depth: Local) => void): void => {
      const pc = f.local("i32");
      f.for(pc, 0, Math.max(k, 1), Math.max(kBlock(k), 1), () =>
        body(pc, this.least(i32.sub(k, pc), Math.max(kBlock(k), 1))),
      );
    };
    f.for(jc, n0, n1, layout.nBlock, () => {
      const columns = this.least(i32.sub(n1, jc), layout.nBlock);
      problem.terms.forEach(({ b: operand, k }, t) => {
        const [bK, bColumn] = bytesOfLastTwo(operand);
        const pack = options.gemm.pack("B", operand.dtype as GemmDType);
        blocks(k, (pc, depth) => {
          const from = i32.add(i32.add(origins[t]?.b ?? 0, i32.mul(pc, bK)), i32.mul(jc, bColumn));
          f.call(pack, packedB(t, pc), from, bColumn, bK, columns, depth);
        });
      });
      f.for(im, m0, m1, layout.mPanel, () => {
        const rows = this.least(i32.sub(m1, im), layout.mPanel);
        problem.terms.forEach((term, t) => {
          blocks(term.k, (pc, depth) => {
            this.block(term, {
              a: f.bind(this.within(term.a, origins[t]?.a ?? 0, im, pc)),
              packedA,
              packedB: packedB(t, pc),
              target,
              rowStride: 4 * layout.nBlock,
              rows,
              columns,
              depth,
              add: t > 0 ? 1 : i32.ne(pc, 0),
            });
          });
        });
        this.finish(b, im, rows, jc, columns, target);
      });
    });
  }

  /** Adds term t to the panel (the first one overwrites it). */
  private term(
    t: number,
    from: { readonly a: Local; readonly b: Local },
    panel: { im: Local; rows: Local; jc: Local; columns: Local; target: Local; rowStride: number },
  ): void {
    const { f } = this;
    const { problem, layout, options, scratch } = this.e;
    const term = problem.terms[t] as Term;
    const { b, k } = term;
    const { im, rows, jc, columns, target, rowStride } = panel;
    const [bK, bColumn] = bytesOfLastTwo(b);
    const [packedA, packedB] = [f.bind(i32.add(scratch, layout.a)), f.bind(i32.add(scratch, layout.b))];
    const skinny = this.e.gemv[t] ?? null;
    if (skinny !== null) {
      f.call(skinny, from.a, i32.add(from.b, i32.mul(jc, bColumn)), target, columns, t > 0 ? 1 : 0);
      return;
    }
    const [pc, ic] = [f.local("i32"), f.local("i32")];
    const block = mBlock(options.tile);
    const longest = Math.max(kBlock(k), 1);
    f.for(pc, 0, Math.max(k, 1), longest, () => {
      const depth = this.least(i32.sub(k, pc), longest);
      const bAt = i32.add(i32.add(from.b, i32.mul(pc, bK)), i32.mul(jc, bColumn));
      f.call(options.gemm.pack("B", b.dtype as GemmDType), packedB, bAt, bColumn, bK, columns, depth);
      f.for(ic, 0, rows, block, () => {
        const height = this.least(i32.sub(rows, ic), block);
        this.block(term, {
          a: f.bind(this.within(term.a, from.a, f.bind(i32.add(im, ic)), pc)),
          packedA,
          packedB,
          target: i32.add(target, i32.mul(ic, rowStride)),
          rowStride,
          rows: height,
          columns,
          depth,
          add: t > 0 ? 1 : i32.ne(pc, 0),
        });
      });
    });
  }

  /** The address of element [row, k] of a factor whose first one is at `origin`. */
  private within(operand: Operand, origin: Int, row: Local, k: Local): Expr {
    const [rowBytes, kBytes] = bytesOfLastTwo(operand);
    return i32.add(i32.add(origin, i32.mul(row, rowBytes)), i32.mul(k, kBytes));
  }

  /** Multiplies a block of A with one of B; packs those rows of A that are not read in place: all, or the last few. */
  private block(term: Term, block: Block): void {
    const { f } = this;
    const { options, layout, scratch } = this.e;
    const { gemm, tile } = options;
    const { a, packedA, packedB, target, rowStride, rows, columns, depth, add } = block;
    const [rowBytes, kBytes] = bytesOfLastTwo(term.a);
    const pack = gemm.pack("A", term.a.dtype as GemmDType);
    const spare = i32.add(scratch, layout.spare);
    const common = [packedA, packedB, target, rowStride, rows, columns, depth, add, spare];
    if (fitsInPlace(term.a, term.k, tile)) {
      packRest(f, pack, tile, { to: packedA, from: a, rowStride: rowBytes, rows, k: depth });
      f.call(gemm.blockInPlace, a, rowBytes, ...common);
    } else {
      f.call(pack, packedA, a, rowBytes, kBytes, rows, depth);
      f.call(gemm.block, ...common);
    }
  }
}

type Term = Problem["terms"][number];

/** Parts of A and of B, and where their product goes. */
interface Block {
  readonly a: Expr;
  /** Where A is packed: all rows, or those that are not read in place. */
  readonly packedA: Expr;
  readonly packedB: Expr;
  readonly target: Expr;
  readonly rowStride: number;
  readonly rows: Local;
  readonly columns: Local;
  readonly depth: Local;
  readonly add: Int;
}

function bytesOfLastTwo(operand: Operand): [number, number] {
  const bytes = BYTES[operand.dtype];
  const [first = 0, second = 0] = operand.view.strides.slice(-2);
  return [first * bytes, second * bytes];
}

/** epilogue(frame, args, scratch, row, endRow, column, endColumn, panel): rows counted over batch and m. */
function compileEpilogue(
  module: Module,
  problem: Problem,
  epilogue: Epilogue,
  layout: Layout,
  options: MatmulOptions,
  slotOf: (operand: Operand) => number,
): Fn {
  const kernel: LoopKernel = {
    type: "loop",
    outer: [...problem.batch, problem.m, problem.n],
    inner: [],
    body: epilogue.body,
    stores: epilogue.stores,
  };
  const nest = canonicalise(kernel, { productRowStride: layout.nBlock });
  const plan = schedule(nest, { threads: 1, lastAxis: true });
  const slots = nest.buffers.map((buffer) =>
    slotOf({ buffer, dtype: "f32", view: { offset: 0, strides: [] } }),
  );
  return module.fn(null, i32s(8), [], (f, frame, args, scratch, row, endRow, column, endColumn, panel) => {
    // the panel's first element is [row, column]; operands count from [0, 0]
    const corner = i32.add(i32.mul(row, layout.nBlock), column);
    const origin = f.bind(i32.sub(panel, i32.shl(corner, 2)));
    const emitter = new LoopEmitter(f, nest, plan, {
      fma: options.fma,
      base: (slot) => (slot === PRODUCT ? origin : bufferAddress(frame, args, slots[slot] ?? 0)),
      scalar: (slot) => scalarAddress(frame, options, slot),
      scratch,
    });
    emitter.emit({ rows: [row, endRow], vector: [column, endColumn] });
  });
}
