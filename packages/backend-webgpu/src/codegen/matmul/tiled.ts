/**
 * Matrix product by tiles in workgroup memory, for GPUs; it needs no optional feature. Every invocation computes a
 * small rectangle of the tile in registers.
 */
import type { Side, Term } from "./factors.ts";
import type { MatmulFrame } from "./frame.ts";
import { type Kernel, range, type Target, type Tile } from "../target.ts";
import { chooseTile, invocations, tileName } from "./tiles.ts";

export function tiledKernel(frame: MatmulFrame, target: Target): Kernel {
  const tile = chooseTile(frame, target);
  const tiles = frame.tiles(tile.rows, tile.columns);
  const [across, vectors] = [tile.columns / tile.own, tile.own / 4];
  const accumulators = range(tile.own).flatMap((r) => range(vectors).map((j) => `c${r}_${j}`));
  const main = [
    ...tiles.text,
    ...frame.factors.bases(),
    ...accumulators.map((c) => `var ${c} = vec4<f32>();`),
    ...frame.terms.flatMap((term) => termLoop(frame, term, tile, target)),
    ...finishAll(frame, tile, accumulators, across, vectors),
  ];
  return frame.kernel(main, {
    groups: tiles.groups,
    size: [across, tile.rows / tile.own],
    shared: [
      `var<workgroup> rowTile: array<${frame.factors.stagedType}, ${(tile.rows * tile.depth) / 4}>;`,
      `var<workgroup> columnTile: array<${frame.factors.stagedType}, ${(tile.columns * tile.depth) / 4}>;`,
    ],
    variant: `tiled ${tileName(tile)}`,
  });
}

function termLoop(frame: MatmulFrame, term: Term, tile: Tile, target: Target): string[] {
  const { own } = tile;
  const across = tile.columns / own;
  const vectors = range(own / 4);
  const factor = (from: string, lines: number, i: string): string =>
    frame.factors.unstaged(`${from}Tile[k * ${lines / 4}u + ${i}]`);
  // drivers unroll loops of constant length: good on a GPU, slow to compile on a CPU
  const depth = target.software ? `${tile.depth}u + P[0].x` : `${tile.depth}u`;
  return [
    `for (var k0 = 0u; k0 < ${frame.depthOf(term)}; k0 += ${tile.depth}u) {`,
    ...fill(
      frame,
      term.rows,
      {
        depth: frame.depthOf(term),
        tile: tile.depth,
        from: "row",
        lines: tile.rows,
        threads: invocations(tile),
      },
      vectorsTo("rowTile"),
    ),
    ...fill(
      frame,
      term.columns,
      {
        depth: frame.depthOf(term),
        tile: tile.depth,
        from: "column",
        lines: tile.columns,
        threads: invocations(tile),
      },
      vectorsTo("columnTile"),
    ),
    "  workgroupBarrier();",
    `  for (var k = 0u; k < ${depth}; k++) {`,
    ...vectors.map((j) => `    let b${j} = ${factor("column", tile.columns, `at.x + ${j * across}u`)};`),
    ...vectors.map((i) => `    let a${i} = ${factor("row", tile.rows, `at.y * ${own / 4}u + ${i}u`)};`),
    ...range(own).flatMap((r) =>
      vectors.map((j) => `    c${r}_${j} = fma(vec4<f32>(a${r >> 2}[${r & 3}]), b${j}, c${r}_${j});`),
    ),
    "  }",
    "  workgroupBarrier();",
    "}",
  ];
}

const vectorsTo =
  (tile: string) =>
  (at: string, value: string): string =>
    `${tile}[${at}] = ${value};`;

/**
 * The part of a side that is staged at a time: `lines` lines from the one that the variable `from` names, and `tile` of
 * `depth` depths.
 */
interface Fill {
  readonly from: string;
  readonly lines: number;
  readonly tile: number;
  /** An expression. */
  readonly depth: string;
  /** Invocations that share the work. */
  readonly threads: number;
}

/**
 * Statements that stage a part of a side: in each iteration, an invocation stages four lines at one depth. They need `k0` and
 * `lane`. `put` writes the vector with index `at`; vectors of one depth are consecutive. Depths beyond the last are zero.
 */
export function fill(
  frame: MatmulFrame,
  side: Side,
  { from, lines, tile, depth, threads }: Fill,
  put: (at: string, value: string) => string,
): string[] {
  const groups = lines / 4;
  // neighboring invocations read neighboring memory
  const depthFirst = side.vector !== "line" && Math.abs(side.operand.view.strides[side.depthAxis]!) === 1;
  const [k, line] = depthFirst ? [`e % ${tile}u`, `e / ${tile}u`] : [`e / ${groups}u`, `e % ${groups}u`];
  return [
    `  for (var e = lane; e < ${groups * tile}u; e += ${threads}u) {`,
    `    let k = ${k};`,
    `    let l = ${line};`,
    `    let line = ${from} + l * 4u;`,
    "    var v = vec4<f32>();",
    `    if (k0 + k < ${depth}) { v = ${frame.factors.lines(side, "line", "k0 + k")}; }`,
    `    ${put(`k * ${groups}u + l`, frame.factors.staged(side, "v"))}`,
    "  }",
  ];
}

function finishAll(
  frame: MatmulFrame,
  tile: Tile,
  accumulators: readonly string[],
  across: number,
  vectors: number,
): string[] {
  const row = (r: string): string => `row + at.y * ${tile.own}u + ${r}`;
  const column = (j: string): string => `column + (at.x + ${j} * ${across}u) * 4u`;
  if (accumulators.length <= 4) {
    return accumulators.map((c, i) =>
      frame.finish(row(`${Math.floor(i / vectors)}u`), column(`${i % vectors}u`), c),
    );
  }
  return [
    `var done: array<vec4<f32>, ${accumulators.length}>;`,
    ...accumulators.map((c, i) => `done[${i}] = ${c};`),
    `for (var i = 0u; i < ${accumulators.length}u + P[0].x; i++) {`,
    `  ${frame.finish(row(`i / ${vectors}u`), column(`(i % ${vectors}u)`), "done[i]")}`,
    "}",
  ];
}
