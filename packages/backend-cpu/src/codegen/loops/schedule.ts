/**
 * How a nest is run: which axis goes into the SIMD lanes, how far it is unrolled, and how the work is cut into chunks
 * that threads take. Every chunk computes complete results, so the number of chunks does not change them.
 *
 * - mode "row": lanes lie along an inner axis; reductions end by folding the lanes.
 * - mode "column": lanes lie along an outer axis, so that four (or 4·unroll) outer indices are computed side by side;
 *   this serves elementwise kernels and reductions over strided axes.
 */
import { operandsOf } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { instructionCost } from "./cost.ts";
import { singlePass } from "./levels.ts";
import type { Access, Axis, Nest } from "./nest.ts";
import { strideAlong, typeOf } from "./nest.ts";

export interface Schedule {
  readonly mode: "row" | "column";
  /**
   * For mode "column": whether the loops over the inner axes are outside the loop over the vector axis, with the accumulators
   * in memory. A sum over the rows of a matrix then reads the matrix in order, instead of one cache line of every row at a
   * time.
   */
  readonly streams: boolean;
  /** The nest's axes, possibly with one of length 1 added to serve as vector axis. */
  readonly axes: readonly Axis[];
  readonly vector: number;
  /** The other axes, outermost first. */
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  /** Vectors per iteration. */
  readonly unroll: number;
  /** Where validity changes along the vector axis: ascending, from 0 to its length. */
  readonly segments: readonly number[];
  /** Rows (indices of `outer`) and vector elements per chunk. */
  readonly rows: number;
  readonly rowsPerChunk: number;
  readonly vectorPerChunk: number;
  readonly chunks: number;
  /** Estimated run time on one thread, nanoseconds. */
  readonly cost: number;
}

/**
 * Lanes do not lie along an axis with more segments than this, because code is copied for every segment. If every axis has
 * more, validity is tested per element.
 */
const MAX_SEGMENTS = 16;
/** Approximate work of a chunk, nanoseconds: enough to be worth handing to another thread. */
const CHUNK_NS = 10_000;
/** Work below this many nanoseconds stays on one thread. */
const PARALLEL_NS = 20_000;
/** Axes shorter than this are not worth accumulators in memory. */
const STREAM_LENGTH = 32;
/** Elements in a cache line: chunks along the vector axis are multiples of it, so that they do not share lines. */
const LINE = 16;

function accessCost(access: Access, vector: number): number {
  const stride = strideAlong(access, vector);
  const half = access.dtype === "f16" || access.dtype === "bf16" ? 1.5 : 0;
  if (stride === 0) return 0.1;
  return (stride === 1 || stride === -1 ? 0.6 : 3) + half;
}

/** By instruction: whether it is computed per element of a row, not once per outer index. */
function withinRows(nest: Nest): boolean[] {
  const inner = nest.axes.map((axis) => axis.inner);
  if (!inner.includes(true)) return nest.body.map(() => false);
  const within: boolean[] = [];
  for (let i = 0; i < nest.body.length; i++) {
    const instr = nest.body[i]!;
    const index = nest.indexAxis[i]!;
    let own = index >= 0 && inner[index]!;
    const strides = nest.loads[i]?.strides;
    if (strides) for (let a = 0; a < strides.length; a++) own ||= strides[a] !== 0 && inner[a]!;
    within.push(own || (instr.op !== "reduce" && operandsOf(instr).some((a) => within[a])));
  }
  return within;
}

/**
 * Nanoseconds per element if the lanes lie along axis `vector`: a full vector of four costs as much as one element of the
 * remainder.
 */
function costPerElement(
  nest: Nest,
  vector: number,
  length: number,
  within: readonly boolean[] = withinRows(nest),
): number {
  const folded = product(nest.axes.map((axis) => (axis.inner ? axis.length : 1)));
  const share = (often: boolean | undefined): number => (often === true ? 1 : 1 / folded);
  let perVector = 0;
  nest.body.forEach((instr, i) => {
    const access = nest.loads[i] ?? null;
    const cost = instructionCost(instr, typeOf(nest.body, i) !== "f32");
    perVector += share(within[i]) * (cost + (access === null ? 0 : accessCost(access, vector)));
  });
  for (const { to, row } of nest.stores) perVector += share(!row) * accessCost(to, vector);
  const full = Math.floor(length / 4);
  return ((full + (length - 4 * full)) * Math.max(perVector, 0.5)) / length;
}

/**
 * As `costPerElement`, up to a factor, for kernels that fold. It looks only at what is the same in all kernels that fold these elements,
 * namely lengths and whether a whole value lies in memory along the axis: the order of a sum must not depend on what is fused with it.
 */
function foldCost({ axes, loads }: Nest, vector: number, length: number): number {
  const isWhole = ({ strides }: Access): boolean =>
    axes.every((axis, a) => axis.length === 1 || strides[a] !== 0);
  const isContiguous = loads.some(
    (access) => access !== null && isWhole(access) && Math.abs(strideAlong(access, vector)) === 1,
  );
  const full = Math.floor(length / 4);
  return ((full + (length - 4 * full)) * (isContiguous ? 1 : 4)) / length;
}

function segmentsOf({ loads, stores }: Nest, vector: number, length: number): number[] {
  let cuts: Set<number> | null = null;
  const cut = ({ valid }: Access): void => {
    const range = valid[vector];
    if (range) (cuts ??= new Set([0, length])).add(range[0]).add(range[1]);
  };
  for (const access of loads) if (access !== null) cut(access);
  for (const { to } of stores) cut(to);
  return cuts === null ? [0, length] : [...cuts].sort((a, b) => a - b);
}

const product = (lengths: readonly number[]): number => lengths.reduce((a, b) => a * b, 1);

/** The axis along which lanes are cheapest; null if validity changes too often along every axis. */
function vectorAxis(nest: Nest): number | null {
  let best: number | null = null;
  let bestCost = Infinity;
  const hasInner = nest.axes.some((axis) => axis.inner);
  const within = hasInner ? [] : withinRows(nest);
  nest.axes.forEach((axis, a) => {
    if (segmentsOf(nest, a, axis.length).length - 1 > MAX_SEGMENTS) return;
    // of equal costs, the later axis wins; an outer axis costs more, for keeping its accumulators across the inner loop
    const perElement = hasInner
      ? foldCost(nest, a, axis.length)
      : costPerElement(nest, a, axis.length, within);
    const cost = perElement * (hasInner && !axis.inner ? 1.1 : 1);
    if (cost <= bestCost) [best, bestCost] = [a, cost];
  });
  return best;
}

/**
 * Vectors per iteration: fewer for a long body, of which many copies would only fill the instruction cache. But at least two if pairs of
 * them become vectors of 256 bits.
 */
function unrollOf(nest: Nest, segments: number, length: number, wide: boolean): number {
  const size = nest.body.filter((instr) => instr.op !== "const" && instr.op !== "scalar").length;
  if (segments > 4 || length < 8) return 1;
  if (size > 24) return wide ? 2 : 1;
  return size > 8 || length < 16 ? 2 : 4;
}

export interface ScheduleOptions {
  readonly threads: number;
  /** See `CodegenOptions`. */
  readonly wide: boolean;
  /** Whether the lanes must lie along the last axis (for a matmul epilogue). */
  readonly lastAxis?: boolean;
}

export function schedule(nest: Nest, options: ScheduleOptions): Schedule {
  const found = options.lastAxis === true ? nest.axes.length - 1 : vectorAxis(nest);
  const axes = found === null ? [...nest.axes, { length: 1, inner: false }] : nest.axes;
  const vector = found ?? nest.axes.length;
  const { length, inner: isInner } = at(axes, vector, "axis");
  const mode = isInner ? "row" : "column";
  const others = axes.map((_, a) => a).filter((a) => a !== vector);
  const outer = others.filter((a) => !at(axes, a, "axis").inner);
  const inner = others.filter((a) => at(axes, a, "axis").inner);
  const segments = segmentsOf(nest, vector, length);
  const rows = product(outer.map((a) => at(axes, a, "axis").length));
  const elements = product(axes.map((axis) => axis.length));
  const passes = 1 + nest.body.filter((instr) => instr.op === "reduce").length / 2;
  const cost = elements * costPerElement(nest, vector, length) * passes;
  const folded = product(inner.map((a) => at(axes, a, "axis").length));
  const streams = mode === "column" && length >= STREAM_LENGTH && folded >= STREAM_LENGTH && singlePass(nest);
  const split = chunking(cost, rows, mode === "column" ? length : 1, options.threads);
  return {
    mode,
    streams,
    axes,
    vector,
    outer,
    inner,
    segments,
    rows,
    cost,
    unroll: unrollOf(nest, segments.length - 1, length, options.wide),
    ...split,
    vectorPerChunk: mode === "column" ? split.vectorPerChunk : length,
  };
}

function chunking(
  cost: number,
  rows: number,
  length: number,
  threads: number,
): Pick<Schedule, "rowsPerChunk" | "vectorPerChunk" | "chunks"> {
  const wanted = threads === 1 || cost < PARALLEL_NS ? 1 : Math.min(Math.ceil(cost / CHUNK_NS), 4 * threads);
  const rowsPerChunk = Math.ceil(rows / Math.min(rows, wanted));
  const rowChunks = Math.ceil(rows / rowsPerChunk);
  const vectorChunks = Math.max(1, Math.round(wanted / rowChunks));
  const vectorPerChunk = Math.ceil(length / vectorChunks / LINE) * LINE;
  return { rowsPerChunk, vectorPerChunk, chunks: rowChunks * Math.ceil(length / vectorPerChunk) };
}
