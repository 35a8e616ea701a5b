/** Which tile a product is cut into: by rule, or by a measurement, which uses a simulated clock here. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { productProgram } from "../src/device/example.ts";
import {
  type TileBenchmark,
  exampleOf,
  fastestTile,
  kindsOf,
  tilesFor,
} from "../src/device/tile-benchmark.ts";
import type { Target, Tile } from "../src/codegen/target.ts";
import {
  chooseTile,
  type Extent,
  kindName,
  kindOf,
  tileByRule,
  tileName,
  TILES,
} from "../src/codegen/matmul/tiles.ts";
import { CARD, DEFAULT_LIMITS } from "./support/dry.ts";

const LARGE = { rows: 1024, columns: 2048, depth: 512, batches: 1 };
const named = (name: string): Tile => TILES.find((tile) => tileName(tile) === name)!;
const BIGGEST = named("128x128x8 by 8x8");

/** Candidates that take as long as `cost` says (NaN: the tile cannot run), and a record of them. */
function fake(cost: (tile: Tile) => number): {
  benchmark: TileBenchmark;
  tried: string[];
  runs: number[];
  open: () => number;
} {
  const [tried, runs]: [string[], number[]] = [[], []];
  let open = 1;
  const enter: TileBenchmark["enter"] = (tile) => {
    const ms = cost(tile);
    if (Number.isNaN(ms)) return Promise.reject(new Error("no such kernel"));
    tried.push(tileName(tile));
    open++;
    const run = (times: number): Promise<number> => {
      runs.push(times);
      return Promise.resolve(times * ms);
    };
    return Promise.resolve({ run, free: () => void open-- });
  };
  return { benchmark: { enter, end: () => void open-- }, tried, runs, open: () => open };
}

const measureTile = (kind: Extent, target: Target, benchmark: TileBenchmark): Promise<Tile> =>
  fastestTile(tilesFor(kind, target), benchmark);

test("the fastest tile is taken where it is clearly faster than the rule's", async () => {
  const rule = tileByRule(LARGE, CARD);
  for (const [ms, expected] of [
    [0.5, BIGGEST],
    [0.9, BIGGEST],
    [0.95, rule],
    [2, rule],
  ] as const) {
    const { benchmark, tried, open } = fake((tile) => (tile === BIGGEST ? ms : 1));
    assert.deepEqual(await measureTile(LARGE, CARD, benchmark), expected, `${ms}`);
    assert.equal(tried.length, TILES.length, "the rule's is one of them");
    assert.equal(new Set(tried).size, TILES.length, "each once");
    assert.equal(open(), 0, "all freed");
  }
});

test("a measurement is short: few runs of what is slow, more of what is fast, the same for all", async () => {
  for (const [ms, most] of [
    [100, 1],
    [0.001, 32],
  ] as const) {
    const { benchmark, runs } = fake(() => ms);
    await measureTile(LARGE, CARD, benchmark);
    assert.deepEqual(
      [...new Set(runs)].sort((a, b) => a - b),
      most === 1 ? [1] : [1, most],
    );
    assert.equal(runs.length, TILES.length * (1 + 3) + 1);
  }
});

test("tiles that cannot be compiled are left out; without the rule's there is nothing to compare", async () => {
  const onlyBig = fake((tile) => (tile.rows === 128 ? NaN : tile.own === 8 ? 0.5 : 1));
  assert.equal(tileName(await measureTile(LARGE, CARD, onlyBig.benchmark)), "64x64x16 by 8x8");
  assert.ok(!onlyBig.tried.includes(tileName(BIGGEST)));
  const none = fake(() => NaN);
  assert.deepEqual(await measureTile(LARGE, CARD, none.benchmark), tileByRule(LARGE, CARD));
  const failing = fake(() => Infinity);
  assert.deepEqual(await measureTile(LARGE, CARD, failing.benchmark), tileByRule(LARGE, CARD));
  assert.equal(failing.open(), 0);
});

test("only tiles that the device holds, and that the product fills, are tried", async () => {
  const small: Target = { ...DEFAULT_LIMITS, maxInvocations: 128, maxWorkgroupBytes: 8192 };
  const { benchmark, tried } = fake(() => 1);
  await measureTile(LARGE, small, benchmark);
  assert.deepEqual(tried.slice(1).sort(), ["32x32x16 by 4x4", "64x64x16 by 8x8"]);
  const narrow = fake(() => 1);
  await measureTile({ ...LARGE, columns: 64 }, CARD, narrow.benchmark);
  assert.ok(narrow.tried.length > 2 && !narrow.tried.includes(tileName(BIGGEST)), narrow.tried.join());
});

test("kinds: near lengths are one kind, small products none, and a program names each once", () => {
  const of = (rows: number, depth: number, columns: number, batches = 1): string | null => {
    const kind = kindOf({ rows, columns, depth, batches });
    return kind && kindName(kind);
  };
  assert.equal(of(1000, 400, 1500), "1024x512x2048"); // 1500 is nearer to 2048 by ratio
  assert.equal(of(1024, 384, 1536), of(1100, 400, 1600));
  assert.equal(of(50_000, 5000, 70_000), "2048x1024x2048");
  assert.equal(of(256, 64, 256, 24), "32 of 256x64x256");
  for (const small of [of(16, 512, 4096), of(4096, 8, 4096), of(64, 64, 64), of(1, 4096, 4096)])
    assert.equal(small, null);
  const huge = exampleOf({ rows: 2048, columns: 2048, depth: 1024, batches: 64 });
  assert.ok(Math.max(...huge.buffers.map(({ bytes }) => bytes)) <= 2 ** 25, "an example is not large");
  const size = { batch: 1, m: 1000, n: 1500, k: 400 };
  const [step] = productProgram(size).steps;
  const program = { ...productProgram(size), steps: [step!, step!] };
  assert.deepEqual(kindsOf(program).map(kindName), ["1024x512x2048"]);
});

test("what was measured is used for its kind alone", () => {
  const tiles = new Map([["1024x512x2048", BIGGEST]]);
  const target: Target = { ...CARD, tiles };
  assert.equal(chooseTile(LARGE, target), BIGGEST);
  assert.equal(chooseTile({ ...LARGE, rows: 900, columns: 1700 }, target), BIGGEST);
  const other = { ...LARGE, rows: 256 };
  assert.deepEqual(chooseTile(other, target), tileByRule(other, CARD));
});
