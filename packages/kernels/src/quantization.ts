/**
 * Quantized weights: numbers stored as codes of a few bits, in groups of neighbors that share a scale. This file says what a code
 * means; which kernels read such weights is up to a backend.
 */
import { type DType, isFloat } from "./dtype.ts";

/** What a code q stands for: q itself, q - 2^(bits - 1), or one of the sixteen numbers of NF4 (4 bits only). */
export type CodeTable = "linear" | "signed" | "nf4";

/**
 * How a weight [..., out, in] is stored. Its codes, in row-major order, are packed into u32 words, the first code in the least
 * significant bits. Each `group` consecutive codes have one scale and, optionally, one bias: a number is
 * `code · scale + bias`, the product and the sum each rounded to f32.
 */
export interface Quantization {
  readonly bits: 4 | 8;
  /** Divides `in`, and is a multiple of 32 / bits, so that all codes of a word belong to one group. */
  readonly group: number;
  readonly table: CodeTable;
}

/** NF4 (Dettmers et al., "QLoRA", 2023): the quantiles of a normal distribution, scaled to -1 … 1, as bitsandbytes rounds them. */
export const NF4: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
]; // prettier-ignore

/** The number that the code `q` stands for, before it is scaled. */
export function codeValue({ bits, table }: Quantization, q: number): number {
  if (table === "nf4") return NF4[q]!;
  return table === "signed" ? q - 2 ** (bits - 1) : q;
}

const TABLES: readonly CodeTable[] = ["linear", "signed", "nf4"];

function checkCodes(what: string, { bits, table }: Quantization): void {
  if (bits !== 4 && bits !== 8)
    throw new RangeError(`${what}: ${String(bits)} bits were given; codes have 4 or 8`);
  if (!TABLES.includes(table) || (table === "nf4" && bits !== 4))
    throw new RangeError(
      `${what}: there is no table "${table}" for codes of ${bits} bits; use "linear", "signed" or, with 4 bits, "nf4"`,
    );
}

/** Throws an error that names `what`, unless weights of rows of `columns` numbers can be stored in this way. */
export function checkQuantization(what: string, how: Quantization, columns: number): void {
  checkCodes(what, how);
  const { bits, group } = how;
  const least = 32 / bits;
  if (!Number.isInteger(group) || group < least || group % least !== 0 || columns % group !== 0)
    throw new RangeError(
      `${what}: groups of ${String(group)} do not fit rows of ${columns} numbers of ${bits} bits; give a multiple of ${least} that divides ${columns}`,
    );
}

/** The shape and the element type of a part of a quantized weight. */
export interface Part {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** The shape [..., out, in] of a weight of such words, scales and biases; throws an error that names `what` if they do not fit. */
export function checkQuantized(
  what: string,
  how: Quantization,
  words: Part,
  scales: Part,
  ...biases: Part[]
): number[] {
  const show = ({ dtype, shape }: Part): string => `${dtype} [${shape.join(", ")}]`;
  checkCodes(what, how);
  const perWord = 32 / how.bits;
  if (words.dtype !== "u32" || words.shape.length < 2)
    throw new TypeError(`${what}: the words are ${show(words)}; give u32 [..., out, in / ${perWord}]`);
  const rows = words.shape.slice(0, -1);
  const columns = words.shape.at(-1)! * perWord;
  checkQuantization(what, how, columns);
  const { dtype } = scales;
  const fitting = show({ dtype, shape: [...rows, columns / how.group] });
  for (const [i, part] of [scales, ...biases].entries())
    if (show(part) !== fitting || !isFloat(dtype) || dtype === "f64")
      throw new TypeError(
        `${what}: the ${i === 0 ? "scales" : "biases"} are ${show(part)}; ${show(words)} of ${how.bits} bits in groups of ${how.group} take ${fitting}, where the type is f32, f16 or bf16`,
      );
  return [...rows, columns];
}
