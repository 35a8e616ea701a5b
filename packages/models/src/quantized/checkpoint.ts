/** Which weights of a model are quantized: those that its files hold so, or those that are quantized while they are loaded. */
import { FormatError, type TensorFile } from "@tiedlora/core";
import type { DecoderConfig } from "../config.ts";
import { Fields } from "../fields.ts";
import { linearSpecs, moduleParameters, moduleSpecs, storedInOut } from "../modules.ts";
import { ARCHITECTURES } from "../architectures.ts";
import { BITSANDBYTES_PARTS, openBitsandbytes } from "./bitsandbytes.ts";
import type { QuantizedRows } from "./form.ts";
import { MLX_PARTS, openMlx } from "./mlx.ts";
import { type CheckpointQuantization, quantizationOf } from "./settings.ts";
import { FORMS, groupFor, type QuantizeKind, quantizedWhileRead } from "./while-loading.ts";

/** The quantized weights of a model. */
export interface QuantizedWeights {
  /** By the path of the parameter. */
  readonly weights: ReadonlyMap<string, QuantizedRows>;
  /** The tensors of the files that they take, which are no parameters by themselves. */
  readonly tensors: ReadonlySet<string>;
}

interface Weight {
  readonly module: string;
  readonly path: string;
  readonly shape: readonly number[];
}

/** The matrices that are quantized in a file, by the types of their codes; all are checked against the config. */
async function storedWeights(
  config: DecoderConfig,
  file: TensorFile,
  how: CheckpointQuantization,
): Promise<QuantizedWeights> {
  // prettier-ignore
  const weights = new Map<string, QuantizedRows>();
  const tensors = new Set<string>();
  for (const { module, path, shape } of matrices(config)) {
    const { dtype } = file.entries.get(path) ?? {};
    if (how.kind === "bitsandbytes" && dtype === "U8") {
      weights.set(path, await openBitsandbytes(file, path, shape));
      for (const part of BITSANDBYTES_PARTS) tensors.add(`${path}.${part}`);
    } else if (how.kind === "mlx" && dtype === "U32") {
      weights.set(path, openMlx(file, module, shape, how.of(module)));
      for (const part of MLX_PARTS) tensors.add(`${module}.${part}`);
    } else continue;
    tensors.add(path);
  }
  return { weights, tensors };
}

/**
 * Opens the quantized weights of a model. `quantize` asks for linear weights to be quantized while they are read; in "nf4+int8", those of
 * bitsandbytes are nf4 already, and embedding and output embedding are quantized while they are read.
 */
export async function openQuantized(
  config: DecoderConfig,
  file: TensorFile,
  quantize: QuantizeKind | null,
): Promise<QuantizedWeights> {
  const how = quantizationOf(new Fields(file.name, config.raw));
  if (quantize === null) return storedWeights(config, file, how);
  const isNf4 = how.kind === "bitsandbytes" && FORMS[quantize].linear === "nf4" && FORMS[quantize].embedding !== null; // prettier-ignore
  if (isNf4) {
    const stored = await storedWeights(config, file, how);
    const weights = new Map([...whileLoading(config, file, quantize, false), ...stored.weights]);
    return { weights, tensors: new Set([...weights.keys(), ...stored.tensors]) };
  }
  if (how.kind !== "none")
    throw new FormatError({
      file: file.name,
      found: `a model that ${how.kind === "mlx" ? "MLX" : "bitsandbytes"} has quantized`,
      expected: `one to quantize to ${quantize}`,
      hint:
        how.kind === "bitsandbytes"
          ? "Load it as it is, without --quantize, or with nf4+int8, which keeps embedding and head in 8 bits, or load the model that it was made of."
          : "Load it as it is, without --quantize, or load the model that it was made of.",
    });
  if (ARCHITECTURES[config.modelType].linear === "conv1d")
    throw new FormatError({
      file: file.name,
      found: `matrices of ${config.modelType}, which are stored as [in, out]`,
      expected: `an architecture whose rows can be quantized to ${quantize}`,
      hint: "Load it without --quantize.",
    });
  const weights = whileLoading(config, file, quantize, true);
  return { weights, tensors: new Set(weights.keys()) };
}

/** The matrices that are quantized while they are read: with `linears` or without the linears of layers. */
function whileLoading(
  config: DecoderConfig,
  file: TensorFile,
  quantize: QuantizeKind,
  linears: boolean,
): Map<string, QuantizedRows> {
  const weights = new Map<string, QuantizedRows>();
  const { linear, embedding } = FORMS[quantize];
  const inLayers = new Set(adaptable(config).map(({ path }) => path));
  for (const { path, shape } of matrices(config)) {
    const form = !inLayers.has(path) ? embedding : linears ? linear : null;
    const group = form && groupFor(shape.at(-1)!, form);
    const stored = file.entries.get(path);
    // What is missing or of another type is reported with all other weights.
    const fits = stored?.shape.length === shape.length && stored.shape.every((n, axis) => n === shape[axis]);
    if (form !== null && group !== null && fits && FLOATS.has(stored.dtype))
      weights.set(path, quantizedWhileRead(file, path, shape, form, group));
  }
  return weights;
}

const FLOATS: ReadonlySet<string> = new Set(["F32", "F16", "BF16", "F64"]);

function weightsOf(config: DecoderConfig, specs: ReturnType<typeof moduleSpecs>): Weight[] {
  return specs
    .filter((spec) => !storedInOut(config, spec))
    .flatMap((spec) => moduleParameters(config, spec).map((one) => ({ ...one, module: spec.path })))
    .filter(({ shape }) => shape.length > 1);
}

/** All matrices: of linears and embeddings, and the output embedding where it is not tied. */
function matrices(config: DecoderConfig): Weight[] {
  const { head } = ARCHITECTURES[config.modelType].names;
  return weightsOf(config, moduleSpecs(config)).filter(({ module }) => !(config.tied && module === head));
}

/** The matrices of all linears but the output embedding, which bitsandbytes quantizes. */
function adaptable(config: DecoderConfig): Weight[] {
  const { head } = ARCHITECTURES[config.modelType].names;
  return weightsOf(config, linearSpecs(config)).filter(({ module }) => module !== head);
}
