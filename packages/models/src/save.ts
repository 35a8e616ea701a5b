/** A model as the files of a Hugging Face directory, made piece by piece: one weight at a time is on the host. */
import { BYTES, FILE_OF_DTYPE, type nn, type TensorToWrite, writeSafetensors } from "@tiedlora/core";
import { configToJson, type StoredDType } from "./config.ts";
import type { Decoder } from "./decoder.ts";

export interface SaveOptions {
  /** Files of weights above this are split. Default 5 GB, as in transformers. */
  readonly maxShardBytes?: number;
}

export type OutputFile = readonly [name: string, content: string | AsyncIterable<Uint8Array>];

export const INDEX_FILE = "model.safetensors.index.json";
export const SINGLE_FILE = "model.safetensors";

type Entry = [path: string, parameter: nn.Parameter];

const sizeOf = ({ size, dtype }: nn.Parameter): number => size * BYTES[dtype];

/** The weights and the config, in the order in which they should become visible. Tied weights are written once. */
export function modelFiles(model: Decoder, options: SaveOptions = {}): OutputFile[] {
  const shards = splitShards([...model.stateDict()], options.maxShardBytes ?? 5e9);
  const name = (i: number): string =>
    shards.length === 1
      ? SINGLE_FILE
      : `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`;
  const files = shards.map((shard, i): OutputFile => [name(i), writeSafetensors(shard.map(toWrite))]);
  if (shards.length > 1) files.push([INDEX_FILE, indexJson(shards, name)]);
  return [
    ...files,
    ["config.json", configToJson({ ...model.config, dtype: storedDType(model), tied: model.tied })],
  ];
}

function splitShards(entries: readonly Entry[], maxBytes: number): Entry[][] {
  const shards: Entry[][] = [[]];
  let bytes = 0;
  for (const entry of entries) {
    const size = sizeOf(entry[1]);
    if (bytes > 0 && bytes + size > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(entry);
    bytes += size;
  }
  return shards;
}

function toWrite([name, parameter]: Entry): TensorToWrite {
  return {
    name,
    dtype: FILE_OF_DTYPE[parameter.dtype],
    shape: parameter.shape,
    bytes: async () => new Uint8Array(await parameter.storage.buffer.read(0, sizeOf(parameter))),
  };
}

function indexJson(shards: readonly Entry[][], name: (i: number) => string): string {
  const entries = shards.flatMap((shard, i) => shard.map(([path]): [string, string] => [path, name(i)]));
  const total = shards.flat().reduce((sum, [, parameter]) => sum + sizeOf(parameter), 0);
  const map = Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify({ metadata: { total_size: total }, weight_map: map }, null, 2)}\n`;
}

/** The type of most weights. */
function storedDType(model: Decoder): StoredDType {
  const sizes = { f32: 0, f16: 0, bf16: 0 };
  for (const { dtype, size } of model.parameters()) if (dtype in sizes) sizes[dtype as StoredDType] += size;
  return (Object.entries(sizes) as [StoredDType, number][]).sort(([, a], [, b]) => b - a)[0]![0];
}
