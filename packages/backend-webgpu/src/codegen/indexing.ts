/** Row lookups (gather) and their transpose (scatterAdd), as WGSL. */
import { isFloat, type LibraryCall, type LoopKernel, type Operand } from "@tiedlora/kernels";
import { loadFourFunction, loadFunction, storeFourFunction, storeFunction, useOf } from "./accessors.ts";
import { allOf, literal } from "./arithmetic.ts";
import { Bindings } from "./bindings.ts";
import { assemble } from "./entry.ts";
import { Helpers } from "./helpers.ts";
import { renderLoop } from "./loop.ts";
import type { Sizes } from "./sizes.ts";
import { byteExtent, narrowView } from "./space.ts";
import { ceilDiv, type Kernel, range, type Target } from "./target.ts";

type CallOf<K> = Extract<LibraryCall, { name: K }>;

/** The length of the parts of an operand's first axis that each fit a binding; the whole length if its buffer fits one. */
function partsOf(
  operand: Operand,
  lengths: readonly [number, number],
  bytes: number,
  target: Target,
): number {
  const extent = byteExtent(operand, lengths);
  if (bytes <= target.maxBindingBytes || !extent) return lengths[0];
  const perRow = (extent[1] - extent[0]) / lengths[0];
  return Math.max(1, Math.floor((target.maxBindingBytes - 2 * target.offsetAlignment) / perRow));
}

/** Consecutive ranges of at most `part` that cover `length`. */
function ranges(length: number, part: number): { start: number; count: number }[] {
  return range(ceilDiv(length, part)).map((i) => ({
    start: i * part,
    count: Math.min(part, length - i * part),
  }));
}

const from = (o: Operand, start: number): Operand => ({ ...o, view: narrowView(o.view, 0, start) });

/**
 * Each output row is written by the dispatch whose part of the table has the row that it looks up; if the table has no such
 * row, by the first dispatch.
 */
export function renderGather(
  call: CallOf<"gather">,
  bufferBytes: readonly number[],
  target: Target,
): Kernel[] {
  const { rows, cols, count } = call.params;
  const [table, index, output] = [call.inputs[0]!, call.inputs[1]!, call.outputs[0]!];
  const tableParts = ranges(rows, partsOf(table, [rows, cols], bufferBytes[table.buffer]!, target));
  const outputParts = ranges(count, partsOf(output, [count, cols], bufferBytes[output.buffer]!, target));
  return outputParts.flatMap((o) =>
    tableParts.map((t) =>
      gatherKernel(
        { table: from(table, t.start), index: from(index, o.start), output: from(output, o.start) },
        { rows, cols, count: o.count, first: t.start, part: t.count },
        bufferBytes,
        target,
      ),
    ),
  );
}

/** The shape of a gather from `part` rows of the table, starting at row `first`. */
interface GatherShape {
  readonly rows: number;
  readonly cols: number;
  readonly count: number;
  readonly first: number;
  readonly part: number;
}

function gatherKernel(
  operands: { readonly table: Operand; readonly index: Operand; readonly output: Operand },
  { rows, cols, count, first, part }: GatherShape,
  bufferBytes: readonly number[],
  target: Target,
): Kernel {
  const { table, index, output } = operands;
  const uses = [useOf(table, [part, cols], false), useOf(output, [count, cols], true)];
  const wide = uses.every((u) => u.vectorAxis !== undefined);
  const plain = wide ? uses : uses.map((u) => ({ ...u, vectorAxis: undefined }));
  const bindings = new Bindings(
    [...plain, { operand: index, write: false, lengths: [count] }],
    bufferBytes,
    target,
    new Helpers(),
  );
  const [load, store] = wide ? [loadFourFunction, storeFourFunction] : [loadFunction, storeFunction];
  const float = isFloat(table.dtype);
  const missing = float ? literal(NaN, "f32") : wide ? `vec4<${scalarOf(table)}>()` : `${scalarOf(table)}()`;
  const functions = [
    load("tableAt", table, [part, cols], bindings),
    loadFunction("indexAt", index, [count], bindings),
    store("put", output, [count, cols], bindings),
  ];
  const steps = wide ? cols / 4 : cols;
  const total = count * steps;
  const { sizes } = bindings;
  const place = rowOfPart(sizes, first);
  const main = [
    "let item = group * 64u + lane;",
    `if (item >= ${sizes.of("total", total)}) { return; }`,
    ...sizes.split(
      "item",
      [count, steps],
      (d) => ["i", "step"][d]!,
      () => "steps",
    ),
    `let c = step${wide ? " * 4u" : ""};`,
    "let row = bitcast<u32>(indexAt(i));",
    `if (${place} < ${sizes.of("part", part)}) { put(i, c, tableAt(${place}, c)); }`,
    ...(first === 0
      ? [
          `else if (row >= ${sizes.of("rows", rows)}) { put(i, c, ${float && wide ? `vec4<f32>(${missing})` : missing}); }`,
        ]
      : []),
  ];
  const label = `gather ${count} of [${rows},${cols}]`;
  return assemble({ label, groups: ceilDiv(total, 64), size: [64, 1], functions, main }, bindings, target);
}

/** The expression for `row`, counted from the first row of a part. */
function rowOfPart(sizes: Sizes, first: number): string {
  return first === 0 ? "row" : `row - ${sizes.of("first row", first)}`;
}

function scalarOf({ dtype }: Operand): string {
  return isFloat(dtype) ? "f32" : dtype;
}

/** Lanes of a scatter-add's workgroup, and positions whose indices they compare at a time. */
const LANES = 32;
const BATCH = 4 * LANES;

/**
 * Writes zeros, then runs one workgroup per position and block of columns. If no earlier position has the same index, the
 * workgroup adds up all positions that have it, in order. Every output row thus has one owner, and its sum has one order.
 */
export function renderScatterAdd(
  call: CallOf<"scatterAdd">,
  bufferBytes: readonly number[],
  target: Target,
): Kernel[] {
  const { rows, cols } = call.params;
  const output = call.outputs[0]!;
  const zero: LoopKernel = {
    type: "loop",
    outer: [rows, cols],
    inner: [],
    body: [{ op: "const", value: 0, dtype: "f32" }],
    stores: [{ to: output, value: 0 }],
  };
  const parts = ranges(rows, partsOf(output, [rows, cols], bufferBytes[output.buffer]!, target));
  return [
    ...renderLoop(zero, bufferBytes, target),
    ...parts.map(({ start, count }) =>
      scatterKernel(call, from(output, start), { first: start, part: count }, bufferBytes, target),
    ),
  ];
}

function scatterKernel(
  call: CallOf<"scatterAdd">,
  output: Operand,
  { first, part }: { readonly first: number; readonly part: number },
  bufferBytes: readonly number[],
  target: Target,
): Kernel {
  const { rows, cols, count } = call.params;
  const [index, values] = [call.inputs[0]!, call.inputs[1]!];
  const bindings = new Bindings(
    [
      useOf(output, [part, cols], true),
      useOf(values, [count, cols], false),
      { operand: index, write: false, lengths: [count] },
    ],
    bufferBytes,
    target,
    new Helpers(),
  );
  const held = Math.min(4, ceilDiv(cols, 4 * LANES));
  const blocks = ceilDiv(cols, 4 * LANES * held);
  const { sizes } = bindings;
  const [positions, width] = [sizes.of("count", count), sizes.of("columns", cols)];
  const place = rowOfPart(sizes, first);
  const column = (h: number): string => `column + ${h * 4 * LANES}u`;
  const main = [
    ...sizes.split(
      "group",
      [count, blocks],
      (d) => ["i", "block"][d]!,
      () => "blocks",
    ),
    `let column = block * ${4 * LANES * held}u + lane * 4u;`,
    "let row = bitcast<u32>(indexAt(i));",
    "var owner = true;",
    ...range(held).map((h) => `var sum${h} = vec4<f32>();`),
    `for (var start = 0u; start < ${positions}; start += ${BATCH}u) {`,
    "  if (lane < 4u) { atomicStore(&matches[lane], 0u); }",
    "  workgroupBarrier();",
    "  for (var q = 0u; q < 4u + P[0].x; q++) {",
    `    let j = start + q * ${LANES}u + lane;`,
    `    if (${allOf([`j < ${positions}`, "bitcast<u32>(indexAt(j)) == row"])}) { atomicOr(&matches[q], 1u << lane); }`,
    "  }",
    "  workgroupBarrier();",
    "  for (var q = 0u; q < 4u + P[0].x; q++) {",
    "    for (var mask = atomicLoad(&matches[q]); mask != 0u; mask &= mask - 1u) {",
    `      let j = start + q * ${LANES}u + firstTrailingBit(mask);`,
    "      owner = owner & (j >= i);",
    "      if (!owner) { break; }",
    ...range(held).map((h) => `      if (${column(h)} < ${width}) { sum${h} += valuesAt(j, ${column(h)}); }`),
    "    }",
    "  }",
    "  workgroupBarrier();",
    "}",
    `if (${allOf(["owner", `${place} < ${sizes.of("part", part)}`])}) {`,
    ...range(held).map((h) => `  if (${column(h)} < ${width}) { put(${place}, ${column(h)}, sum${h}); }`),
    "}",
  ];
  return assemble(
    {
      label: `scatterAdd ${count} into [${rows},${cols}]`,
      groups: count * blocks,
      size: [LANES, 1],
      shared: ["var<workgroup> matches: array<atomic<u32>, 4>;"],
      functions: [
        loadFunction("indexAt", index, [count], bindings),
        loadFourFunction("valuesAt", values, [count, cols], bindings),
        storeFourFunction("put", output, [part, cols], bindings),
      ],
      main,
    },
    bindings,
    target,
  );
}
