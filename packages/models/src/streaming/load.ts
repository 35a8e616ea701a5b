/** Loads a model for streaming: the matrices of its layers stay in their files, all else goes into memory. */
import type { Device, TensorFile } from "@tiedlora/core";
import { ARCHITECTURES } from "../architectures.ts";
import type { DecoderConfig } from "../config.ts";
import { Decoder } from "../decoder.ts";
import { parameterSpecs } from "../modules.ts";
import type { QuantizedRows } from "../quantized/form.ts";
import { loadQuantized, quantizedParameter, quantizedParts, readQuantized } from "../quantized/on-device.ts";
import { deviceBytes, loadParameters, type Match, readInto } from "../weights.ts";
import { StreamedModel } from "./model.ts";
import { absentParameter, type PagedWeight } from "./paged.ts";
import type { WeightFiles } from "./weight-files.ts";

/** `matches` and `quantized`: the tensors of each parameter in `weights`, which are read from `files`, open. */
export async function loadStreamed(
  config: DecoderConfig,
  device: Device,
  matches: readonly Match[],
  quantized: ReadonlyMap<string, QuantizedRows>,
  weights: TensorFile,
  files: WeightFiles,
): Promise<Decoder> {
  const layerOf = layerFinder(config);
  // Vectors (norms, biases) take next to nothing, and adapters may copy them.
  const isPaged = ({ path, shape }: Pick<Match, "path" | "shape">): boolean =>
    shape.length > 1 && layerOf(path) !== null;
  const whole = matches.filter((match) => !isPaged(match));
  const parameters = await loadParameters(whole, weights, device);
  const packed = [...quantized].filter(([path]) => layerOf(path) === null);
  await loadQuantized(new Map(packed), weights.name, device, parameters);
  const byPath = new Map(matches.map((match) => [match.path, match]));
  const layers: PagedWeight[][] = Array.from({ length: config.layers }, () => []);
  for (const spec of parameterSpecs(config).filter(isPaged)) {
    const rows = quantized.get(spec.path);
    const paged = rows
      ? pagedQuantized(spec.path, rows, weights, device)
      : pagedTensor(byPath.get(spec.path)!, weights, device);
    parameters.set(spec.path, paged.weight);
    layers[layerOf(spec.path)!]!.push(paged);
  }
  const model = new Decoder(config, device, (path) => parameters.get(path)!);
  model.streamed = new StreamedModel(model, layers, files);
  return model;
}

function pagedTensor(match: Match, weights: TensorFile, device: Device): PagedWeight {
  const { path, shape, dtype } = match;
  const weight = absentParameter(device, path, shape, dtype);
  return {
    weight,
    parts: [{ parameter: weight, bytes: deviceBytes(match) }],
    fill: ([memory]) => readInto(match, weights, memory!),
  };
}

function pagedQuantized(path: string, rows: QuantizedRows, weights: TensorFile, device: Device): PagedWeight {
  const form = quantizedParts(path, rows, weights.name, device);
  const parts = form.map(({ name, shape, dtype, bytes }) => ({
    parameter: absentParameter(device, name, shape, dtype),
    bytes,
  }));
  const weight = quantizedParameter(rows, parts.map(({ parameter }) => parameter)); // prettier-ignore
  return { weight, parts, fill: (memory) => readQuantized(rows, form, memory) };
}

/** Gives the layer to which the parameter at a path belongs; null for the embeddings, the last norm and the head. */
function layerFinder({ modelType }: DecoderConfig): (path: string) => number | null {
  const { base, layers } = ARCHITECTURES[modelType].names;
  const prefix = `${base}.${layers}.`;
  return (path) => (path.startsWith(prefix) ? Number.parseInt(path.slice(prefix.length), 10) : null);
}
