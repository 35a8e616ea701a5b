/**
 * The form of quantized weights: packed whole numbers, and a scale for every group of a row. All formats are read into this one form,
 * which devices compute with. Here are the form and its exact values, not its encoders: those are nf4.ts and int8.ts.
 */
import { BYTES, decode, NF4, type TypedArray } from "@tiedlora/core";

/**
 * What a packed number q means, each product and sum rounded to f32: "linear" is scale · q + bias, "signed" is
 * scale · (q − 2^(bits−1)), "nf4" is NF4[q] · scale.
 */
export type QuantizedTable = "linear" | "signed" | "nf4";

/** The types of scales and biases: those of the checkpoint, or f32. */
export type ScaleDType = "f32" | "f16" | "bf16";

/** What is known of a quantized matrix without its numbers. */
export interface QuantizedForm {
  /** [..., out, in]; leading axes stack matrices. `in` is a multiple of `group`. */
  readonly shape: readonly number[];
  readonly bits: 4 | 8;
  /** The number of consecutive elements of a row that share a scale: a multiple of the elements of a word. */
  readonly group: number;
  readonly table: QuantizedTable;
  readonly scaleDType: ScaleDType;
}

/** A quantized matrix, or a stack of them, row-major. */
export interface QuantizedTensor extends QuantizedForm {
  /** [..., out, in · bits / 32]: the first element of a word is in its lowest bits. */
  readonly words: Uint32Array;
  /** [..., out, in / group], as stored: half precision as patterns. */
  readonly scales: TypedArray;
  /** Like `scales`, for the table "linear"; without them the biases are 0. */
  readonly biases?: TypedArray | undefined;
}

/** A quantized matrix whose rows are read, or made, a few at a time. */
export interface QuantizedRows extends QuantizedForm {
  /** Whether it has biases. */
  readonly biased: boolean;
  /** Whether the file holds other numbers, which are quantized each time they are read. */
  readonly made?: boolean;
  /**
   * Rows `from` up to, not including, `to`, of all matrices of a stack in turn: a matrix [to - from, in]. Its words are put into
   * `words` if that is given, which may be shared memory.
   */
  read(from: number, to: number, words?: Uint32Array): Promise<QuantizedTensor>;
}

/** The sixteen numbers of NF4, in f32. */
export const NF4_VALUES: Float32Array = Float32Array.from(NF4);

/** The rows of a matrix or of a stack of them, and their length. */
export function rowsOf(shape: readonly number[]): { rows: number; inputs: number } {
  return { rows: shape.slice(0, -1).reduce((a, b) => a * b, 1), inputs: shape.at(-1)! };
}

/** The numbers of elements in `words`, in `scales` and, where there are any, in `biases`. */
export function quantizedSizes({ shape, bits, group }: QuantizedForm): { words: number; scales: number } {
  const { rows, inputs } = rowsOf(shape);
  return { words: (rows * inputs * bits) / 32, scales: (rows * inputs) / group };
}

/** The bytes of a quantized matrix in memory. */
export function quantizedBytes(form: QuantizedForm & Pick<QuantizedRows, "biased">): number {
  const { words, scales } = quantizedSizes(form);
  return 4 * words + (form.biased ? 2 : 1) * BYTES[form.scaleDType] * scales;
}

/** What keeps rows of `inputs` elements from being packed in groups of `group`; null if nothing does. */
export function groupProblem(inputs: number, bits: 4 | 8, group: number): string | null {
  if (group % (32 / bits) !== 0) return `groups of ${group}, which do not fill words of 32 bits`;
  return inputs % group === 0 ? null : `rows of ${inputs} elements, which groups of ${group} do not divide`;
}

/** Throws RangeError unless sizes and arrays of a quantized matrix fit one another. */
function checkQuantized(q: QuantizedTensor): void {
  const problem = groupProblem(rowsOf(q.shape).inputs, q.bits, q.group);
  if (problem !== null)
    throw new RangeError(`a quantized matrix has ${problem}; need groups that fill words and divide rows`);
  const sizes = quantizedSizes(q);
  const check = (what: string, found: number, expected: number): void => {
    if (found !== expected) throw new RangeError(`${found} ${what} were given; a matrix [${q.shape.join(", ")}] in groups of ${q.group} needs ${expected}`); // prettier-ignore
  };
  check("words", q.words.length, sizes.words);
  check("scales", q.scales.length, sizes.scales);
  if (q.biases !== undefined) check("biases", q.biases.length, sizes.scales);
}

/** Scales or biases as numbers. */
export function widened(values: TypedArray, dtype: ScaleDType): TypedArray {
  if (dtype === "f32") return values;
  return decode(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength), dtype, values.length); // prettier-ignore
}

/** The values of a quantized matrix, row-major, exactly as its table defines them in f32. */
export function dequantize(q: QuantizedTensor): Float32Array<ArrayBuffer> {
  checkQuantized(q);
  const { bits, group, table, words } = q;
  const scales = widened(q.scales, q.scaleDType);
  const biases = q.biases && widened(q.biases, q.scaleDType);
  const values = new Float32Array(scales.length * group);
  const perWord = 32 / bits;
  const mask = 2 ** bits - 1;
  const middle = 2 ** (bits - 1);
  for (let g = 0; g < scales.length; g++) {
    const scale = scales[g]!;
    const bias = biases ? biases[g]! : 0;
    for (let i = g * group; i < (g + 1) * group; i++) {
      const code = (words[Math.floor(i / perWord)]! >>> ((i % perWord) * bits)) & mask;
      if (table === "nf4") values[i] = NF4_VALUES[code]! * scale;
      else if (table === "signed") values[i] = scale * (code - middle);
      else values[i] = biases ? Math.fround(scale * code) + bias : scale * code;
    }
  }
  return values;
}

/** Packs codes, one a byte, into words: the first into the lowest bits. */
export function packCodes(codes: Uint8Array, bits: 4 | 8): Uint32Array<ArrayBuffer> {
  if (bits === 8) return new Uint32Array(codes.slice().buffer);
  const bytes = new Uint8Array(codes.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = codes[2 * i]! | (codes[2 * i + 1]! << 4);
  return new Uint32Array(bytes.buffer);
}

/**
 * Gives each group of `values`, which begins at `begin` and whose largest magnitude is `largest`, to `encode`, which returns the group's
 * scale; returns the scales.
 */
export function encodeGroups(
  values: Float32Array,
  group: number,
  encode: (begin: number, largest: number) => number,
): Float32Array {
  return Float32Array.from({ length: values.length / group }, (_, g) => {
    let largest = 0;
    for (let i = g * group; i < (g + 1) * group; i++) largest = Math.max(largest, Math.abs(values[i]!));
    return encode(g * group, largest);
  });
}
