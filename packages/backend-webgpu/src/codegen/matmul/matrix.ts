/**
 * Matrix product by subgroup matrices (tensor cores), an experimental extension of WGSL. Factors are f16, read from tiles in
 * workgroup memory; sums are f32. Four subgroups share a tile; the matrices of each hold a quarter of it.
 */
import type { Term } from "./factors.ts";
import type { MatmulFrame } from "./frame.ts";
import { fill } from "./tiled.ts";
import { type Kernel, type MatrixShape, range, type Target } from "../target.ts";

/** Rows and columns of the tile, its depth, and the rows and columns of one subgroup. */
const [TILE, DEPTH, OWN] = [64, 32, 32];
const ACROSS = TILE / OWN;
const SUBGROUPS = ACROSS ** 2;

/** Whether matrices of this shape divide the part of a tile that one subgroup computes. */
export const dividesTile = ({ m, n, k }: MatrixShape): boolean =>
  OWN % m === 0 && OWN % n === 0 && n % 4 === 0 && DEPTH % k === 0;

/** Whether the device multiplies matrices by subgroups, and the product is large enough to fill the part of one subgroup. */
export function suitsMatrix(frame: MatmulFrame, target: Target): boolean {
  const { matrix, subgroup, maxInvocations, maxWorkgroupBytes } = target;
  if (!matrix || subgroup === 0 || SUBGROUPS * subgroup > maxInvocations) return false;
  if (workgroupBytes(matrix) > maxWorkgroupBytes) return false;
  return Math.min(frame.rows, frame.columns) >= OWN && frame.depth >= DEPTH / 2;
}

/** Bytes of workgroup memory: two tiles of f16, and one result of each subgroup. */
const workgroupBytes = ({ m, n }: MatrixShape): number => 2 * (2 * TILE * DEPTH) + SUBGROUPS * 4 * m * n;

/** The kernel of a product that `suitsMatrix`. */
export function matrixKernel(frame: MatmulFrame, target: Target): Kernel {
  const shape = target.matrix!;
  const threads = SUBGROUPS * target.subgroup;
  const tiles = frame.tiles(TILE, TILE);
  const matrices = range(OWN / shape.m).flatMap((i) => range(OWN / shape.n).map((j) => ({ i, j })));
  const main = [
    ...tiles.text,
    `let partRow = (part / ${ACROSS}u) * ${OWN}u;`,
    `let partColumn = (part % ${ACROSS}u) * ${OWN}u;`,
    ...frame.factors.bases(),
    ...matrices.map(({ i, j }) => `var c${i}_${j}: subgroup_matrix_result<f32, ${shape.n}, ${shape.m}>;`),
    ...frame.terms.flatMap((term) => termLoop(frame, term, shape, threads)),
    ...matrices.flatMap(({ i, j }) => finish(frame, shape, threads, i, j)),
  ];
  return frame.kernel(main, {
    groups: tiles.groups,
    size: [threads, 1],
    shared: [
      `var<workgroup> rowTile: array<f16, ${TILE * DEPTH}>;`,
      `var<workgroup> columnTile: array<f16, ${TILE * DEPTH}>;`,
      `var<workgroup> results: array<f32, ${SUBGROUPS * shape.m * shape.n}>;`,
    ],
    directives: [
      "enable subgroups;",
      "enable chromium_experimental_subgroup_matrix;",
      "requires subgroup_id;",
    ],
    // all lanes of a subgroup must see the same part, and the compiler must be able to see that they do
    parameters: ["@builtin(subgroup_id) part: u32"],
    variant: `matrix ${shape.m}x${shape.n}x${shape.k}`,
  });
}

function termLoop(frame: MatmulFrame, term: Term, { m, n, k }: MatrixShape, threads: number): string[] {
  const depth = frame.depthOf(term);
  const halves =
    (to: string) =>
    (at: string, value: string): string =>
      `let h = ${value}; let to = (${at}) * 4u; ${range(4)
        .map((c) => `${to}[to + ${c}u] = h[${c}];`)
        .join(" ")}`;
  const what = { lines: TILE, tile: DEPTH, depth, threads };
  // in both tiles, the lines of one depth are consecutive
  const at = (part: string, from: number): string => `k * ${TILE}u + ${part} + ${from}u, ${TILE}u`;
  const [left, right] = [range(OWN / m), range(OWN / n)];
  return [
    `for (var k0 = 0u; k0 < ${depth}; k0 += ${DEPTH}u) {`,
    ...fill(frame, term.rows, { ...what, from: "row" }, halves("rowTile")),
    ...fill(frame, term.columns, { ...what, from: "column" }, halves("columnTile")),
    "  workgroupBarrier();",
    `  for (var k = 0u; k < ${DEPTH}u; k += ${k}u) {`,
    ...left.map(
      (i) =>
        `    let a${i} = subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, col_major>(&rowTile, ${at("partRow", i * m)});`,
    ),
    ...right.map(
      (j) =>
        `    let b${j} = subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, row_major>(&columnTile, ${at("partColumn", j * n)});`,
    ),
    ...left.flatMap((i) =>
      right.map((j) => `    c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`),
    ),
    "  }",
    "  workgroupBarrier();",
    "}",
  ];
}

/**
 * Statements that store result (i, j) of every subgroup in workgroup memory, one after another, and let all lanes finish
 * them, four columns at a time.
 */
function finish(frame: MatmulFrame, { m, n }: MatrixShape, threads: number, i: number, j: number): string[] {
  const quarters = (m * n) / 4;
  const value = range(4).map((c) => `results[4u * e + ${c}u]`);
  const row = `row + (quarter / ${ACROSS}u) * ${OWN}u + ${i * m}u + (e % ${quarters}u) / ${n / 4}u`;
  const column = `column + (quarter % ${ACROSS}u) * ${OWN}u + ${j * n}u + (e % ${n / 4}u) * 4u`;
  return [
    `subgroupMatrixStore<row_major>(&results, part * ${m * n}u, c${i}_${j}, ${n}u);`,
    "workgroupBarrier();",
    `for (var e = lane; e < ${SUBGROUPS * quarters}u + P[0].x; e += ${threads}u) {`,
    `  let quarter = e / ${quarters}u;`,
    `  ${frame.finish(row, column, `vec4<f32>(${value.join(", ")})`)}`,
    "}",
    "workgroupBarrier();",
  ];
}
