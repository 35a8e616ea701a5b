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
  const [rowTiles, columnTiles] = [ceilDiv(frame.rows, tile.rows), ceilDiv(frame.columns, tile.columns)];
  const rows = range(tile.rows);
  const main = [
    `let b = group / ${rowTiles * columnTiles}u;`,
    `let row = ((group / ${columnTiles}u) % ${rowTiles}u) * ${tile.rows}u;`,
    `let column = (group % ${columnTiles}u) * ${tile.columns}u + lane * 4u;`,
    ...frame.factors.bases(),
    ...range(held).map((i) => `let row${i} = min(row + lane + ${i * S}u, ${frame.rows - 1}u);`),
    ...rows.map((r) => `var c${r} = vec4<f32>();`),
    ...frame.terms.flatMap((term) => termLoops(frame, term, held, S)),
    `var done: array<vec4<f32>, ${tile.rows}>;`,
    ...rows.map((r) => `done[${r}] = c${r};`),
    `for (var r = 0u; r < ${tile.rows}u + P[0].x; r++) { ${frame.finish("row + r", "column", "done[r]")} }`,
  ];
  return frame.kernel(main, {
    groups: frame.batches * rowTiles * columnTiles,
    size: [S, 1],
    shared: [],
    directives: ["enable subgroups;"],
    variant: `subgroup ${tile.rows}x${tile.columns}`,
  });
}

/** Loops over the depth of a term: four depths at a time, then the remaining ones one at a time. */
function termLoops(frame: MatmulFrame, term: Term, held: number, S: number): string[] {
  const whole = Math.floor(term.depth / 4) * 4;
  const lines: string[] = [];
  if (whole > 0) {
    lines.push(
      `for (var k = 0u; k < ${whole}u + P[0].x; k += 4u) {`,
      ...range(held).map(
        (i) => `  let a${i} = ${frame.factors.rounded(term.rows, alongDepth(frame, term.rows, `row${i}`))};`,
      ),
      ...columnsByDepth(frame, term.columns).map((l) => `  ${l}`),
      ...range(held * S).map((r) => `  ${accumulate(r, S, (i, q) => `a${i}[${q}]`, 4)}`),
      "}",
    );
  }
  if (whole < term.depth) {
    lines.push(
      `for (var k = ${whole}u; k < ${term.depth}u + P[0].x; k++) {`,
      ...range(held).map(
        (i) =>
          `  let a${i} = ${frame.factors.rounded(term.rows, frame.factors.one(term.rows, `row${i}`, "k"), 1)};`,
      ),
      `  let b0 = ${frame.factors.rounded(term.columns, frame.factors.lines(term.columns, "column", "k"))};`,
      ...range(held * S).map((r) => `  ${accumulate(r, S, (i) => `a${i}`, 1)}`),
      "}",
    );
  }
  return lines;
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
      (q) => `let b${q} = ${frame.factors.rounded(side, frame.factors.lines(side, "column", `k + ${q}u`))};`,
    );
  const last = side.lengths[side.lineAxis]! - 1;
  return [
    ...range(4).map(
      (c) =>
        `let t${c} = ${frame.factors.rounded(side, frame.factors.four(side, `min(column + ${c}u, ${last}u)`, "k"))};`,
    ),
    ...range(4).map((q) => `let b${q} = vec4<f32>(t0[${q}], t1[${q}], t2[${q}], t3[${q}]);`),
  ];
}
