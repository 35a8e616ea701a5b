/** How a matrix product is blocked: its parts for threads, its blocks for the caches, its scratch memory. Emits no code. */
import type { Epilogue, LibraryCall, Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Tile, tileColumns } from "./gemm.ts";
import { UNIT } from "./decoder.ts";
import { isQuantized } from "./quantized.ts";
import { copiedBytes } from "./quantized-gemv.ts";

export type MatmulCall = Extract<LibraryCall, { name: "matmul" }>;

/** Approximate lengths of the blocks along k, m and n: B's panel and A's block stay in L2, and a strip of either stays in L1. */
const K_BLOCK = 384;
const M_BLOCK = 192;
const N_BLOCK = 512;
/**
 * The length of the blocks that k is cut into. They are about equal, because a short last block would load and store C for
 * little work.
 */
export function kBlock(k: number): number {
  return ceilTo(Math.ceil(k / Math.max(1, Math.round(k / K_BLOCK))), 8);
}

/**
 * The most bytes of B that are kept packed over all of k. This is done with an epilogue: a panel of C, one block by another,
 * is summed over all of k before the epilogue reads it, so that it is still in L2.
 */
const B_BYTES = 4 * 2 ** 20;
/** For deeper products, B is packed again for every panel. */
const MAX_RESIDENT_DEPTH = 6144;
/** A core's speed, for estimates: floating-point operations per nanosecond, and nanoseconds to pack an element. */
const FLOP_PER_NS = 45;
const PACK_NS = 0.5;
/** Nanoseconds to read one number of B in a product of few rows. */
const READ_NS = 0.2;
const PARALLEL_NS = 20_000;

export const product = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);
const ceilTo = (x: number, step: number): number => Math.ceil(x / step) * step;

/** How C is cut into chunks: each is `batchPerChunk` whole products, or a part of one product, `mPer` x `nPer`. */
export interface Grid {
  readonly batchPerChunk: number;
  readonly mPer: number;
  readonly nPer: number;
}

/** One product A B; C is the sum of its terms. */
export interface Term {
  readonly a: Operand;
  readonly b: Operand;
  readonly k: number;
}

export interface Problem {
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly terms: readonly Term[];
  /** C, if the product is written to it directly: it is f32 and contiguous along n. Otherwise null. */
  readonly direct: Operand | null;
  readonly epilogue: Epilogue | null;
}

/** Swaps the last two strides. */
function transposed(operand: Operand): Operand {
  const { strides } = operand.view;
  const [rows, columns] = [
    at(strides, strides.length - 2, "stride"),
    at(strides, strides.length - 1, "stride"),
  ];
  return { ...operand, view: { ...operand.view, strides: [...strides.slice(0, -2), columns, rows] } };
}

/** Brings a call into a form in which C is contiguous along n, or an epilogue stores it. */
export function problemOf({ params, inputs, outputs }: MatmulCall): Problem {
  const terms = params.k.map((k, t) => ({
    a: at(inputs, 2 * t, "input"),
    b: at(inputs, 2 * t + 1, "input"),
    k,
  }));
  const base = { batch: params.batch, m: params.m, n: params.n, terms };
  if (params.epilogue !== undefined) return { ...base, direct: null, epilogue: params.epilogue };
  const c = at(outputs, 0, "output");
  const [rowStride, columnStride] = c.view.strides.slice(-2);
  if (c.dtype === "f32" && columnStride === 1) return { ...base, direct: c, epilogue: null };
  if (c.dtype === "f32" && rowStride === 1 && !inputs.some(isQuantized)) {
    // C is stored transposed: compute Cᵀ = Bᵀ Aᵀ
    const swapped = terms.map(({ a, b, k }) => ({ a: transposed(b), b: transposed(a), k }));
    return { ...base, m: params.n, n: params.m, terms: swapped, direct: transposed(c), epilogue: null };
  }
  const epilogue: Epilogue = { body: [{ op: "product", dtype: "f32" }], stores: [{ to: c, value: 0 }] };
  return { ...base, direct: null, epilogue };
}

/** Estimated nanoseconds on one thread; `skinny` tells which terms read B as it is stored. */
export function costOf({ batch, m, n, terms }: Problem, skinny: readonly boolean[]): number {
  const flop = terms.reduce((sum, { k }) => sum + 2 * m * n * k, 0);
  const read = terms.reduce((sum, { k }, t) => sum + (skinny[t] === true ? k * n : 0), 0);
  return product(batch) * Math.max(flop / FLOP_PER_NS, read * READ_NS);
}

/** Cuts C so that the slowest thread finishes as early as possible; finer cuts cost more packing. */
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
  // there are enough products for all threads: a chunk takes several if they are small
  const wanted = Math.min(batches, 4 * threads, Math.ceil((2 * cost) / PARALLEL_NS));
  return { ...best, batchPerChunk: Math.ceil(batches / wanted) };
}

/** Memory of one thread: packed A (or rows of A as a product with a quantized B wants them), packed B, a spare tile, and the panel of C that an epilogue reads. */
export interface ScratchLayout {
  readonly a: number;
  readonly b: number;
  readonly spare: number;
  readonly panel: number;
  readonly bytes: number;
  /** Columns of B that are packed at a time, and rows of C in a panel. */
  readonly nBlock: number;
  readonly mPanel: number;
  /** If B is packed over all of k before panels are computed: where each term's packed B starts. Otherwise null. */
  readonly resident: readonly number[] | null;
}

/** The depth of a term whose blocks are all padded to the longest one. */
function paddedDepth(k: number): number {
  return ceilTo(k, kBlock(k));
}

export function layoutOf(
  problem: Problem,
  grid: Grid,
  tile: Tile,
  skinny: readonly boolean[],
): ScratchLayout {
  const { terms, epilogue } = problem;
  const hasUnits = terms.some(({ b }) => isQuantized(b));
  const columns = Math.max(tileColumns(tile), hasUnits ? UNIT : 0);
  const depth = terms.reduce((sum, { k }) => sum + paddedDepth(k), 0);
  const block = ceilTo(Math.max(...terms.map(({ k }) => Math.min(k, kBlock(k)))), tile.unroll);
  const isResident = epilogue !== null && !skinny.includes(true) && depth <= MAX_RESIDENT_DEPTH;
  const kept = isResident ? depth : block;
  const held = Math.floor(B_BYTES / (4 * kept) / columns) * columns;
  const nBlock = Math.max(columns, Math.min(N_BLOCK, held, ceilTo(grid.nPer, columns)));
  const mPanel = epilogue === null ? grid.mPer : Math.min(mBlock(tile), grid.mPer);
  const copied = terms.map(({ b, k }, t) => (skinny[t] && isQuantized(b) ? copiedBytes(problem.m, k) : 0));
  const b = Math.max(4 * block * ceilTo(Math.min(mBlock(tile), mPanel), tile.rows), ...copied);
  const spare = b + 4 * kept * nBlock;
  const panel = spare + 4 * tile.rows * columns;
  const bytes = panel + (epilogue === null ? 0 : 4 * mPanel * nBlock);
  let before = 0;
  const starts = terms.map(({ k }) => {
    const start = b + 4 * before * nBlock;
    before += paddedDepth(k);
    return start;
  });
  return { a: 0, b, spare, panel, bytes, nBlock, mPanel, resident: isResident ? starts : null };
}

/**
 * Bytes between rows of a panel of C: C's own if the product is written to C directly, otherwise those of the panel in
 * scratch memory.
 */
export function rowStrideOf({ direct }: Problem, { nBlock }: ScratchLayout): number {
  return 4 * (direct === null ? nBlock : at(direct.view.strides, direct.view.strides.length - 2, "stride"));
}

export function mBlock(tile: Tile): number {
  return Math.floor(M_BLOCK / tile.rows) * tile.rows;
}
