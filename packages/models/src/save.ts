/** A model as the files of a Hugging Face directory, made piece by piece: one weight at a time is on the host. */
import {
  byteCount,
  BYTES,
  decode,
  encode,
  encodeTensor,
  FILE_OF_DTYPE,
  type Tensor,
  type TensorToWrite,
  type Files,
  readText,
  writeSafetensors,
} from "@tiedlora/core";
import { memoryOf, type Module, type Parameter } from "@tiedlora/nn";
import { stacked } from "./stacked-experts.ts";
import type { StreamedModel } from "./streaming/model.ts";
import { configToJson, type DecoderConfig, type StoredDType } from "./config.ts";
import { COMPANIONS, INDEX_FILE, SINGLE_FILE } from "./file-names.ts";

/** How weights are written. */
export interface SaveOptions {
  /** Files of weights above this are split. Default 5 GB, as in transformers. */
  readonly maxShardBytes?: number;
  /** The precision of all weights. Default: that in which each is held, or, for quantized ones, that of the config. */
  readonly dtype?: StoredDType;
  /**
   * Whether the matrices of a layer's experts are written one by one, which all versions of transformers read, or "stacked" as
   * `gate_up_proj` and `down_proj`, as transformers 5 has them. Default: "single".
   */
  readonly experts?: "single" | "stacked";
  /** Weights written instead of the model's own, by path: computed when they are written, of the same shape, finite. */
  readonly replace?: ReadonlyMap<string, () => Promise<Tensor>>;
}

/** A file to be written: its name, and its content at once or in pieces. */
export type OutputFile = readonly [name: string, content: string | AsyncIterable<Uint8Array>];

/** How a directory is written. */
export interface SaveDirectoryOptions extends SaveOptions {
  /** Files whose tokenizer and generation settings are copied along. */
  readonly copyFrom?: Files;
}

/** The part of a decoder that is written. (decoder.ts imports this file, which therefore cannot import the class.) */
interface Written extends Module {
  readonly config: DecoderConfig;
  readonly tied: boolean;
  readonly streamed: StreamedModel | null;
}

type Entry = [path: string, parameter: Parameter];

/** The weights and the config, in the order in which they should become visible. Tied weights are written once. */
export function modelFiles(model: Written, options: SaveOptions = {}): OutputFile[] {
  const single = [...model.stateDict()].map((entry) => toWrite(entry, model, options));
  const tensors = options.experts === "stacked" ? stacked(model.config, single) : single;
  const dtype = options.dtype ?? storedDType(model);
  const { quantization: _mlx, quantization_config: _other, ...raw } = model.config.raw; // the weights written are not quantized
  const config = configToJson({ ...model.config, raw, dtype, tied: model.tied });
  return [...weightFiles(tensors, options.maxShardBytes), ["config.json", config]];
}

/** The files to write into a model's directory, and the files of an earlier save that must be removed from it. */
export async function directoryFiles(
  model: Written,
  { copyFrom, ...options }: SaveDirectoryOptions,
): Promise<{ files: readonly OutputFile[]; stale: readonly string[] }> {
  const companions: OutputFile[] = [];
  for (const name of copyFrom === undefined ? [] : COMPANIONS) {
    const text = await readText(copyFrom!, name);
    if (text !== null) companions.push([name, text]);
  }
  const files = modelFiles(model, options);
  // Readers prefer a single file to an index: one left by an earlier save would be read instead of the new shards.
  const stale = files.some(([name]) => name === INDEX_FILE) ? SINGLE_FILE : INDEX_FILE;
  return { files: [...companions, ...files], stale: [stale] };
}

/**
 * Weights as model.safetensors or, if they have more than `maxBytes`, as shards and their index. The bytes of a tensor are
 * read only when it is written.
 */
export function weightFiles(tensors: readonly TensorToWrite[], maxBytes = 5e9): OutputFile[] {
  const shards = splitShards(tensors, maxBytes);
  if (shards.length === 1) return [[SINGLE_FILE, writeSafetensors(tensors)]];
  const number = (n: number): string => String(n).padStart(5, "0");
  const name = (i: number): string => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
  const files = shards.map((shard, i): OutputFile => [name(i), writeSafetensors(shard)]);
  return [...files, [INDEX_FILE, indexJson(shards, name)]];
}

function splitShards(tensors: readonly TensorToWrite[], maxBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = byteCount(tensor.dtype, tensor.shape);
    if (bytes > 0 && bytes + size > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += size;
  }
  return shards;
}

/** Whether a parameter is kept quantized: it is written as its numbers. */
const isQuantized = (parameter: Parameter): boolean => memoryOf(parameter)[0] !== parameter;

/** Quantized weights are written in the usual type: that of the model they were made of. */
function toWrite(
  [name, parameter]: Entry,
  { config, streamed }: Written,
  options: SaveOptions,
): TensorToWrite {
  const dtype = options.dtype ?? (isQuantized(parameter) ? config.dtype : parameter.dtype);
  const made = options.replace?.get(name);
  const asHeld = async (): Promise<Uint8Array> =>
    new Uint8Array(await parameter.storage.buffer.read(0, parameter.size * BYTES[parameter.dtype]));
  const present = <T>(work: () => Promise<T>): Promise<T> =>
    streamed === null || made !== undefined ? work() : streamed.resident([parameter], work);
  const converted = async (): Promise<Uint8Array> => {
    const values = encode(await (made === undefined ? parameter : await made()).data(), dtype);
    if (made !== undefined && !decode(values.buffer, dtype, parameter.size).every(Number.isFinite))
      throw new Error(
        `${name} has values that are not finite in ${dtype}, so nothing is written; give the dtype bf16 or f32, whose numbers reach further, or train with a lower learning rate`,
      );
    return encodeTensor(dtype, values);
  };
  return {
    name,
    dtype: FILE_OF_DTYPE[dtype],
    shape: parameter.shape,
    bytes: () =>
      present(
        made === undefined && dtype === parameter.dtype && !isQuantized(parameter) ? asHeld : converted,
      ),
  };
}

function indexJson(shards: readonly TensorToWrite[][], name: (i: number) => string): string {
  const entries = shards.flatMap((shard, i) =>
    shard.map((tensor): [string, string] => [tensor.name, name(i)]),
  );
  const total = shards.flat().reduce((sum, { dtype, shape }) => sum + byteCount(dtype, shape), 0);
  const map = Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify({ metadata: { total_size: total }, weight_map: map }, null, 2)}\n`;
}

/** The most frequent type of weights, by number of elements. */
function storedDType(model: Written): StoredDType {
  const sizes = { f32: 0, f16: 0, bf16: 0 };
  for (const parameter of model.parameters()) {
    const dtype = isQuantized(parameter) ? model.config.dtype : parameter.dtype;
    if (dtype in sizes) sizes[dtype as StoredDType] += parameter.size;
  }
  return (Object.entries(sizes) as [StoredDType, number][]).sort(([, a], [, b]) => b - a)[0]![0];
}
