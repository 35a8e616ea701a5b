/** The weights in a model's directory, presented as one file: a single safetensors file, or the shards that an index names. */
import {
  describeValue,
  type FormatError,
  isPlainFileName,
  isRecord,
  parseJsonObject,
  wrong,
} from "./format.ts";
import { readText, type Files } from "./format.ts";
import { openSafetensors, type TensorEntry, type TensorFile } from "./safetensors.ts";

const SUFFIX = ".safetensors";

/**
 * Parses a shard index into a map from tensor name to file name. Throws FormatError if the index is malformed or a file name is
 * not the plain name of a `.safetensors` file.
 */
export function parseIndex(text: string, file: string): Map<string, string> {
  const { weight_map: map } = parseJsonObject(text, file, 8);
  if (!isRecord(map)) {
    throw wrong(file, describeValue(map), "an object of file names", { tensor: "weight_map" });
  }
  const files = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !isPlainFileName(shard) || !shard.endsWith(SUFFIX)) {
      throw wrong(
        file,
        `the file ${describeValue(shard)}`,
        `the plain name of a ${SUFFIX} file beside the index`,
        { tensor },
      );
    }
    files.set(tensor, shard);
  }
  return files;
}

/**
 * Opens `<stem>.safetensors` or, if there is none, all shards that `<stem>.safetensors.index.json` names.
 * @throws FormatError if neither file exists, a shard is missing, or a tensor is in two shards or not in the shard that the
 * index names.
 */
export async function openWeights(files: Files, stem = "model"): Promise<TensorFile> {
  const single = await files.open(stem + SUFFIX);
  if (single) return openSafetensors(single);
  const indexName = `${stem}${SUFFIX}.index.json`;
  const index = await readText(files, indexName);
  if (index === null) throw await missing(files, stem);
  return openShards(files, indexName, parseIndex(index, indexName));
}

async function openShards(files: Files, indexName: string, index: Map<string, string>): Promise<TensorFile> {
  const shards = new Map<string, TensorFile>();
  const home = new Map<string, TensorFile>();
  const entries = new Map<string, TensorEntry>();
  const metadata = new Map<string, string>();
  const close = async (): Promise<void> => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    for (const name of new Set(index.values())) {
      const source = await files.open(name);
      if (!source) throw wrong(indexName, `no file ${name}`, "every shard beside the index");
      const shard = await openSafetensors(source);
      shards.set(name, shard);
      for (const [key, value] of shard.metadata) metadata.set(key, value);
      for (const [tensor, entry] of shard.entries) {
        if (home.has(tensor)) {
          throw wrong(
            name,
            `a tensor that is also in ${home.get(tensor)!.name}`,
            "every tensor in one file",
            { tensor },
          );
        }
        home.set(tensor, shard);
        entries.set(tensor, entry);
      }
    }
    for (const [tensor, name] of index) {
      if (home.get(tensor) !== shards.get(name)) {
        throw wrong(name, "no such tensor", `this tensor in this file, as ${indexName} says`, { tensor });
      }
    }
  } catch (error) {
    await close();
    throw error;
  }
  const at = (tensor: string): TensorFile => {
    const shard = home.get(tensor);
    if (shard) return shard;
    throw wrong(indexName, "no such tensor", `one of the ${home.size} tensors of the index`, { tensor });
  };
  return {
    name: indexName,
    entries,
    metadata,
    read: async (tensor) => at(tensor).read(tensor),
    readBytes: async (tensor, offset, length) => at(tensor).readBytes(tensor, offset, length),
    readInto: async (tensor, offset, target) => at(tensor).readInto(tensor, offset, target),
    stamp: async (tensor) => at(tensor).stamp(tensor),
    close,
  };
}

async function missing(files: Files, stem: string): Promise<FormatError> {
  const pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json", `${stem}.bin`];
  for (const name of pickles) {
    const source = await files.open(name);
    if (!source) continue;
    await source.close?.();
    return wrong(files.name, `${name}, a Python pickle`, stem + SUFFIX, {
      hint: "Pickles run code when read and are never read here: in Python, load the model and call save_pretrained.",
    });
  }
  return wrong(files.name, "no weights", `${stem}${SUFFIX} or ${stem}${SUFFIX}.index.json`);
}
