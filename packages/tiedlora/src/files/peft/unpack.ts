/**
 * Unpacks a VeRA file of this library whose pair A, B was packed from several pairs (vera.ts): each block becomes a pair of its
 * own, tied over its modules. The values, and the order of summation, are then those of the adapter that was written.
 */
import { describeValue, FormatError, isRecord, parseJson, type TensorFile } from "@tiedlora/core";
import type { Adapter } from "../../adapter/adapter.ts";
import type { CommonOptions, PlainMethod } from "../../method.ts";
import { methods } from "../../methods/index.ts";
import { PREFIX, type Wanted } from "./keys.ts";
import { BLOCKS, type PackedBlock } from "./vera.ts";

/** The blocks that a file's metadata lists; null if it lists none. Throws FormatError if they do not fit the config. */
export function readBlocks(file: TensorFile, rank: number, targets: readonly string[]): PackedBlock[] | null {
  const text = file.metadata.get(BLOCKS);
  if (text === undefined) return null;
  const list = parseJson(text, file.name, 4);
  const valid = Array.isArray(list) && list.every(isBlock);
  const blocks = valid ? list : [];
  const modules = blocks.flatMap((block) => block.modules);
  const total = blocks.reduce((sum, block) => sum + block.rank, 0);
  const complete = modules.length === targets.length && targets.every((path) => modules.includes(path));
  if (valid && total === rank && complete) return blocks;
  throw new FormatError({
    file: file.name,
    tensor: BLOCKS,
    found: valid ? `ranks that sum to ${total}, and ${modules.length} modules` : describeValue(list),
    expected: `parts of ranks that sum to ${rank}, for the ${targets.length} modules of the config`,
    hint: "The metadata does not describe these tensors: remove it, and the file is read as plain VeRA.",
  });
}

function isBlock(value: unknown): value is PackedBlock {
  if (!isRecord(value)) return false;
  const { a, rank, modules } = value;
  const whole = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
  return whole(a) && whole(rank) && Array.isArray(modules) && modules.every((one) => typeof one === "string");
}

/** The method of an adapter of several pairs: A and B frozen, as in VeRA. */
export function unpackedMethod(blocks: readonly PackedBlock[], common: CommonOptions): PlainMethod {
  const byA = new Map<number, string[]>();
  for (const { a, modules } of blocks) byA.set(a, [...(byA.get(a) ?? []), ...modules]);
  const ranks = blocks.flatMap(({ rank, modules }) =>
    modules.map((path): [string, number] => [exactly(path), rank]),
  );
  return methods.vera({
    ...common,
    rank: blocks[0]!.rank,
    rankPattern: Object.fromEntries(ranks),
    alphaPattern: Object.fromEntries(ranks), // so that the scale is 1: it is already in v
    tied: { A: { groups: [...byA.values()] }, B: { groups: blocks.map(({ modules }) => modules) } },
  });
}

const exactly = (path: string): string => `^${path.replaceAll(".", "\\.")}$`;

/** The tensors of the file, each divided among the parameters of its blocks; `file` is the file's name in messages. */
export function unpackedTensors(adapter: Adapter, blocks: readonly PackedBlock[], file: string): Wanted[] {
  const layers = new Map([...adapter.layers()].map(([, layer]) => [layer.member.path, layer]));
  const parts = blocks.map(({ rank, modules }, i) => {
    const [A, B] = ["A", "B"].map((factor) => layers.get(modules[0]!)!.parameter(factor)!);
    return { rank, modules, A: A!, B: B!, start: blocks.slice(0, i).reduce((sum, one) => sum + one.rank, 0) };
  });
  const total = parts.reduce((sum, { rank }) => sum + rank, 0);
  const width = Math.max(...parts.map(({ A }) => A.shape[1]!));
  const height = Math.max(...parts.map(({ B }) => B.shape[0]!));
  const setA = (values: Float32Array): void => {
    for (const { A, start } of parts) A.set(window(values, width, start, 0, A.shape));
  };
  const setB = (values: Float32Array): void => {
    for (const { B, start } of parts) B.set(window(values, total, 0, start, B.shape));
  };
  const vectors = parts.flatMap(({ rank, start, modules }) =>
    modules.flatMap((path): Wanted[] => {
      const [u, v] = ["u", "v"].map((factor) => layers.get(path)!.parameter(factor)!);
      const setU = (values: Float32Array): void => {
        if (values.some((value, i) => value !== 0 && (i < start || i >= start + rank)))
          throw notApart(file, `${path}.vera_lambda_d`);
        u!.set(values.slice(start, start + rank));
      };
      return [
        { names: [`${PREFIX}${path}.vera_lambda_d`], shape: [total], set: setU },
        { names: [`${PREFIX}${path}.vera_lambda_b`], shape: v!.shape, set: (values) => v!.set(values) },
      ];
    }),
  );
  return [
    { names: ["base_model.vera_A"], shape: [total, width], set: setA },
    { names: ["base_model.vera_B"], shape: [height, total], set: setB },
    ...vectors,
  ];
}

function notApart(file: string, tensor: string): FormatError {
  return new FormatError({
    file,
    tensor,
    found: "values outside of the module's own part",
    expected: "zeros there, as the metadata says",
    hint: `The tensors were trained on: remove "${BLOCKS}" from the metadata, and they are read as plain VeRA.`,
  });
}

/** The submatrix of shape [height, width] that begins at `row` and `column` of a row-major matrix with `columns` columns. */
function window(
  values: Float32Array,
  columns: number,
  row: number,
  column: number,
  [height = 0, width = 0]: readonly number[],
): Float32Array {
  return Float32Array.from({ length: height * width }, (_, i) => {
    return values[(row + Math.floor(i / width)) * columns + column + (i % width)]!;
  });
}
