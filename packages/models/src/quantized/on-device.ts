/** Quantized weights on their way to a device: a few rows at a time, so that no matrix is on the host as a whole. */
import { BYTES, type Device, type DType, encodeTensor, FormatError, type TypedArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { quantizedSizes, type QuantizedRows, rowsOf, widened } from "./form.ts";

/** The elements that are read at once; as numbers in f32 they take 4 MiB. */
const CHUNK_ELEMENTS = 2 ** 20;

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
      const [words, scales, ...biases] = allocateParts(path, rows, file, device);
      held.push(words!, scales!, ...biases);
      await copyRows(rows, [words!, scales!, ...biases]);
      const { bits, group, table } = rows;
      parameters.set(path, new nn.QuantizedParameter({ bits, group, table }, words!, scales!, biases[0]));
    }
  } catch (error) {
    for (const { storage } of held) storage.buffer.free();
    throw error;
  }
}

/** Empty parameters for words, scales and, where there are any, biases. */
function allocateParts(path: string, rows: QuantizedRows, file: string, device: Device): nn.Parameter[] {
  const { dtypes, maxBufferBytes } = device.backend.caps;
  const scaleDType = dtypes.has(rows.scaleDType) ? rows.scaleDType : "f32";
  const leading = rows.shape.slice(0, -1);
  const sizes = quantizedSizes(rows);
  const count = rowsOf(rows.shape).rows;
  const allocate = (name: string, elements: number, dtype: DType): nn.Parameter => {
    const bytes = elements * BYTES[dtype];
    if (bytes > maxBufferBytes)
      throw new FormatError({ file, tensor: name, found: `${bytes} bytes`, expected: `at most ${maxBufferBytes}, the largest buffer of ${device.name}` }); // prettier-ignore
    return new nn.Parameter(device.allocate(bytes, name), [...leading, elements / count], dtype, device);
  };
  return [
    allocate(path, sizes.words, "u32"),
    allocate(`${path}.scales`, sizes.scales, scaleDType),
    ...(rows.biased ? [allocate(`${path}.biases`, sizes.scales, scaleDType)] : []),
  ];
}

async function copyRows(source: QuantizedRows, parts: readonly nn.Parameter[]): Promise<void> {
  const { rows, inputs } = rowsOf(source.shape);
  const step = Math.max(1, Math.floor(CHUNK_ELEMENTS / inputs));
  for (let from = 0; from < rows; from += step) {
    const q = await source.read(from, Math.min(rows, from + step));
    for (const [i, values] of [q.words, q.scales, q.biases].entries())
      if (values !== undefined) write(parts[i]!, i === 0 ? values : converted(values, q.scaleDType, parts[i]!.dtype), from, rows); // prettier-ignore
  }
}

/** Scales in the type that the device holds them in. */
const converted = (values: TypedArray, from: "f32" | "f16" | "bf16", to: DType): TypedArray =>
  from === to ? values : widened(values, from);

function write({ storage, size, dtype }: nn.Parameter, values: TypedArray, row: number, rows: number): void {
  storage.buffer.write(encodeTensor(dtype, values), row * (size / rows) * BYTES[dtype]);
}
