/** How attention is blocked: sizes of blocks of queries and of the panels that products are made of. Emits no code. */
import type { AttentionParams } from "@tiedlora/kernels";
import { type Tile, tileColumns } from "../matmul/gemm.ts";

/** Queries per block, where their scores fit into SCORE_BYTES; fewer with many keys. */
const QUERIES = 48;
const SCORE_BYTES = 192 * 1024;

export const ceilTo = (x: number, step: number): number => Math.ceil(x / step) * step;

/** Sizes of blocks and panels, all constants of the code. */
export interface Geometry {
  readonly params: AttentionParams;
  readonly tile: Tile;
  /** Queries per block, a multiple of the tile's rows. */
  readonly queries: number;
  /** Padded to tiles: keys as columns, keys as depth, width of a head as columns and as depth. */
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
