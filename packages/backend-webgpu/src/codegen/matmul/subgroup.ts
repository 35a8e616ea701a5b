/**
 * Matrix product by subgroup broadcasts, for adapters that compute on the CPU: there a memory instruction costs far
 * more than arithmetic, and workgroup memory more than storage. A workgroup is one subgroup of S lanes. Lane l holds
 * rows l, l + S, … of the tile, hands each value to all lanes by broadcast, and owns four columns.
 */
import type { Side, Term } from "./factors.ts";
import type { MatmulFrame } from "./frame.ts";
import { alongDepth } from "./row.ts";
import { ceilDiv, type Kernel, range, type Target } from "../target.ts";

export function subgroupKernel(frame: MatmulFrame, target: Target): Kernel {
  const S = target.subgroup;
  // registers hold 32 accumulators of four columns each
  const held = Math.min(Math.max(1, 32 / S), 2 ** Math.ceil(Math.log2(ceilDiv(frame.rows, S))));
  const tile = { rows: held * S, columns: 4 * S };
  const tiles = frame.tiles(tile.rows, tile.columns);
  const lastRow = frame.sizes.of("last row", frame.rows - 1);
  const rows = range(tile.rows);
  const main = [
    ...tiles.text,
    "let own = column + lane * 4u;",
    ...frame.factors.bases(),
    ...range(held).map((i) => `let row${i} = min(row + lane + ${i * S}u, ${lastRow});`),
    ...rows.map((r) => `var c${r} = vec4<f32>();`),
    ...frame.terms.flatMap((term) => termLoops(frame, term, held, S)),
    `var done: array<vec4<f32>, ${tile.rows}>;`,
    ...rows.map((r) => `done[${r}] = c${r};`),
    `for (var r = 0u; r < ${tile.rows}u + P[0].x; r++) { ${frame.finish("row + r", "own", "done[r]")} }`,
  ];
  return frame.kernel(main, {
    groups: tiles.groups,
    size: [S, 1],
    shared: [],
    directives: ["enable subgroups;"],
    variant: `subgroup ${tile.rows}x${tile.columns}`,
  });
}

/** Loops over the depth of a term: four depths at a time, then the remaining ones one at a time. */
function termLoops(frame: MatmulFrame, term: Term, held: number, S: number): string[] {
  const whole = Math.floor(term.depth / 4) * 4;
  const end = frame.sizes.steps(`whole depth${frame.terms.indexOf(term)}`, whole);
  const lines = [
    `for (var k = 0u; k < ${end}; k += 4u) {`,
    ...range(held).map(
      (i) => `  let a${i} = ${frame.factors.rounded(term.rows, alongDepth(frame, term.rows, `row${i}`))};`,
    ),
    ...columnsByDepth(frame, term.columns).map((l) => `  ${l}`),
    ...accumulateAll(held, S, 4),
    "}",
  ];
  if (whole < term.depth) {
    lines.push(
      `for (var k = ${end}; k < ${frame.depthOf(term)}; k++) {`,
      ...range(held).map(
        (i) =>
          `  let a${i} = ${frame.factors.rounded(term.rows, frame.factors.one(term.rows, `row${i}`, "k"), 1)};`,
      ),
      `  let b0 = ${frame.factors.rounded(term.columns, frame.factors.lines(term.columns, "own", "k"))};`,
      ...accumulateAll(held, S, 1),
      "}",
    );
  }
  return lines;
}

/** The statements of `accumulate` for all rows of a tile: by the number of vectors of rows, the lanes, and the depths. */
const accumulations = new Map<string, readonly string[]>();

/** Statements that accumulate a tile of `held` × `S` rows over four depths, or over one. */
function accumulateAll(held: number, S: number, depths: 1 | 4): readonly string[] {
  const key = `${held} ${S} ${depths}`;
  let all = accumulations.get(key);
  if (all === undefined) {
    const value = (i: number, q: number): string => (depths === 1 ? `a${i}` : `a${i}[${q}]`);
    all = range(held * S).map((r) => `  ${accumulate(r, S, value, depths)}`);
    accumulations.set(key, all);
  }
  return all;
}

/** Accumulates row r of the tile over `depths` depths. The row is outermost, so that its accumulator stays in a register. */
function accumulate(r: number, S: number, value: (i: number, q: number) => string, depths: number): string {
  const terms = range(depths).map(
    (q) =>
      `c${r} = fma(vec4<f32>(subgroupBroadcast(${value(Math.floor(r / S), q)}, ${r % S}u)), b${q}, c${r});`,
  );
  return terms.join(" ");
}

/** Statements that define b0 … b3: four columns at depths k to k + 3. */
function columnsByDepth(frame: MatmulFrame, side: Side): string[] {
  if (side.vector !== "depth")
    return range(4).map(
      (q) => `let b${q} = ${frame.factors.rounded(side, frame.factors.lines(side, "own", `k + ${q}u`))};`,
    );
  const last = frame.factors.lastLine(side);
  return [
    ...range(4).map(
      (c) =>
        `let t${c} = ${frame.factors.rounded(side, frame.factors.four(side, `min(own + ${c}u, ${last})`, "k"))};`,
    ),
    ...range(4).map((q) => `let b${q} = vec4<f32>(t0[${q}], t1[${q}], t2[${q}], t3[${q}]);`),
  ];
}
