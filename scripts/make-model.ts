/**
 * Writes a model with random weights, of any size, as a Hugging Face directory. Only one tensor at a time is in memory.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/make-model.ts DIR [--preset NAME | --config FILE] [--dtype bf16]
 *     [--shard-mb 500] [--seed 0]
 *
 * Matrices are N(0, initializer_range²), norms are the identity, biases are zero. The model is for measuring memory and time;
 * to train a model from scratch, use createModel.
 */
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { encode, encodeTensor, FILE_OF_DTYPE, key, normalArray, type TensorToWrite } from "@tiedlora/core";
import { writeFilesAtomic } from "@tiedlora/core/node";
import {
  configToJson,
  countParameters,
  type DecoderConfig,
  IDENTITY_WEIGHT,
  type ParameterSpec,
  parameterSpecs,
  parseConfig,
  preset,
  PRESET_NAMES,
  type StoredDType,
  weightFiles,
} from "@tiedlora/models";

export interface MakeModelOptions {
  /** The precision of all weights. Default: bf16. */
  readonly dtype?: StoredDType;
  /** The maximum size of a file of weights, in bytes. Default: 500 MB. */
  readonly maxShardBytes?: number;
  /** The same seed gives the same bytes. Default: 0. */
  readonly seed?: number;
}

/** Writes config.json and the weights into `directory`. */
export async function makeModel(
  config: DecoderConfig,
  directory: string,
  options: MakeModelOptions = {},
): Promise<void> {
  const { dtype = "bf16", maxShardBytes = 5e8, seed = 0 } = options;
  const normal = sampler(config.initializerRange, dtype, seed);
  const tensors = parameterSpecs(config).map((spec): TensorToWrite => {
    const { path: name, shape } = spec;
    return { name, dtype: FILE_OF_DTYPE[dtype], shape, bytes: () => bytesOf(spec, config, dtype, normal) };
  });
  const files = weightFiles(tensors, maxShardBytes);
  await writeFilesAtomic(directory, [...files, ["config.json", configToJson({ ...config, dtype })]]);
}

type Sampler = (count: number) => Uint8Array;

function bytesOf(
  { path, shape }: ParameterSpec,
  config: DecoderConfig,
  dtype: StoredDType,
  normal: Sampler,
): Uint8Array {
  const count = shape.reduce((a, b) => a * b, 1);
  if (shape.length > 1) return normal(count);
  const value = path.endsWith(".weight") ? IDENTITY_WEIGHT[config.norm] : 0;
  return encodeTensor(dtype, encode(new Float32Array(count).fill(value), dtype));
}

/** Draws from a table of 65,536 normal numbers with xorshift (Marsaglia, 2003), which takes a few nanoseconds each. */
function sampler(std: number, dtype: StoredDType, seed: number): Sampler {
  const table = encode(normalArray(key(seed), 2 ** 16, 0, std), dtype);
  let state = (seed ^ 0x9e3779b9) | 1;
  return (count) => {
    const out = new (table.constructor as new (length: number) => typeof table)(count);
    for (let i = 0; i < count; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      out[i] = table[state & 0xffff]!;
    }
    return new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      preset: { type: "string", default: "tinyllama-1.1b" },
      config: { type: "string" },
      dtype: { type: "string", default: "bf16" },
      "shard-mb": { type: "string", default: "500" },
      seed: { type: "string", default: "0" },
    },
  });
  const [directory] = positionals;
  if (directory === undefined || positionals.length !== 1) throw new Error("give one directory to write to");
  const config =
    values.config === undefined ? preset(values.preset) : parseConfig(await readFile(values.config, "utf8"));
  if (!config) throw new Error(`--preset ${values.preset}: need one of ${PRESET_NAMES.join(", ")}`);
  const { dtype } = values;
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16")
    throw new Error(`--dtype ${dtype}: need f32, f16 or bf16`);
  const options: MakeModelOptions = {
    dtype,
    maxShardBytes: Number(values["shard-mb"]) * 1e6,
    seed: Number(values.seed),
  };
  await makeModel(config, directory, options);
  console.log(`${directory}: ${countParameters(config).toLocaleString("en")} parameters in ${dtype}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
