/** A model as the files of a Hugging Face directory, made piece by piece: one weight at a time is on the host. */
import {
  BYTES,
  decode,
  encode,
  encodeTensor,
  FILE_OF_DTYPE,
  type nn,
  type Tensor,
  type TensorToWrite,
  writeSafetensors,
} from "@tiedlora/core";
import { configToJson, type StoredDType } from "./config.ts";
import type { Decoder } from "./decoder.ts";

export interface SaveOptions {
  /** Files of weights above this are split. Default 5 GB, as in transformers. */
  readonly maxShardBytes?: number;
  /** The precision of all weights. Default: that in which each is held. */
  readonly dtype?: StoredDType;
  /** Weights written in the place of the model's own, by path: made when their turn comes, of the same shape, finite. */
  readonly replace?: ReadonlyMap<string, () => Promise<Tensor>>;
}

export type OutputFile = readonly [name: string, content: string | AsyncIterable<Uint8Array>];

export const INDEX_FILE = "model.safetensors.index.json";
export const SINGLE_FILE = "model.safetensors";

type Entry = [path: string, parameter: nn.Parameter];

type Chosen = Pick<SaveOptions, "dtype" | "replace">;

const sizeOf = (parameter: nn.Parameter, { dtype }: Chosen = {}): number =>
  parameter.size * BYTES[dtype ?? parameter.dtype];

/** The weights and the config, in the order in which they should become visible. Tied weights are written once. */
export function modelFiles(model: Decoder, options: SaveOptions = {}): OutputFile[] {
  const shards = splitShards([...model.stateDict()], options);
  const name = (i: number): string =>
    shards.length === 1
      ? SINGLE_FILE
      : `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`;
  const files = shards.map((shard, i): OutputFile => [
    name(i),
    writeSafetensors(shard.map((entry) => toWrite(entry, options))),
  ]);
  if (shards.length > 1) files.push([INDEX_FILE, indexJson(shards, name, options)]);
  return [
    ...files,
    [
      "config.json",
      configToJson({ ...model.config, dtype: options.dtype ?? storedDType(model), tied: model.tied }),
    ],
  ];
}

function splitShards(entries: readonly Entry[], options: SaveOptions): Entry[][] {
  const maxBytes = options.maxShardBytes ?? 5e9;
  const shards: Entry[][] = [[]];
  let bytes = 0;
  for (const entry of entries) {
    const size = sizeOf(entry[1], options);
    if (bytes > 0 && bytes + size > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(entry);
    bytes += size;
  }
  return shards;
}

function toWrite([name, parameter]: Entry, options: Chosen): TensorToWrite {
  const dtype = options.dtype ?? parameter.dtype;
  const made = options.replace?.get(name);
  const asHeld = async (): Promise<Uint8Array> =>
    new Uint8Array(await parameter.storage.buffer.read(0, sizeOf(parameter)));
  const converted = async (): Promise<Uint8Array> => {
    const values = encode(await (made === undefined ? parameter : await made()).data(), dtype);
    if (made !== undefined && !decode(values.buffer, dtype, parameter.size).every(Number.isFinite))
      throw new Error(`${name} would hold values that are not finite in ${dtype}; nothing is written`);
    return encodeTensor(dtype, values);
  };
  return {
    name,
    dtype: FILE_OF_DTYPE[dtype],
    shape: parameter.shape,
    bytes: made === undefined && dtype === parameter.dtype ? asHeld : converted,
  };
}

function indexJson(shards: readonly Entry[][], name: (i: number) => string, options: Chosen): string {
  const entries = shards.flatMap((shard, i) => shard.map(([path]): [string, string] => [path, name(i)]));
  const total = shards.flat().reduce((sum, [, parameter]) => sum + sizeOf(parameter, options), 0);
  const map = Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify({ metadata: { total_size: total }, weight_map: map }, null, 2)}\n`;
}

/** The type of most weights. */
function storedDType(model: Decoder): StoredDType {
  const sizes = { f32: 0, f16: 0, bf16: 0 };
  for (const { dtype, size } of model.parameters()) if (dtype in sizes) sizes[dtype as StoredDType] += size;
  return (Object.entries(sizes) as [StoredDType, number][]).sort(([, a], [, b]) => b - a)[0]![0];
}
