/** How a matrix product is blocked: its parts for threads, its blocks for the caches, its scratch memory. Emits no code. */
import type { Epilogue, LibraryCall, Operand } from "@tiedlora/kernels";
import type { Tile } from "./gemm.ts";
import { fitsInPlace, tileColumns } from "./gemm.ts";

export type MatmulCall = Extract<LibraryCall, { name: "matmul" }>;

/** About the lengths of the blocks along k, m and n: B's panel stays in L2 or L3, A's block in L2, a strip of B in L1. */
const K_BLOCK = 384;
const M_BLOCK = 192;
const N_BLOCK = 2048;
/** The length of the blocks that k is cut into, all about equal: a short last one would pay for loading and storing C. */
export function kBlock(k: number): number {
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
/** Up to this many columns of packed B, about what L2 holds, A is read where it is; with more it would be read too often. */
const IN_PLACE_COLUMNS = 1536;
/** A core's speed, for estimates: floating-point operations per nanosecond, and nanoseconds to pack an element. */
const FLOP_PER_NS = 45;
const PACK_NS = 0.5;
/** Nanoseconds to read a number of a matrix that is used for few rows. */
const READ_NS = 0.2;
const PARALLEL_NS = 20_000;

export const product = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);
const ceilTo = (x: number, step: number): number => Math.ceil(x / step) * step;

/** How C is cut into chunks: `batches` of whole products, or parts of one. */
export interface Grid {
  readonly batchPerChunk: number;
  readonly mPer: number;
  readonly nPer: number;
}

export interface Problem {
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
export function problemOf({ params, inputs, outputs }: MatmulCall): Problem {
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

/** Nanoseconds that one thread takes, about; `skinny` tells which terms read B as it is stored. */
export function costOf({ batch, m, n, terms }: Problem, skinny: readonly boolean[]): number {
  const flop = terms.reduce((sum, { k }) => sum + 2 * m * n * k, 0);
  const read = terms.reduce((sum, { k }, t) => sum + (skinny[t] === true ? k * n : 0), 0);
  return product(batch) * Math.max(flop / FLOP_PER_NS, read * READ_NS);
}

/** Cuts C so that the slowest thread finishes soonest; packing is what finer cuts cost. */
export function gridOf({ batch, m, n, terms }: Problem, cost: number, tile: Tile, threads: number): Grid {
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
export interface Layout {
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

export function layoutOf(problem: Problem, grid: Grid, tile: Tile, skinny: boolean): Layout {
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

/** Whether the product reads `a` where it is. */
export function readsInPlace(a: Operand, k: number, { nBlock }: Layout, tile: Tile): boolean {
  return fitsInPlace(a, k, tile) && nBlock <= IN_PLACE_COLUMNS;
}

export function mBlock(tile: Tile): number {
  return Math.floor(M_BLOCK / tile.rows) * tile.rows;
}
