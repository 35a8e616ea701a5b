/**
 * Writes a model with random weights, of any size, as a Hugging Face directory. Only one tensor at a time is in memory.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/make-model.ts DIR [--preset NAME | --config FILE] [--dtype bf16]
 *     [--quantize nf4] [--shard-mb 500] [--seed 0]
 *
 * Matrices are N(0, initializer_range²), norms are the identity, biases are zero. With `--quantize nf4` the linears but the output
 * embedding are stored as bitsandbytes does, with random codes. The model is for measuring memory and time;
 * to train a model from scratch, use createModel.
 */
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import {
  encode,
  encodeTensor,
  FILE_OF_DTYPE,
  key,
  NF4,
  normalArray,
  type TensorToWrite,
} from "@tiedlora/core";
import { writeFilesAtomic } from "@tiedlora/core/node";
import {
  configToJson,
  countParameters,
  type DecoderConfig,
  IDENTITY_WEIGHT,
  linearSpecs,
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
  /** How linears are stored, if not in `dtype`: in bitsandbytes' form of NF4. */
  readonly quantize?: "nf4" | undefined;
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
  const { dtype = "bf16", quantize, maxShardBytes = 5e8, seed = 0 } = options;
  const normal = sampler(config.initializerRange, dtype, seed);
  const packed = quantize === undefined ? new Set<string>() : quantizedPaths(config);
  const tensors = parameterSpecs(config).flatMap((spec): TensorToWrite[] => {
    const { path: name, shape } = spec;
    if (packed.has(name)) return bitsandbytesTensors(spec, config.initializerRange, seed);
    return [{ name, dtype: FILE_OF_DTYPE[dtype], shape, bytes: () => bytesOf(spec, config, dtype, normal) }];
  });
  const files = weightFiles(tensors, maxShardBytes);
  const raw = { ...config.raw, ...(packed.size > 0 && { quantization_config: BITSANDBYTES }) };
  await writeFilesAtomic(directory, [...files, ["config.json", configToJson({ ...config, raw, dtype })]]);
}

/** What a config says of weights in bitsandbytes' NF4. */
const BITSANDBYTES = { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" };

/** The numbers that share a scale. */
const BLOCK = 64;

/** The linears but the output embedding, which bitsandbytes leaves as it is. */
function quantizedPaths(config: DecoderConfig): Set<string> {
  const inLayers = linearSpecs(config).filter(({ path }) => /\.\d+\./.test(path));
  return new Set(inLayers.map(({ path }) => `${path}.weight`));
}

/** A matrix of random codes, with one scale for all blocks: that of numbers with the deviation `std`. */
function bitsandbytesTensors({ path, shape }: ParameterSpec, std: number, seed: number): TensorToWrite[] {
  const count = shape.reduce((a, b) => a * b, 1);
  if (shape.at(-1)! % BLOCK !== 0)
    throw new Error(`${path}: rows of ${shape.at(-1)} are not made of blocks of ${BLOCK}; leave out --quantize`); // prettier-ignore
  const rms = Math.sqrt(NF4.reduce((sum, x) => sum + x * x, 0) / NF4.length);
  const state = new TextEncoder().encode(JSON.stringify({ quant_type: "nf4", blocksize: BLOCK, dtype: "float16", shape })); // prettier-ignore
  const words = sampler(1, "f32", seed);
  const floats = (values: Float32Array): Uint8Array => encodeTensor("f32", values);
  return [
    // the patterns of random numbers in f32 serve as random codes
    { name: path, dtype: "U8", shape: [count / 2, 1], bytes: () => words(count / 8) },
    { name: `${path}.absmax`, dtype: "F32", shape: [count / BLOCK], bytes: () => floats(new Float32Array(count / BLOCK).fill(std / rms)) }, // prettier-ignore
    { name: `${path}.quant_map`, dtype: "F32", shape: [NF4.length], bytes: () => floats(Float32Array.from(NF4)) }, // prettier-ignore
    { name: `${path}.quant_state.bitsandbytes__nf4`, dtype: "U8", shape: [state.length], bytes: () => state },
  ];
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
      quantize: { type: "string" },
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
  const { quantize } = values;
  if (quantize !== undefined && quantize !== "nf4") throw new Error(`--quantize ${quantize}: need nf4`);
  const options: MakeModelOptions = {
    dtype,
    quantize,
    maxShardBytes: Number(values["shard-mb"]) * 1e6,
    seed: Number(values.seed),
  };
  await makeModel(config, directory, options);
  console.log(
    `${directory}: ${countParameters(config).toLocaleString("en")} parameters in ${quantize ?? dtype}`,
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
