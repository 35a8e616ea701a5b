/**
 * NF4 weights as bitsandbytes stores them: codes two a byte with the first in the high bits, blocks along the flattened matrix, and
 * their largest magnitudes in f32 or, where they are nested, themselves as bytes of a second table.
 */
import { describeValue, parseJsonObject, type TensorFile } from "@tiedlora/core";
import { decodeText, readF32, readWords, refuseTensor, requireTensor } from "./fields.ts";
import { groupProblem, NF4_VALUES, type QuantizedRows, type QuantizedTensor, rowsOf } from "./form.ts";

const STATE = "quant_state.bitsandbytes__nf4";

/** The tensors beside a weight, by the ends of their names. */
export const BITSANDBYTES_PARTS: readonly string[] = [
  "absmax",
  "quant_map",
  "nested_absmax",
  "nested_quant_map",
  STATE,
];

/** The description beside a weight has a few fields; one of more bytes than this is none. */
const MAX_STATE_BYTES = 65_536;

/** How the scales are nested: a table of 256 numbers, the number of scales that share a factor, and what is added to all. */
interface Nesting {
  readonly table: Float32Array;
  readonly block: number;
  readonly factors: Float32Array;
  readonly offset: number;
}

/**
 * The weight `name`, of which the model expects the sizes `shape`. The scales of nested weights become f32: table[a] · factor + offset.
 * Throws FormatError for parts that are missing or do not fit, for other tables than NF4's, and for blocks that cross rows.
 */
export async function openBitsandbytes(
  file: TensorFile,
  name: string,
  shape: readonly number[],
): Promise<QuantizedRows> {
  const { rows, inputs } = rowsOf(shape);
  const state = await readState(file, name);
  const blocksize = checkState(state, file, name, shape);
  requireTensor(file, name, ["U8"], (rows * inputs) / 2);
  await checkTable(file, `${name}.quant_map`);
  const blocks = (rows * inputs) / blocksize;
  const nesting =
    requireTensor(file, `${name}.absmax`, ["F32", "U8"], blocks) === "F32"
      ? null
      : await readNesting(state, file, name, blocks);
  const form = { bits: 4, group: blocksize, table: "nf4", scaleDType: "f32" } as const;
  const read = async (from: number, to: number, into?: Uint32Array): Promise<QuantizedTensor> => {
    const words = await readWords(file, name, (from * inputs) / 2, ((to - from) * inputs) / 8, into);
    swapNibbles(words);
    const [first, last] = [(from * inputs) / blocksize, (to * inputs) / blocksize];
    const scales = await readScales(file, `${name}.absmax`, nesting, first, last);
    return { ...form, shape: [to - from, inputs], words, scales };
  };
  return { ...form, shape, biased: false, read };
}

async function readState(file: TensorFile, name: string): Promise<Record<string, unknown>> {
  const tensor = `${name}.${STATE}`;
  const entry = file.entries.get(tensor);
  if (entry === undefined || entry.dtype !== "U8" || entry.end - entry.begin > MAX_STATE_BYTES) {
    const fp4 = file.entries.has(`${name}.quant_state.bitsandbytes__fp4`);
    const found = fp4 ? "four-bit numbers of type fp4" : entry === undefined ? "no such tensor" : `${entry.dtype} of ${entry.end - entry.begin} bytes`; // prettier-ignore
    return refuseTensor(file, tensor, found, "NF4's description, as bytes of JSON");
  }
  const { bytes } = await file.read(tensor);
  return parseJsonObject(decodeText(bytes, file.name, tensor), `${file.name}: ${tensor}`, 8);
}

/** The length of blocks, after checking that the description fits the weight. */
function checkState(
  state: Record<string, unknown>,
  file: TensorFile,
  name: string,
  shape: readonly number[],
): number {
  const fail = (field: string, expected: string): never => {
    return refuseTensor(file, `${name}.${STATE}`, `${field} ${describeValue(state[field])}`, expected);
  };
  if (state["quant_type"] !== "nf4") fail("quant_type", '"nf4"');
  const stated = state["shape"];
  if (!Array.isArray(stated) || stated.length !== shape.length || stated.some((n, i) => n !== shape[i]))
    fail("shape", `[${shape.join(", ")}], by config.json`);
  const blocksize = state["blocksize"];
  if (!Number.isInteger(blocksize) || (blocksize as number) < 8)
    return fail("blocksize", "a whole number, a multiple of 8");
  const problem = groupProblem(rowsOf(shape).inputs, 4, blocksize as number);
  if (problem !== null)
    refuseTensor(
      file,
      name,
      problem,
      "blocks that each lie within a row",
      "bitsandbytes' blocks run over the flattened matrix, and here they cross rows. Load the model that was quantized, with --quantize nf4, which leaves such a matrix as it is.",
    );
  return blocksize as number;
}

async function checkTable(file: TensorFile, tensor: string): Promise<void> {
  requireTensor(file, tensor, ["F32"], NF4_VALUES.length);
  const table = await readF32(file, tensor, 0, NF4_VALUES.length);
  const other = table.findIndex((value, i) => value !== NF4_VALUES[i]);
  if (other >= 0)
    refuseTensor(file, tensor, `${table[other]} at ${other}`, `NF4's table, with ${NF4_VALUES[other]}`);
}

async function readNesting(
  state: Record<string, unknown>,
  file: TensorFile,
  name: string,
  blocks: number,
): Promise<Nesting> {
  const { nested_blocksize: block, nested_offset: offset } = state;
  const fail = (field: string, expected: string): never => {
    return refuseTensor(file, `${name}.${STATE}`, `${field} ${describeValue(state[field])}`, expected);
  };
  if (!Number.isInteger(block) || (block as number) < 1)
    return fail("nested_blocksize", "a whole number above 0");
  if (typeof offset !== "number" || !Number.isFinite(offset)) return fail("nested_offset", "a number");
  const count = Math.ceil(blocks / (block as number));
  requireTensor(file, `${name}.nested_quant_map`, ["F32"], 256);
  requireTensor(file, `${name}.nested_absmax`, ["F32"], count);
  return {
    table: await readF32(file, `${name}.nested_quant_map`, 0, 256),
    block: block as number,
    factors: await readF32(file, `${name}.nested_absmax`, 0, count),
    offset: Math.fround(offset),
  };
}

async function readScales(
  file: TensorFile,
  tensor: string,
  nesting: Nesting | null,
  from: number,
  to: number,
): Promise<Float32Array> {
  if (nesting === null) return readF32(file, tensor, from, to);
  const { table, block, factors, offset } = nesting;
  const codes = await file.readBytes(tensor, from, to - from);
  return Float32Array.from(codes, (code, i) => {
    const factor = factors[Math.floor((from + i) / block)]!;
    return Math.fround(table[code]! * factor) + offset;
  });
}

/** Turns codes with the first of each byte in its high bits into codes with the first in the lowest bits. */
function swapNibbles(words: Uint32Array): void {
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    words[i] = ((word >>> 4) & 0x0f0f0f0f) | ((word & 0x0f0f0f0f) << 4);
  }
}
