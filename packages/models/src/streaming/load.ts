/** Loads a model for streaming: the matrices of its layers stay in their files, all else goes into memory. */
import type { Device, Files, TensorFile } from "@tiedlora/core";
import { ARCHITECTURES } from "../architectures.ts";
import type { DecoderConfig } from "../config.ts";
import { Decoder } from "../decoder.ts";
import { deviceBytes, loadParameters, type Match, readInto } from "../weights.ts";
import { StreamedModel } from "./model.ts";
import { absentParameter, type PagedTensor } from "./paged.ts";
import { WeightFiles } from "./weight-files.ts";

/** `weights`: the files, open; `matches`: the tensor of each parameter in them. */
export async function loadStreamed(
  config: DecoderConfig,
  device: Device,
  matches: readonly Match[],
  weights: TensorFile,
  files: Files,
): Promise<Decoder> {
  const layerOf = layerFinder(config);
  // Vectors (norms, biases) take next to nothing, and adapters may copy them.
  const isPaged = ({ path, shape }: Match): boolean => shape.length > 1 && layerOf(path) !== null;
  const paged = matches.filter(isPaged);
  const source = await WeightFiles.of(files, weights, paged.map(({ tensor }) => tensor)); // prettier-ignore
  const parameters = await loadParameters(matches.filter((match) => !isPaged(match)), weights, device); // prettier-ignore
  const layers: PagedTensor[][] = Array.from({ length: config.layers }, () => []);
  for (const match of paged) {
    const { path, shape, dtype, tensor } = match;
    const parameter = absentParameter(device, path, shape, dtype);
    parameters.set(path, parameter);
    layers[layerOf(path)!]!.push({
      parameter,
      bytes: deviceBytes(match),
      fill: (memory) => source.read(tensor, (file) => readInto(match, file, memory)),
    });
  }
  const model = new Decoder(config, device, (path) => parameters.get(path)!);
  model.streamed = new StreamedModel(model, layers, source);
  return model;
}

/** Gives the layer to which the parameter at a path belongs; null for the embeddings, the last norm and the head. */
function layerFinder({ modelType }: DecoderConfig): (path: string) => number | null {
  const { base, layers } = ARCHITECTURES[modelType].names;
  const prefix = `${base}.${layers}.`;
  return (path) => (path.startsWith(prefix) ? Number.parseInt(path.slice(prefix.length), 10) : null);
}
