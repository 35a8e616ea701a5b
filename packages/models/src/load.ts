/** A model from the files of a Hugging Face directory, or new with random weights. */
import { type Device, type Files, FormatError, key, openWeights, readText } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/arguments";
import * as nn from "@tiedlora/nn";
import { IDENTITY_WEIGHT } from "./architectures.ts";
import { type DecoderConfig, parseConfig } from "./config.ts";
import { Decoder } from "./decoder.ts";
import { openQuantized } from "./quantized/checkpoint.ts";
import { quantizedBytes } from "./quantized/form.ts";
import { loadQuantized } from "./quantized/on-device.ts";
import { kept, QUANTIZE_KINDS, type QuantizeKind } from "./quantized/while-loading.ts";
import { unstacked } from "./stacked-experts.ts";
import { loadStreamed } from "./streaming/load.ts";
import { WeightFiles } from "./streaming/weight-files.ts";
import { completeConfig, loadParameters, matchTensors } from "./weights.ts";

/** Where a model is loaded to. */
export interface LoadOptions {
  /** The device that holds the weights and runs the model. */
  readonly device: Device;
  /**
   * Quantizes the weights of all linear modules but the output embedding while they are read: to NF4 (4 bits, as bitsandbytes does) or to
   * int8, in groups of 64 (or 32) elements of a row; a matrix whose rows these do not divide stays as it is. Embeddings, norms and biases
   * stay as they are; "nf4+int8" also quantizes embedding and output embedding, to int8, and is the only form for a model that bitsandbytes
   * has quantized to NF4. The weights are frozen; adapters on them train in f32.
   */
  readonly quantize?: QuantizeKind;
  /**
   * Whether the layers' weights stay in their files and are read into memory when their layer is computed, so that a model can be
   * larger than the device's memory: see `Decoder.streamed`. The files must not change meanwhile. Default: false.
   */
  readonly stream?: boolean;
}

/** Reads config.json alone. */
export async function loadConfigFrom(files: Files): Promise<DecoderConfig> {
  const text = await readText(files, "config.json");
  if (text !== null) return parseConfig(text);
  throw new FormatError({
    file: files.name,
    found: "no config.json",
    expected: "a Hugging Face model directory",
  });
}

/**
 * The bytes that the weights of a model take in memory: as its files have them, or with its linears quantized.
 * @throws FormatError as loading does, for a config or files of weights that cannot be opened.
 */
export async function weightBytes(files: Files, quantize?: QuantizeKind): Promise<number> {
  const parsed = await loadConfigFrom(files);
  const opened = await openWeights(files);
  try {
    const config = completeConfig(parsed, opened);
    const weights = unstacked(config, opened);
    const quantized = await openQuantized(config, weights, quantize ?? null);
    let bytes = 0;
    for (const [name, { begin, end }] of weights.entries)
      if (!quantized.tensors.has(name)) bytes += end - begin;
    for (const rows of quantized.weights.values()) bytes += quantizedBytes(rows);
    return bytes;
  } finally {
    await opened.close();
  }
}

/**
 * Loads a model: config.json and model.safetensors or its shards. Weights go to the device in the precision that they
 * are stored in, a few MB at a time; those that bitsandbytes (NF4) or MLX (affine, 4 or 8 bits) have quantized stay quantized.
 * @throws FormatError for an unknown architecture or setting, and for tensors that are missing, unexpected or misshapen.
 */
export async function loadModelFrom(
  files: Files,
  { device, quantize, stream = false }: LoadOptions,
): Promise<Decoder> {
  if (quantize !== undefined && !QUANTIZE_KINDS.includes(quantize))
    refuse("loadModel: quantize", quantize, "form of weights", QUANTIZE_KINDS.join(" or "));
  const parsed = await loadConfigFrom(files);
  const opened = await (stream ? WeightFiles.open(files) : openWeights(files));
  try {
    const config = completeConfig(parsed, opened);
    const weights = unstacked(config, opened);
    const quantized = await openQuantized(config, weights, quantize ?? null);
    const matches = matchTensors(config, weights, device, quantized);
    if (opened instanceof WeightFiles) {
      const rows = [...quantized.weights].map(([path, one]) => [path, one.made ? kept(one) : one] as const);
      return await loadStreamed(config, device, matches, new Map(rows), weights, opened);
    }
    const parameters = await loadParameters(matches, weights, device);
    await loadQuantized(quantized.weights, weights.name, device, parameters);
    return new Decoder(config, device, (path) => parameters.get(path)!);
  } finally {
    await opened.close();
  }
}

/**
 * A new model with random weights: matrices N(0, initializer_range²), with the deviation divided by √(2 · layers) for those
 * that write to the residual stream, as in GPT-2; biases 0; norms the identity. The same seed gives the same bits on every
 * backend.
 */
export function createModel(
  config: DecoderConfig,
  options: Pick<LoadOptions, "device"> & { readonly seed: number },
): Decoder {
  if (typeof config !== "object" || !Object.hasOwn(config ?? {}, "modelType"))
    refuse("createModel", config, "config of a decoder", 'one made by parseConfig(text, "config.json")');
  const { device, seed } = checkOptions("createModel", options, "{ device, seed: 1 }");
  const root = key(seed).fold("model");
  const std = config.initializerRange;
  const residual = std / Math.sqrt(2 * config.layers);
  return new Decoder(config, device, (path, shape) => {
    if (shape.length === 1) {
      const value = path.endsWith(".weight") ? IDENTITY_WEIGHT[config.norm] : 0;
      return nn.constantParameter(shape, value, device, path);
    }
    const scale = /\.(o_proj|down_proj|c_proj)\.weight$/.test(path) ? residual : std;
    return nn.normalParameter(shape, scale, { device, key: root.fold(path) }, path);
  });
}
