/**
 * One row times matrices that are read once: a workgroup computes four columns, its lanes add up parts of the depth, four
 * numbers at a time, and then one another's sums in workgroup memory.
 */
import { type Kernel, range } from "../target.ts";
import type { Side, Term } from "./factors.ts";
import type { MatmulFrame } from "./frame.ts";

const LANES = 64;
const COLUMNS = 4;

/** Whether a product has one row, and depths that are read four numbers at a time. */
export function suitsRow({ rows, terms }: MatmulFrame): boolean {
  return rows === 1 && terms.every(({ depth }) => depth % 4 === 0);
}

/** The kernel of a product that `suitsRow`. */
export function rowKernel(frame: MatmulFrame): Kernel {
  const tiles = frame.tiles(1, COLUMNS);
  const halves = range(Math.log2(LANES)).map((i) => LANES / 2 ** (i + 1));
  const main = [
    ...tiles.text,
    ...frame.factors.bases(),
    "var sum = vec4<f32>();",
    ...frame.terms.flatMap((term) => termLoop(frame, term)),
    "sums[lane] = sum;",
    "workgroupBarrier();",
    ...halves.flatMap((half) => [
      `if (lane < ${half}u) { sums[lane] += sums[lane + ${half}u]; }`,
      "workgroupBarrier();",
    ]),
    `if (lane == 0u) { ${frame.finish("0u", "column", "sums[0]")} }`,
  ];
  return frame.kernel(main, {
    groups: tiles.groups,
    size: [LANES, 1],
    shared: [`var<workgroup> sums: array<vec4<f32>, ${LANES}>;`],
    variant: "row",
  });
}

function termLoop(frame: MatmulFrame, term: Term): string[] {
  const { rows, columns } = term;
  const last = frame.factors.lastLine(columns);
  const read = (side: Side, line: string): string =>
    frame.factors.rounded(side, alongDepth(frame, side, line));
  const dots = range(COLUMNS).map((c) => `dot(x, ${read(columns, `min(column + ${c}u, ${last})`)})`);
  return [
    `for (var k = lane * 4u; k < ${frame.depthOf(term)}; k += ${4 * LANES}u) {`,
    `  let x = ${read(rows, "0u")};`,
    `  sum += vec4<f32>(${dots.join(", ")});`,
    "}",
  ];
}

/** An expression for one line at depths k to k + 3. */
export function alongDepth(frame: MatmulFrame, side: Side, line: string): string {
  if (side.vector === "depth") return frame.factors.four(side, line, "k");
  const each = range(4).map((q) => frame.factors.one(side, line, `k + ${q}u`));
  return `vec4<f32>(${each.join(", ")})`;
}
