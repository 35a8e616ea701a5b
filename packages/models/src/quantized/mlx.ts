/** Weights as MLX quantizes them: words with the first number in the lowest bits, a scale and a bias for every group of a row. */
import type { TensorFile } from "@tiedlora/core";
import { readPatterns, readWords, refuseTensor, requireTensor } from "./fields.ts";
import { groupProblem, type QuantizedRows, type QuantizedTensor, rowsOf, type ScaleDType } from "./form.ts";

const SCALE_DTYPES: Readonly<Record<"F32" | "F16" | "BF16", ScaleDType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
};

/** The tensors beside a weight, by their names in the module. */
export const MLX_PARTS: readonly string[] = ["scales", "biases"];

/** The path of the stack that has the matrix of an expert's module; the path itself for a module that is in no stack. */
export const mlxStackOf = (path: string): string => path.replace(/\bexperts\.\d+\./, "switch_mlp.");

/** How a matrix is quantized, by the config. */
export interface MlxSettings {
  readonly bits: 4 | 8;
  readonly group: number;
}

/**
 * The matrix of the module at `path`, of which the model expects the sizes `shape`: `path.weight` as U32, `path.scales` and
 * `path.biases`. Its values are scale · q + bias in f32. Throws FormatError for parts that are missing or do not fit.
 */
export function openMlx(
  file: TensorFile,
  path: string,
  shape: readonly number[],
  { bits, group }: MlxSettings,
): QuantizedRows {
  const { rows, inputs } = rowsOf(shape);
  const names = { weight: `${path}.weight`, scales: `${path}.scales`, biases: `${path}.biases` };
  const problem = groupProblem(inputs, bits, group);
  if (problem !== null) refuseTensor(file, names.weight, problem, "a group that divides rows");
  const perRow = (inputs * bits) / 32;
  requireTensor(file, names.weight, ["U32"], rows * perRow);
  const groups = inputs / group;
  const types = ["F32", "F16", "BF16"] as const;
  const type = requireTensor(file, names.scales, types, rows * groups);
  requireTensor(file, names.biases, [type], rows * groups);
  const form = { bits, group, table: "linear", scaleDType: SCALE_DTYPES[type] } as const;
  const read = async (from: number, to: number, into?: Uint32Array): Promise<QuantizedTensor> => {
    const words = await readWords(file, names.weight, from * perRow * 4, (to - from) * perRow, into);
    const parts = (name: string): ReturnType<typeof readPatterns> =>
      readPatterns(file, name, form.scaleDType, from * groups, to * groups);
    return {
      ...form,
      shape: [to - from, inputs],
      words,
      scales: await parts(names.scales),
      biases: await parts(names.biases),
    };
  };
  return { ...form, shape, biased: true, read };
}
