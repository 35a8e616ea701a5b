/** Whether the weights of a model stay in their files and are read as they are needed: if asked for, or if there is no room for them. */
import type { Device } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import type { RunConfig } from "@tiedlora/experiments";
import { largestRuns, stepTokens } from "@tiedlora/experiments/node";
import { type DecoderConfig, loadConfigFrom, type QuantizeKind, weightBytes } from "@tiedlora/models";
import { loadTokenizer } from "@tiedlora/models/node";
import { type Output, paint } from "./output.ts";

/** The help of --stream. */
export const STREAM_HELP =
  "read the layers' weights from their files as they are needed; without it, only if they do not fit";

/** A training step, as far as the memory that it takes depends on it. */
export interface TrainingStep {
  /** The tokens of a batch at most, and those of the largest batch as found in the data, which takes longer to say. */
  readonly tokens: { readonly limit: number; find(): Promise<number> };
  /** Whether values are computed again in the backward pass; null if there is no such choice, and they are not. */
  readonly checkpointing: boolean | null;
  readonly activations: "f32" | "f16" | "bf16";
}

/** The largest step among runs of a sweep on the model in `directory`. */
export function sweepStep(configs: readonly RunConfig[], directory: string): TrainingStep {
  const largest = largestRuns(configs);
  const limit = Math.max(0, ...largest.map(({ batch, seq }) => batch * seq));
  const find = async (): Promise<number> => stepTokens(largest, await loadTokenizer(directory));
  return { tokens: { limit, find }, checkpointing: null, activations: "f32" };
}

/** What `decideStreaming` is told. */
interface StreamingChoice {
  /** Stream in any case. */
  readonly stream?: boolean | undefined;
  /** The form in which the weights are quantized while they are loaded, if they are. */
  readonly quantize?: QuantizeKind | undefined;
  /** What is trained on them, if anything is. */
  readonly step?: TrainingStep;
  /** How many processes share the memory, each with a model of its own. Default: 1. */
  readonly processes?: number;
  /** Where the decision is announced. */
  readonly output: Output;
}

/** What a device needs beside the weights, at least: for compiled programs and the values that they compute. */
const BESIDE = 256 * 2 ** 20;

/**
 * Decides whether the model in `directory` is streamed, and says so in one line if it is. A streamed step keeps one number for each
 * of a layer's inputs, so streaming also helps where there is room for the weights, but not for the values that a step keeps.
 */
export async function decideStreaming(
  directory: string,
  device: Device,
  { stream = false, quantize, step, processes = 1, output }: StreamingChoice,
): Promise<boolean> {
  // What cannot be opened is reported by loading.
  const files = await directoryFiles(directory);
  const bytes = await weightBytes(files, quantize).catch(() => 0);
  const free = process.availableMemory() / processes;
  const room = Math.min(device.backend.caps.maxTotalBytes ?? Infinity, free);
  const fits = bytes + BESIDE <= room;
  const values = fits && !stream && step && bytes > 0 ? await excess(await loadConfigFrom(files), step, room - bytes - BESIDE) : null; // prettier-ignore
  if (fits && !stream && values === null) return false;
  const rooms = `${gib(room)} GiB${processes > 1 ? ` for each of ${processes} processes` : ""}`;
  const remedy = step?.checkpointing === false ? "; --checkpointing keeps fewer values" : "";
  const why = stream
    ? "--stream"
    : values === null
      ? `they do not fit into ${rooms}`
      : `with ${gib(values)} GiB for the values of a step they do not fit into ${rooms}${remedy}`;
  output.info(
    `${paint("yellow", "note:")} the weights, ${gib(bytes)} GiB, are read layer by layer from their files as they are needed (${why})`,
  );
  return true;
}

/** The bytes that the values of a step take, if they are more than `room`; otherwise null. */
async function excess(config: DecoderConfig, step: TrainingStep, room: number): Promise<number | null> {
  if (stepBytes(config, step, step.tokens.limit) <= room) return null;
  const bytes = stepBytes(config, step, await step.tokens.find());
  return bytes <= room ? null : bytes;
}

/** Bytes of logits that are computed at once: see `Decoder.maxLogitsBytes`. */
const LOGITS_BYTES = 64 * 2 ** 20;

/**
 * About how many bytes the values of a training step with an adapter take. Of each layer the backward pass needs some five vectors as wide
 * as the residual stream, and three as wide as the MLP; with checkpointing the input of each layer, and these of one.
 */
export function stepBytes(
  { hidden, intermediate, layers, vocab, experts }: DecoderConfig,
  { checkpointing, activations }: Pick<TrainingStep, "checkpointing" | "activations">,
  tokens: number,
): number {
  const width = experts === null ? intermediate : Math.max(intermediate, experts.count * experts.width);
  const perLayer = 4 * tokens * (5 * hidden + 3 * width);
  const input = (activations === "f32" ? 4 : 2) * tokens * hidden;
  const logits = 3 * Math.min(LOGITS_BYTES, 4 * tokens * vocab);
  return logits + (checkpointing ? layers * input + perLayer : layers * perLayer);
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(bytes < 2 ** 28 ? 3 : 1);
}
