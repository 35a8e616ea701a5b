/**
 * Measuring which tile is fastest for a kind of products, on this device, where no rule can know: how many tiles fill a
 * GPU, and how much an invocation may hold, WebGPU does not tell. A few milliseconds for each kind, once a process.
 */
import { product, type Program } from "@tiedlora/kernels";
import { productProgram } from "./example.ts";
import type { AdapterInfo } from "./open.ts";
import { type Extent, fits, kindName, kindOf, tileByRule, TILES } from "../codegen/matmul/tiles.ts";
import type { Target, Tile } from "../codegen/target.ts";

/** A program with one tile for all of its products, ready to be run. */
export interface Candidate {
  /** Runs it `times` times and resolves to the milliseconds of all. */
  run(times: number): Promise<number>;
  free(): void;
}

/** Where the contestants of one program meet: they share its memory. */
export interface TileBenchmark {
  /** Rejects where the device cannot run the program with this tile. */
  enter(tile: Tile): Promise<Candidate>;
  end(): void;
}

/** Another tile than the rule's has to be this much faster: below that it may be chance. */
const CLEARLY = 0.92;
const ROUNDS = 3;
/** A sample has as many runs as take about this long with the rule's tile, up to a limit. */
const SAMPLE_MS = 4;
const MOST_RUNS = 32;
/** More multiply-adds than these tell nothing more. */
const MOST_WORK = 2 ** 29;

/** What is known of an adapter, for as long as the process lives. */
const known = new Map<string, Map<string, Tile>>();

/** The tiles measured so far on adapters that say the same of themselves, with factors of this precision. */
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

/** What may be the tile of a kind of products, the rule's first. */
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

/** The first of `ready`, or another that is clearly faster. They take turns. */
async function fastest(ready: readonly Ready[]): Promise<Tile> {
  const [first] = ready;
  for (const { candidate } of ready) await candidate.run(1); // the first run is never like the others
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

/** Whether a product of this kind has a whole tile. */
const fillsTile = ({ rows, columns }: Extent, tile: Tile): boolean =>
  rows >= tile.rows && columns >= tile.columns;

/** A product like those of the kind that does not take long. */
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
