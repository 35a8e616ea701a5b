/** Quantizes a matrix of a file while it is read, a few rows at a time. */
import { decodeF32, FILE_DTYPE_BYTES, type FileDType, FormatError, type TensorFile } from "@tiedlora/core";
import { groupProblem, type QuantizedForm, type QuantizedRows, type QuantizedTensor, rowsOf } from "./form.ts"; // prettier-ignore
import { quantizeInt8 } from "./int8.ts";
import { quantizeNf4 } from "./nf4.ts";

/** How weights can be quantized while they are loaded: linears alone, or linears in one form, and embedding and head in another. */
export type QuantizeKind = "nf4" | "int8" | "nf4+int8";

/** All of them, for flags and messages. */
export const QUANTIZE_KINDS: readonly QuantizeKind[] = ["nf4", "int8", "nf4+int8"];

/** The form of a quantized matrix. */
type Form = "nf4" | "int8";

/** The forms of linears in layers, and of the embedding and the output embedding, which null leaves as they are. */
export const FORMS: {
  readonly [K in QuantizeKind]: { readonly linear: Form; readonly embedding: Form | null };
} = {
  nf4: { linear: "nf4", embedding: null },
  int8: { linear: "int8", embedding: null },
  "nf4+int8": { linear: "nf4", embedding: "int8" },
};

type Encoder = (values: Float32Array, shape: readonly number[], group: number) => QuantizedTensor;

const ENCODERS: {
  readonly [K in Form]: Pick<QuantizedForm, "bits" | "table"> & { readonly encode: Encoder };
} = {
  nf4: { bits: 4, table: "nf4", encode: quantizeNf4 },
  int8: { bits: 8, table: "signed", encode: quantizeInt8 },
};

/** Lengths of groups, the preferred one first. */
const GROUPS = [64, 32];

/** The group for rows of `inputs` elements; null if none divides them, so that the matrix stays as it is. */
export function groupFor(inputs: number, form: Form): number | null {
  return GROUPS.find((group) => groupProblem(inputs, ENCODERS[form].bits, group) === null) ?? null;
}

/** The rows of the float matrix `tensor`, quantized as they are read. Reading throws FormatError where a value is not finite. */
export function quantizedWhileRead(
  file: TensorFile,
  tensor: string,
  shape: readonly number[],
  form: Form,
  group: number,
): QuantizedRows {
  const { bits, table, encode } = ENCODERS[form];
  const { inputs } = rowsOf(shape);
  const { dtype } = file.entries.get(tensor)!;
  const read = async (from: number, to: number, into?: Uint32Array): Promise<QuantizedTensor> => {
    const rows = [to - from, inputs];
    const q = encode(await readFloats(file, tensor, dtype, from * inputs, to * inputs), rows, group);
    into?.set(q.words);
    if (q.scales.every(Number.isFinite)) return { ...q, words: into ?? q.words };
    throw new FormatError({
      file: file.name,
      tensor,
      found: "a value that is not finite",
      expected: "numbers that can be quantized",
    });
  };
  return { shape, bits, group, table, scaleDType: "f32", biased: false, made: true, read };
}

/** The same rows; what has been read once is kept packed in memory, since quantizing takes longer than computing with the result. */
export function kept(rows: QuantizedRows): QuantizedRows {
  const known = new Map<number, QuantizedTensor>();
  const read: QuantizedRows["read"] = async (from, to, into) => {
    const found = known.get(from);
    const q = found?.shape[0] === to - from ? found : await rows.read(from, to);
    known.set(from, q);
    into?.set(q.words);
    return into ? { ...q, words: into } : q;
  };
  return { ...rows, read };
}

async function readFloats(
  file: TensorFile,
  tensor: string,
  dtype: FileDType,
  from: number,
  to: number,
): Promise<Float32Array> {
  const width = FILE_DTYPE_BYTES[dtype];
  const bytes = await file.readBytes(tensor, from * width, (to - from) * width);
  return decodeF32({ dtype, shape: [to - from], bytes }, file.name, tensor);
}
