/**
 * The tiles that a matrix product is cut into on a GPU. All of them sum along the depth in the same order, so the choice
 * changes how long a product takes, but not its result.
 */
import { ceilDiv, type Target, type Tile } from "../target.ts";

/** How large a product is. */
export interface Extent {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly batches: number;
}

/** The tiles that are compared for each kind of product. */
export const TILES: readonly Tile[] = [
  { rows: 32, columns: 32, depth: 16, own: 4 },
  { rows: 64, columns: 64, depth: 16, own: 4 },
  { rows: 64, columns: 64, depth: 16, own: 8 },
  { rows: 128, columns: 64, depth: 16, own: 8 },
  { rows: 128, columns: 128, depth: 8, own: 8 },
];

/** Invocations that share a tile. */
export const invocations = (t: Tile): number => (t.rows / t.own) * (t.columns / t.own);

export const tileName = (t: Tile): string => `${t.rows}x${t.columns}x${t.depth} by ${t.own}x${t.own}`;

/** Whether the device can hold the tile. */
export function fits(tile: Tile, { maxInvocations, maxWorkgroupBytes, matmulPrecision }: Target): boolean {
  const bytes = (matmulPrecision === "f16" ? 2 : 4) * tile.depth * (tile.rows + tile.columns);
  return invocations(tile) <= maxInvocations && bytes <= maxWorkgroupBytes;
}

/**
 * The tile of a product: `target.tile` if given, otherwise the one that was measured to be fastest for its kind, or else that
 * of `tileByRule`.
 */
export function chooseTile(product: Extent, target: Target): Tile {
  if (target.tile) return target.tile;
  const kind = kindOf(product);
  return (kind && target.tiles?.get(kindName(kind))) ?? tileByRule(product, target);
}

/** The tile by a fixed rule: large tiles reuse more, but there must be enough tiles to fill the device. */
export function tileByRule({ rows, columns, depth: deepest, batches }: Extent, { software }: Target): Tile {
  const depth = deepest <= 8 ? 8 : 16;
  if (rows <= 16) return { rows: 16, columns: 64, depth, own: 4 };
  const small = { rows: 32, columns: 32, depth, own: 4 };
  if (software) return rows * columns >= 64 * 64 ? { rows: 64, columns: 64, depth, own: 8 } : small;
  const tiles = ceilDiv(rows, 64) * ceilDiv(columns, 64) * batches;
  return tiles >= 64 ? { rows: 64, columns: 64, depth, own: 4 } : small;
}

/** Products with fewer multiply-adds take about as long with any tile. */
const LEAST_WORK = 2 ** 22;

const nearPower = (x: number, most: number): number => Math.min(most, 2 ** Math.round(Math.log2(x)));

/**
 * The kind of a product: its lengths, rounded to a power of two, and limited to values beyond which a product only has more
 * of the same work. Null if `tileByRule` is good enough.
 */
export function kindOf({ rows, columns, depth, batches }: Extent): Extent | null {
  if (Math.min(rows, columns) < 32 || depth < 16) return null;
  if (rows * columns * depth * batches < LEAST_WORK) return null;
  return {
    rows: nearPower(rows, 2048),
    columns: nearPower(columns, 2048),
    depth: nearPower(depth, 1024),
    batches: nearPower(batches, 64),
  };
}

export function kindName({ rows, columns, depth, batches }: Extent): string {
  return `${batches > 1 ? `${batches} of ` : ""}${rows}x${depth}x${columns}`;
}
