/**
 * Measures which tile is fastest for a kind of product on this device. No rule can know it, because WebGPU does not tell how
 * many tiles fill a GPU, nor how much an invocation may hold. It takes a few milliseconds for each kind, once per process.
 */
import { product, type Program } from "@tiedlora/kernels";
import { productProgram } from "./example.ts";
import type { AdapterInfo } from "./open.ts";
import { type Extent, fits, kindName, kindOf, tileByRule, TILES } from "../codegen/matmul/tiles.ts";
import type { Target, Tile } from "../codegen/target.ts";

/** A program with one tile for all of its products, ready to be run. */
export interface Candidate {
  /** Runs it `times` times and resolves to the total milliseconds. */
  run(times: number): Promise<number>;
  free(): void;
}

/** A benchmark of one program, whose candidates share the program's buffers. */
export interface TileBenchmark {
  /** Rejects where the device cannot run the program with this tile. */
  enter(tile: Tile): Promise<Candidate>;
  end(): void;
}

/**
 * Another tile replaces the rule's only if it takes less than this share of the rule's time; a smaller difference may be
 * chance.
 */
const CLEARLY = 0.92;
const ROUNDS = 3;
/** A sample has as many runs as take about this long with the rule's tile, at most MOST_RUNS. */
const SAMPLE_MS = 4;
const MOST_RUNS = 32;
/** The most multiply-adds of an example; more would tell nothing more. */
const MOST_WORK = 2 ** 29;

/** The tiles measured for each adapter, kept for as long as the process lives. */
const known = new Map<string, Map<string, Tile>>();

/**
 * The tiles measured so far on adapters that describe themselves alike, with the same precision of factors and the same
 * limits.
 */
export function measuredTiles(
  { vendor, architecture, description }: AdapterInfo,
  target: Target,
): Map<string, Tile> {
  const { matmulPrecision, f16, maxInvocations, maxWorkgroupBytes } = target;
  const abilities = [matmulPrecision, f16, maxInvocations, maxWorkgroupBytes];
  const key = JSON.stringify([vendor, architecture, description, ...abilities]);
  const found = known.get(key) ?? new Map<string, Tile>();
  known.set(key, found);
  return found;
}

/** The kinds of products in a program for which a tile has to be measured. */
export function kindsOf({ steps }: Program): Extent[] {
  const kinds = new Map<string, Extent>();
  for (const step of steps) {
    if (step.type !== "library" || step.name !== "matmul") continue;
    const { batch, m, n, k } = step.params;
    const kind = kindOf({ rows: m, columns: n, depth: Math.max(...k), batches: product(batch) });
    if (kind) kinds.set(kindName(kind), kind);
  }
  return [...kinds.values()];
}

/** The tiles to compare for a kind of product, the rule's first. */
export function tilesFor(kind: Extent, target: Target): readonly [Tile, ...Tile[]] {
  const rule = tileByRule(kind, target);
  const isRule = (t: Tile): boolean =>
    t.rows === rule.rows && t.columns === rule.columns && t.own === rule.own;
  return [rule, ...TILES.filter((t) => !isRule(t) && fits(t, target) && fillsTile(kind, t))];
}

/** The fastest of `tiles`; the first if none is clearly faster, or if nothing can be measured. */
export async function fastestTile(
  tiles: readonly [Tile, ...Tile[]],
  benchmark: TileBenchmark,
): Promise<Tile> {
  const ready: Ready[] = [];
  try {
    for (const tile of tiles) {
      const candidate = await benchmark.enter(tile).catch(() => null);
      if (candidate) ready.push({ tile, candidate });
    }
    return ready[0]?.tile === tiles[0] ? await fastest(ready) : tiles[0];
  } finally {
    for (const { candidate } of ready) candidate.free();
    benchmark.end();
  }
}

interface Ready {
  readonly tile: Tile;
  readonly candidate: Candidate;
}

/** The tile of the first candidate, or of another that is clearly faster. Candidates run in turns. */
async function fastest(ready: readonly Ready[]): Promise<Tile> {
  const [first] = ready;
  for (const { candidate } of ready) await candidate.run(1); // the first run is not representative
  const once = await first!.candidate.run(1);
  const runs = Math.max(1, Math.min(MOST_RUNS, Math.ceil(SAMPLE_MS / once)));
  const best = ready.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { candidate }] of ready.entries()) {
      best[i] = Math.min(best[i]!, await candidate.run(runs));
    }
  }
  const least = Math.min(...best);
  return least < CLEARLY * best[0]! ? ready[best.indexOf(least)]!.tile : first!.tile;
}

/** Whether a product of this kind fills at least one whole tile. */
const fillsTile = ({ rows, columns }: Extent, tile: Tile): boolean =>
  rows >= tile.rows && columns >= tile.columns;

/** A product like those of the kind, but one that does not take long. */
export function exampleOf({ rows, columns, depth, batches }: Extent): Program {
  let [batch, m, n, k] = [batches, rows, columns, depth];
  while (batch * m * n * k > MOST_WORK) {
    if (k > 64) k /= 2;
    else if (batch > 1) batch /= 2;
    else if (m > n) m /= 2;
    else n /= 2;
  }
  return productProgram({ batch, m, n, k });
}
