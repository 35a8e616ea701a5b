/** Quantized weights on their way to a device: a few rows at a time, so that no matrix is on the host as a whole. */
import {
  BYTES,
  type Device,
  type DeviceBuffer,
  type DType,
  encodeTensor,
  FormatError,
  type TypedArray,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { quantizedSizes, type QuantizedRows, rowsOf, widened } from "./form.ts";

/** The elements that are read at once; as numbers in f32 they take 4 MiB. */
const CHUNK_ELEMENTS = 2 ** 20;

/** What a quantized weight takes on a device: its words, its scales, or its biases. */
export interface QuantizedPart {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly bytes: number;
}

/** Copies the weights to the device and adds them to the `parameters` of the model. On an error, frees these too. */
export async function loadQuantized(
  weights: ReadonlyMap<string, QuantizedRows>,
  file: string,
  device: Device,
  parameters: Map<string, nn.Parameter>,
): Promise<void> {
  const held = [...parameters.values()];
  try {
    for (const [path, rows] of weights) {
      const parts = quantizedParts(path, rows, file, device);
      const made: nn.Parameter[] = [];
      for (const { name, shape, dtype, bytes } of parts)
        held.push((made[made.length] = new nn.Parameter(device.allocate(bytes, name), shape, dtype, device)));
      await device.sync(); // work that was submitted before may still use memory that was free
      await readQuantized(rows, parts, made.map(({ storage }) => storage.buffer)); // prettier-ignore
      parameters.set(path, quantizedParameter(rows, made));
    }
  } catch (error) {
    for (const { storage } of held) storage.buffer.free();
    throw error;
  }
}

/** A weight around parameters that hold its parts. */
export function quantizedParameter(
  { bits, group, table }: QuantizedRows,
  [words, scales, biases]: readonly nn.Parameter[],
): nn.QuantizedParameter {
  return new nn.QuantizedParameter({ bits, group, table }, words!, scales!, biases);
}

/** Words, scales and, where there are any, biases of the weight at `path`. Throws FormatError for one that no buffer can hold. */
export function quantizedParts(
  path: string,
  rows: QuantizedRows,
  file: string,
  device: Device,
): readonly QuantizedPart[] {
  const { dtypes, maxBufferBytes } = device.backend.caps;
  const scaleDType = dtypes.has(rows.scaleDType) ? rows.scaleDType : "f32";
  const leading = rows.shape.slice(0, -1);
  const sizes = quantizedSizes(rows);
  const count = rowsOf(rows.shape).rows;
  const part = (name: string, elements: number, dtype: DType): QuantizedPart => {
    const bytes = elements * BYTES[dtype];
    if (bytes > maxBufferBytes)
      throw new FormatError({ file, tensor: name, found: `${bytes} bytes`, expected: `at most ${maxBufferBytes}, the largest buffer of ${device.name}` }); // prettier-ignore
    return { name, shape: [...leading, elements / count], dtype, bytes };
  };
  return [
    part(path, sizes.words, "u32"),
    part(`${path}.scales`, sizes.scales, scaleDType),
    ...(rows.biased ? [part(`${path}.biases`, sizes.scales, scaleDType)] : []),
  ];
}

/**
 * Reads a weight into the memory of its parts: without a copy of the words, where the memory has a view, in which case no
 * submitted program may use it.
 */
export async function readQuantized(
  source: QuantizedRows,
  parts: readonly QuantizedPart[],
  memory: readonly DeviceBuffer[],
): Promise<void> {
  const { rows, inputs } = rowsOf(source.shape);
  const views = memory.map((one) => one.hostView?.() ?? null);
  const step = Math.max(1, Math.floor(CHUNK_ELEMENTS / inputs));
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(rows, from + step);
    const q = await source.read(from, to, views[0] ? wordsIn(views[0], parts[0]!, from / rows, to / rows) : undefined); // prettier-ignore
    const put = (i: number, values: TypedArray): void => {
      const { dtype, bytes } = parts[i]!;
      const [data, offset] = [encodeTensor(dtype, values), (from / rows) * bytes];
      if (views[i]) views[i].set(data, offset);
      else memory[i]!.write(data, offset);
    };
    if (!views[0]) put(0, q.words);
    for (const [i, values] of [q.scales, q.biases].entries())
      if (values !== undefined) put(i + 1, converted(values, q.scaleDType, parts[i + 1]!.dtype));
  }
}

/** The words of the rows between two shares of a part. */
function wordsIn(view: Uint8Array, { bytes }: QuantizedPart, from: number, to: number): Uint32Array {
  const [begin, end] = [Math.round(from * bytes), Math.round(to * bytes)];
  return new Uint32Array(view.buffer, view.byteOffset + begin, (end - begin) / 4);
}

/** Scales in the type that the device holds them in. */
const converted = (values: TypedArray, from: "f32" | "f16" | "bf16", to: DType): TypedArray =>
  from === to ? values : widened(values, from);
