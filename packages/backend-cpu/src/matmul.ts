/**
 * The matmul step: blocking around the GEMM core, all shapes and strides constants of the code. Threads share a product
 * by parts of C; k is cut at fixed places, so the parts do not change a bit of the result.
 */
import type { Epilogue, LibraryCall, LoopKernel, Operand } from "@tiedlora/core";
import { BYTES } from "@tiedlora/core";
import type { Callable, Expr, Fn, Int, Local, Module } from "./assembler.ts";
import type { GemmDType, Tile } from "./gemm.ts";
import { tileColumns } from "./gemm.ts";
import { emitGemv, isSkinny } from "./gemv.ts";
import { i32 } from "./instructions.ts";
import { LoopEmitter } from "./loops/emit.ts";
import type { CodegenOptions, StepFunction } from "./loops/kernel.ts";
import { bufferAddress, STEP_PARAMS } from "./loops/kernel.ts";
import { canonicalise, PRODUCT } from "./loops/nest.ts";
import { schedule } from "./loops/schedule.ts";

export type MatmulCall = Extract<LibraryCall, { name: "matmul" }>;

/** The GEMM core as imported into a program. */
export interface GemmImports {
  readonly pack: (side: "A" | "B", dtype: GemmDType) => Callable;
  readonly block: Callable;
}

export interface MatmulOptions extends CodegenOptions {
  readonly tile: Tile;
  readonly gemm: GemmImports;
}

/** About the lengths of the blocks along k, m and n: B's panel stays in L2 or L3, A's block in L2, a strip of B in L1. */
const K_BLOCK = 384;
const M_BLOCK = 192;
const N_BLOCK = 2048;
/** The length of the blocks that k is cut into, all about equal: a short last one would pay for loading and storing C. */
function kBlock(k: number): number {
  return ceilTo(Math.ceil(k / Math.max(1, Math.round(k / K_BLOCK))), 8);
}

/** With an epilogue, a panel of C of this size is finished over all of k before it is handed on: in L2. */
const M_PANEL = 192;
const N_PANEL = 512;
/** What of A and of B is kept packed over all of k meanwhile, bytes. */
const A_BYTES = 512 * 1024;
const B_BYTES = 4 * 2 ** 20;
/** Deeper products are packed anew for every panel. */
const MAX_RESIDENT_DEPTH = 6144;
/** A core's speed, for estimates: floating-point operations per nanosecond, and nanoseconds to pack an element. */
const FLOP_PER_NS = 45;
const PACK_NS = 0.5;
/** Nanoseconds to read a number of a matrix that is used for few rows. */
const READ_NS = 0.2;
const PARALLEL_NS = 20_000;

const product = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);
const ceilTo = (x: number, step: number): number => Math.ceil(x / step) * step;

/** How C is cut into chunks: `batches` of whole products, or parts of one. */
interface Grid {
  readonly batchPerChunk: number;
  readonly mPer: number;
  readonly nPer: number;
}

interface Problem {
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly terms: readonly { readonly a: Operand; readonly b: Operand; readonly k: number }[];
  /** Where the product goes directly: f32, contiguous along n. */
  readonly direct: Operand | null;
  readonly epilogue: Epilogue | null;
}

/** Swaps the last two strides. */
function transposed(operand: Operand): Operand {
  const { strides } = operand.view;
  const [rows = 0, columns = 0] = strides.slice(-2);
  return { ...operand, view: { ...operand.view, strides: [...strides.slice(0, -2), columns, rows] } };
}

/** Brings a call into a form with C contiguous along n, or with an epilogue that stores it. */
function problemOf({ params, inputs, outputs }: MatmulCall): Problem {
  const terms = params.k.map((k, t) => ({ a: inputs[2 * t] as Operand, b: inputs[2 * t + 1] as Operand, k }));
  const base = { batch: params.batch, m: params.m, n: params.n, terms };
  if (params.epilogue !== undefined) return { ...base, direct: null, epilogue: params.epilogue };
  const c = outputs[0] as Operand;
  const [rowStride, columnStride] = c.view.strides.slice(-2);
  if (c.dtype === "f32" && columnStride === 1) return { ...base, direct: c, epilogue: null };
  if (c.dtype === "f32" && rowStride === 1) {
    // C is stored transposed: compute Cᵀ = Bᵀ Aᵀ
    const swapped = terms.map(({ a, b, k }) => ({ a: transposed(b), b: transposed(a), k }));
    return { ...base, m: params.n, n: params.m, terms: swapped, direct: transposed(c), epilogue: null };
  }
  const epilogue: Epilogue = { body: [{ op: "product", dtype: "f32" }], stores: [{ to: c, value: 0 }] };
  return { ...base, direct: null, epilogue };
}

/** Cuts C so that the slowest thread finishes soonest; packing is what finer cuts cost. */
function gridOf({ batch, m, n, terms }: Problem, cost: number, tile: Tile, threads: number): Grid {
  const batches = product(batch);
  if (threads === 1 || cost < PARALLEL_NS) return { batchPerChunk: batches, mPer: m, nPer: n };
  const k = terms.reduce((sum, term) => sum + term.k, 0);
  let best: Grid = { batchPerChunk: 1, mPer: m, nPer: n };
  let bestTime = Infinity;
  for (let pm = 1; pm <= 2 * threads; pm++) {
    for (let pn = 1; pm * pn <= 2 * threads; pn++) {
      const mPer = Math.min(m, ceilTo(m / pm, tile.rows));
      const nPer = Math.min(n, ceilTo(n / pn, Math.max(16, tileColumns(tile))));
      const chunks = batches * Math.ceil(m / mPer) * Math.ceil(n / nPer);
      const time =
        Math.ceil(chunks / threads) * k * ((2 * mPer * nPer) / FLOP_PER_NS + PACK_NS * (mPer + nPer));
      if (time < bestTime * 0.98) [best, bestTime] = [{ batchPerChunk: 1, mPer, nPer }, time];
    }
  }
  if (best.mPer < m || best.nPer < n) return best;
  // enough products to go round: several per chunk where they are small
  const wanted = Math.min(batches, 4 * threads, Math.ceil((2 * cost) / PARALLEL_NS));
  return { ...best, batchPerChunk: Math.ceil(batches / wanted) };
}

/** Memory of one thread: packed A, packed B, a spare tile, and the panel of C that an epilogue reads. */
interface Layout {
  readonly a: number;
  readonly b: number;
  readonly spare: number;
  readonly panel: number;
  readonly bytes: number;
  /** Columns of B that are packed at a time, and rows of C that are finished before the next. */
  readonly nBlock: number;
  readonly mPanel: number;
  /** Columns of the panel of C; with `resident`, fewer than `nBlock`. */
  readonly nPanel: number;
  /** A and B are packed over all of k before a panel is computed, by term from these addresses on. */
  readonly resident: readonly { readonly a: number; readonly b: number }[] | null;
}

/** k of a term, cut into blocks that are all padded to the longest. */
function paddedDepth(k: number): number {
  return ceilTo(k, kBlock(k));
}

/** The layout for an epilogue over a product that is not too deep: nothing is packed twice. */
function residentLayout(problem: Problem, grid: Grid, tile: Tile): Layout {
  const columns = tileColumns(tile);
  const depth = problem.terms.reduce((sum, { k }) => sum + paddedDepth(k), 0);
  const fit = (bytes: number, most: number, step: number, wanted: number): number =>
    Math.max(
      step,
      Math.min(Math.floor(Math.min(most, bytes / (4 * depth)) / step) * step, ceilTo(wanted, step)),
    );
  const nBlock = fit(B_BYTES, N_BLOCK, columns, grid.nPer);
  const mPanel = fit(A_BYTES, M_PANEL, tile.rows, grid.mPer);
  const nPanel = Math.min(N_PANEL, nBlock);
  const b = 4 * depth * mPanel;
  const spare = b + 4 * depth * nBlock;
  const panel = spare + 4 * tile.rows * columns;
  let before = 0;
  const resident = problem.terms.map(({ k }) => {
    const at = { a: 4 * before * mPanel, b: b + 4 * before * nBlock };
    before += paddedDepth(k);
    return at;
  });
  return { a: 0, b, spare, panel, bytes: panel + 4 * mPanel * nPanel, nBlock, mPanel, nPanel, resident };
}

function layoutOf(problem: Problem, grid: Grid, tile: Tile, skinny: boolean): Layout {
  const depth = problem.terms.reduce((sum, { k }) => sum + paddedDepth(k), 0);
  if (problem.epilogue !== null && !skinny && depth <= MAX_RESIDENT_DEPTH) {
    return residentLayout(problem, grid, tile);
  }
  const hasPanel = problem.epilogue !== null;
  const columns = tileColumns(tile);
  const nBlock = Math.min(hasPanel ? N_PANEL : N_BLOCK, ceilTo(grid.nPer, columns));
  const mPanel = hasPanel ? Math.min(M_PANEL, grid.mPer) : grid.mPer;
  const deepest = Math.max(...problem.terms.map((t) => Math.min(t.k, kBlock(t.k))));
  const k = ceilTo(deepest, tile.unroll);
  const b = 4 * k * ceilTo(Math.min(mBlock(tile), mPanel), tile.rows);
  const spare = b + 4 * k * nBlock;
  const panel = spare + 4 * tile.rows * columns;
  const bytes = panel + (hasPanel ? 4 * mPanel * nBlock : 0);
  return { a: 0, b, spare, panel, bytes, nBlock, mPanel, nPanel: nBlock, resident: null };
}

function mBlock(tile: Tile): number {
  return Math.floor(M_BLOCK / tile.rows) * tile.rows;
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
  const flops =
    2 * product(problem.batch) * problem.m * problem.n * problem.terms.reduce((s, t) => s + t.k, 0);
  const skinny = problem.terms.map(({ a, b }) => isSkinny(problem.m, a, b));
  const read = problem.terms.reduce((sum, { k }, t) => sum + (skinny[t] === true ? k * problem.n : 0), 0);
  const cost = Math.max(flops / FLOP_PER_NS, product(problem.batch) * read * READ_NS);
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
    const rowStride = 4 * (problem.direct?.view.strides.at(-2) ?? layout.nPanel);
    return skinny[t] === true ? emitGemv(module, { m: problem.m, k, a, b, rowStride }, options.fma) : null;
  });
  const parts = { m: Math.ceil(problem.m / grid.mPer), n: Math.ceil(problem.n / grid.nPer) };
  const batchChunks = Math.ceil(product(problem.batch) / grid.batchPerChunk);
  module.fn(name, STEP_PARAMS, [], (f, ...params) => {
    const [frame, args, chunk, scratch] = params as [Local, Local, Local, Local];
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
    const { problem, frame, args } = this.e;
    const bytes = BYTES[operand.dtype];
    const p = f.local("i32", i32.add(bufferAddress(frame, args, slot), operand.view.offset * bytes));
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
        const rowStride = 4 * (problem.direct?.view.strides.at(-2) ?? layout.nPanel);
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

  /** As `product`, with A and B packed over all of k: every panel of C is finished while it is in cache. */
  private resident(
    at: readonly { readonly a: number; readonly b: number }[],
    origins: readonly { readonly a: Local; readonly b: Local }[],
    b: Local,
    { m0, m1, n0, n1 }: { readonly m0: Local; readonly m1: Local; readonly n0: Local; readonly n1: Local },
  ): void {
    const { f } = this;
    const { problem, layout, options, scratch } = this.e;
    const [im, jc, js] = [f.local("i32"), f.local("i32"), f.local("i32")];
    const target = f.bind(i32.add(scratch, layout.panel));
    const spare = f.bind(i32.add(scratch, layout.spare));
    /** For each block of k: its place in the packed panels, which are `lines` wide, and its depth. */
    const blocks = (k: number, body: (pc: Local, depth: Local) => void): void => {
      const pc = f.local("i32");
      f.for(pc, 0, Math.max(k, 1), Math.max(kBlock(k), 1), () =>
        body(pc, this.least(i32.sub(k, pc), Math.max(kBlock(k), 1))),
      );
    };
    const place = (start: number, pc: Local, lines: number): Expr =>
      i32.add(i32.add(scratch, start), i32.mul(pc, 4 * lines));
    f.for(jc, n0, n1, layout.nBlock, () => {
      const columns = this.least(i32.sub(n1, jc), layout.nBlock);
      problem.terms.forEach(({ b: operand, k }, t) => {
        const [bK, bColumn] = bytesOfLastTwo(operand);
        const pack = options.gemm.pack("B", operand.dtype as GemmDType);
        blocks(k, (pc, depth) => {
          const from = i32.add(i32.add(origins[t]?.b ?? 0, i32.mul(pc, bK)), i32.mul(jc, bColumn));
          f.call(pack, place(at[t]?.b ?? 0, pc, layout.nBlock), from, bColumn, bK, columns, depth);
        });
      });
      f.for(im, m0, m1, layout.mPanel, () => {
        const rows = this.least(i32.sub(m1, im), layout.mPanel);
        problem.terms.forEach(({ a: operand, k }, t) => {
          const [aRow, aK] = bytesOfLastTwo(operand);
          const pack = options.gemm.pack("A", operand.dtype as GemmDType);
          blocks(k, (pc, depth) => {
            const from = i32.add(i32.add(origins[t]?.a ?? 0, i32.mul(im, aRow)), i32.mul(pc, aK));
            f.call(pack, place(at[t]?.a ?? 0, pc, layout.mPanel), from, aRow, aK, rows, depth);
          });
        });
        f.for(js, 0, columns, layout.nPanel, () => {
          const width = this.least(i32.sub(columns, js), layout.nPanel);
          problem.terms.forEach(({ k }, t) => {
            blocks(k, (pc, depth) => {
              const a = place(at[t]?.a ?? 0, pc, layout.mPanel);
              const strip = i32.mul(i32.mul(js, 4), paddedTo(depth, options.tile.unroll));
              const packedB = i32.add(place(at[t]?.b ?? 0, pc, layout.nBlock), strip);
              const add = t > 0 ? 1 : i32.ne(pc, 0);
              f.call(
                options.gemm.block,
                a,
                packedB,
                target,
                4 * layout.nPanel,
                rows,
                width,
                depth,
                add,
                spare,
              );
            });
          });
          const column = f.bind(i32.add(jc, js));
          this.finish(b, im, rows, column, width, target);
        });
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
    const { a, b, k } = problem.terms[t] as Problem["terms"][number];
    const { im, rows, jc, columns, target, rowStride } = panel;
    const [aRow, aK] = bytesOfLastTwo(a);
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
        const aAt = i32.add(i32.add(from.a, i32.mul(i32.add(im, ic), aRow)), i32.mul(pc, aK));
        f.call(options.gemm.pack("A", a.dtype as GemmDType), packedA, aAt, aRow, aK, height, depth);
        const to = i32.add(target, i32.mul(ic, rowStride));
        const add = t > 0 ? 1 : i32.ne(pc, 0);
        const spare = i32.add(scratch, layout.spare);
        f.call(options.gemm.block, packedA, packedB, to, rowStride, height, columns, depth, add, spare);
      });
    });
  }
}

/** `depth` rounded up to a multiple of a power of two. */
function paddedTo(depth: Local, unroll: number): Expr {
  return i32.and(i32.add(depth, unroll - 1), -unroll);
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
  const nest = canonicalise(kernel, { productRowStride: layout.nPanel });
  const plan = schedule(nest, { threads: 1, lastAxis: true });
  const slots = nest.buffers.map((buffer) =>
    slotOf({ buffer, dtype: "f32", view: { offset: 0, strides: [] } }),
  );
  return module.fn(null, Array(8).fill("i32"), [], (f, ...params) => {
    const [frame, args, scratch, row, endRow, column, endColumn, panel] = params as [
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
    ];
    // the panel's first element is [row, column]; operands count from [0, 0]
    const corner = i32.add(i32.mul(row, layout.nPanel), column);
    const origin = f.bind(i32.sub(panel, i32.shl(corner, 2)));
    const emitter = new LoopEmitter(f, nest, plan, {
      fma: options.fma,
      base: (slot) => (slot === PRODUCT ? origin : bufferAddress(frame, args, slots[slot] ?? 0)),
      scalar: (slot) => i32.add(frame, options.scalarsAt + 8 * slot),
      scratch,
    });
    emitter.emit({ rows: [row, endRow], vector: [column, endColumn] });
  });
}
