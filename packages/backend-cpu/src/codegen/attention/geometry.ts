/**
 * The sizes of the blocks of queries that attention is cut into, and of the panels that its products are computed from. Emits
 * no code.
 */
import { type AttentionParams, BYTES, type Operand } from "@tiedlora/kernels";
import { at } from "../../assert.ts";
import { type Tile, tileColumns } from "../matmul/gemm.ts";

/** Queries per block, if their scores fit into SCORE_BYTES; with many keys, blocks are smaller. */
const QUERIES = 24;
const SCORE_BYTES = 192 * 1024;

export const ceilTo = (x: number, step: number): number => Math.ceil(x / step) * step;

/** Sizes of blocks and panels. */
export interface Geometry {
  readonly params: AttentionParams;
  readonly tile: Tile;
  /** Queries per block, a multiple of the tile's rows. */
  readonly queries: number;
  /** Padded to whole tiles: the number of keys as columns and as depth, and the width of a head as columns and as depth. */
  readonly keyColumns: number;
  readonly keyDepth: number;
  readonly widthColumns: number;
  readonly widthDepth: number;
  /** Bytes from row to row in panels of scores and in panels as wide as a head. */
  readonly scoreStride: number;
  readonly widthStride: number;
}

export function geometryOf(params: AttentionParams, tile: Tile): Geometry {
  const { q, kv, d } = params;
  const { rows, unroll } = tile;
  const columns = tileColumns(tile);
  const fitting = Math.floor(SCORE_BYTES / (4 * kv) / rows) * rows;
  const most = Math.floor(QUERIES / rows) * rows;
  const keyColumns = ceilTo(kv, columns);
  const widthColumns = ceilTo(d, columns);
  return {
    params,
    tile,
    queries: Math.max(rows, Math.min(fitting, most, ceilTo(q, rows))),
    keyColumns,
    keyDepth: ceilTo(kv, unroll),
    widthColumns,
    widthDepth: ceilTo(d, unroll),
    scoreStride: 4 * (keyColumns + 16), // not a power of two, so that rows do not share cache sets
    widthStride: 4 * widthColumns,
  };
}

/** The axes of every operand. */
export const BATCH = 0;
export const HEAD = 1;
export const ROW = 2;
export const COLUMN = 3;

/** Bytes from one index of an axis to the next. */
export function byteStride({ view, dtype }: Operand, axis: number): number {
  return at(view.strides, axis, "stride") * BYTES[dtype];
}
