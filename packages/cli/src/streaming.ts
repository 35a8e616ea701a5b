/** Whether the weights of a model stay in their files and are read as they are needed: if asked for, or if there is no room for them. */
import type { Device } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { type QuantizeKind, weightBytes } from "@tiedlora/models";
import { type Output, paint } from "./output.ts";

/** The help of --stream. */
export const STREAM_HELP =
  "read the layers' weights from their files as they are needed; without it, only if they do not fit";

/** What `decideStreaming` is told. */
interface StreamingChoice {
  /** Stream in any case. */
  readonly stream?: boolean | undefined;
  /** The form in which the weights are quantized while they are loaded, if they are. */
  readonly quantize?: QuantizeKind | undefined;
  /** How many processes share the memory, each with a model of its own. Default: 1. */
  readonly processes?: number;
  /** Where the decision is announced. */
  readonly output: Output;
}

/** What a device needs beside the weights, at least: for compiled programs and the values that they compute. */
const BESIDE = 256 * 2 ** 20;

/** Decides whether the model in `directory` is streamed, and says so in one line if it is. */
export async function decideStreaming(
  directory: string,
  device: Device,
  { stream = false, quantize, processes = 1, output }: StreamingChoice,
): Promise<boolean> {
  // What cannot be opened is reported by loading.
  const bytes = await weightBytes(await directoryFiles(directory), quantize).catch(() => 0);
  const free = process.availableMemory() / processes;
  const room = Math.min(device.backend.caps.maxTotalBytes ?? Infinity, free);
  const fits = bytes + BESIDE <= room;
  if (fits && !stream) return false;
  const why = stream
    ? "--stream"
    : `they do not fit into ${gib(room)} GiB${processes > 1 ? ` for each of ${processes} processes` : ""}`;
  output.info(
    `${paint("yellow", "note:")} the weights, ${gib(bytes)} GiB, are read layer by layer from their files as they are needed (${why})`,
  );
  return true;
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(bytes < 2 ** 28 ? 3 : 1);
}
