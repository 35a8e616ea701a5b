/** Weights from files to the device: checked against the config before anything is allocated, then copied in pieces. */
import {
  BYTES,
  decodeF32,
  type Device,
  type DeviceBuffer,
  type DType,
  FILE_DTYPE_BYTES,
  type FileDType,
  FormatError,
  type TensorFile,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { ARCHITECTURES } from "./architectures.ts";
import { type DecoderConfig, embedScale } from "./config.ts";
import { type ParameterSpec, parameterSpecs } from "./modules.ts";
import type { QuantizedWeights } from "./quantized/checkpoint.ts";

/** The bytes copied at once: enough for fast disk reads, few enough to need little memory. A multiple of every element size. */
const CHUNK_BYTES = 8 * 2 ** 20;

/** The device type of each file type: half-precision types are kept; null marks types that a weight cannot have. */
const WEIGHT_DTYPE: { readonly [D in FileDType]: DType | null } = {
  BOOL: null,
  U8: null,
  I8: null,
  F8_E5M2: null,
  F8_E4M3: null,
  I16: null,
  U16: null,
  F16: "f16",
  BF16: "bf16",
  I32: null,
  U32: null,
  F32: "f32",
  F64: "f32",
  I64: null,
  U64: null,
};

/** A parameter and the tensor of the file that it comes from. */
export interface Match extends ParameterSpec {
  readonly tensor: string;
  readonly from: FileDType;
  readonly dtype: DType;
}

/** What to do about a weight of whole numbers. */
const NOT_SAID =
  'If it is quantized, config.json must say how: "quantization_config" of bitsandbytes (NF4), or "quantization" of MLX. Of other kinds, load the model that was quantized.';

/**
 * The config, completed from the weight file: whether norms have a bias, where the architecture leaves it open, and the scale
 * of embeddings, which is rounded to their precision.
 */
export function completeConfig(config: DecoderConfig, file: TensorFile): DecoderConfig {
  const { normBias, names } = ARCHITECTURES[config.modelType];
  const stored = WEIGHT_DTYPE[file.entries.get(`${names.base}.${names.embed}.weight`)?.dtype ?? "I8"];
  const known = stored === "f32" || stored === "f16" || stored === "bf16";
  return {
    ...config,
    ...(known && { embedScale: embedScale(config.modelType, config.hidden, stored) }),
    ...(normBias === "optional" && {
      normBias: file.entries.has(`${names.base}.${names.finalNorm}.bias`),
    }),
  };
}

/**
 * Pairs every parameter with its tensor, without those that are quantized. Throws FormatError for a tensor that is missing, misshapen, not a float, unused, or
 * too large for a buffer of the device: a model that ignored it would compute something else.
 */
export function matchTensors(
  config: DecoderConfig,
  file: TensorFile,
  device: Device,
  quantized: QuantizedWeights,
): Match[] {
  const available = tensorsByPath(config, file, quantized.tensors);
  const specs = parameterSpecs(config).filter(({ path }) => !quantized.weights.has(path));
  const wanted = new Set(specs.map(({ path }) => path));
  const missing = specs.filter(({ path }) => !available.has(path)).map(({ path }) => path);
  const unexpected = [...available.keys()].filter((path) => !wanted.has(path));
  if (missing.length + unexpected.length > 0) throw mismatch(config, file, missing, unexpected);
  return specs.map((spec) => matchOne(spec, available.get(spec.path)!, file, device));
}

/** Maps paths in the model to tensors in the file: skips tensors that old files contain needlessly, adds a missing prefix. */
function tensorsByPath(
  config: DecoderConfig,
  file: TensorFile,
  taken: ReadonlySet<string>,
): Map<string, string> {
  const { names, ignored } = ARCHITECTURES[config.modelType];
  const tensors = [...file.entries.keys()];
  const head = `${names.head}.weight`;
  // The official GPT-2 files hold the model without its language-model head, hence without "transformer."
  const bare = !tensors.some((name) => name.startsWith(`${names.base}.`));
  const paths = new Map<string, string>();
  for (const tensor of tensors) {
    if (taken.has(tensor)) continue;
    const path = bare && tensor !== head ? `${names.base}.${tensor}` : tensor;
    if (!ignored.some((pattern) => pattern.test(path))) paths.set(path, tensor);
  }
  if (config.tied && paths.has(head)) {
    const embed = `${names.base}.${names.embed}.weight`;
    if (!paths.has(embed)) paths.set(embed, head);
    paths.delete(head);
  }
  return paths;
}

function matchOne(spec: ParameterSpec, tensor: string, file: TensorFile, device: Device): Match {
  const { dtype: from, shape } = file.entries.get(tensor)!;
  const fail = (found: string, expected: string, hint?: string): never => {
    throw new FormatError({ file: file.name, tensor, found, expected, hint });
  };
  const stored = WEIGHT_DTYPE[from];
  if (stored === null) return fail(from, "F32, F16, BF16 or F64", NOT_SAID);
  if (shape.length !== spec.shape.length || shape.some((n, axis) => n !== spec.shape[axis])) {
    return fail(`shape [${shape.join(", ")}]`, `[${spec.shape.join(", ")}], by config.json`);
  }
  const { dtypes, maxBufferBytes } = device.backend.caps;
  const dtype = dtypes.has(stored) ? stored : "f32";
  const bytes = spec.shape.reduce((a, b) => a * b, BYTES[dtype]);
  if (bytes > maxBufferBytes)
    return fail(`${bytes} bytes`, `at most ${maxBufferBytes}, the largest buffer of ${device.name}`);
  return { ...spec, tensor, from, dtype };
}

function mismatch(
  config: DecoderConfig,
  file: TensorFile,
  missing: readonly string[],
  unexpected: readonly string[],
): FormatError {
  const some = (list: readonly string[]): string =>
    list.slice(0, 5).join(", ") + (list.length > 5 ? `, and ${list.length - 5} more` : "");
  const { head } = ARCHITECTURES[config.modelType].names;
  const parts = [
    ...(missing.length > 0 ? [`${missing.length} missing: ${some(missing)}`] : []),
    ...(unexpected.length > 0 ? [`${unexpected.length} unexpected: ${some(unexpected)}`] : []),
  ];
  const first = missing[0] ?? unexpected[0];
  const hint = missing.includes(`${head}.weight`)
    ? 'If the output embedding is the input embedding, config.json must say "tie_word_embeddings": true.'
    : undefined;
  return new FormatError({
    file: file.name,
    tensor: first,
    found: `tensors that do not fit the config (${parts.join("; ")})`,
    expected: `exactly the ${parameterSpecs(config).length} tensors of a ${config.modelType} model`,
    hint,
  });
}

/** Copies all weights to the device. On an error, frees everything that it allocated. */
export async function loadParameters(
  matches: readonly Match[],
  file: TensorFile,
  device: Device,
): Promise<Map<string, nn.Parameter>> {
  const parameters = new Map<string, nn.Parameter>();
  try {
    for (const match of matches) {
      const storage = device.allocate(deviceBytes(match), match.path);
      parameters.set(match.path, new nn.Parameter(storage, match.shape, match.dtype, device));
      await copy(match, file, (data, offset) => storage.buffer.write(data, offset));
    }
    return parameters;
  } catch (error) {
    for (const { storage } of parameters.values()) storage.buffer.free();
    throw error;
  }
}

/** Reads the values of a parameter into memory that no submitted program uses: without a copy where the device allows that. */
export async function readInto(match: Match, file: TensorFile, memory: DeviceBuffer): Promise<void> {
  const { begin, end } = file.entries.get(match.tensor)!;
  const view = isWidened(match) ? null : (memory.hostView?.() ?? null);
  if (view) await file.readInto(match.tensor, 0, view.subarray(0, end - begin));
  else await copy(match, file, (data, offset) => memory.write(data, offset));
}

const isWidened = ({ from, dtype }: Match): boolean => WEIGHT_DTYPE[from] !== dtype || from === "F64";

async function copy(
  match: Match,
  file: TensorFile,
  write: (data: ArrayBufferView, offset: number) => void,
): Promise<void> {
  const { tensor, from, dtype } = match;
  const { begin, end } = file.entries.get(tensor)!;
  const chunk = new Uint8Array(Math.min(CHUNK_BYTES, end - begin));
  for (let at = 0; at < end - begin; at += CHUNK_BYTES) {
    const bytes = chunk.subarray(0, Math.min(CHUNK_BYTES, end - begin - at));
    await file.readInto(tensor, at, bytes);
    const shape = [bytes.byteLength / FILE_DTYPE_BYTES[from]];
    const data = isWidened(match) ? decodeF32({ dtype: from, shape, bytes }, file.name, tensor) : bytes;
    write(data, (at / FILE_DTYPE_BYTES[from]) * BYTES[dtype]);
  }
}

/** The bytes that a parameter takes on the device. */
export function deviceBytes({ shape, dtype }: Match): number {
  return shape.reduce((a, b) => a * b, BYTES[dtype]);
}
