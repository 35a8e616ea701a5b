/** The start of a new adapter that --init names: what is checked before any work, and what it is computed from. */
import type { Device } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import { loadModel } from "@tiedlora/models/node";
import {
  type Adapter,
  adaptWithStart,
  checkStartMethod,
  type EncodedExample,
  observedBatches,
  type StartName,
  STARTS,
  type StartOptions,
} from "tiedlora";
import { siteWeight } from "tiedlora/internal";
import { checkRank } from "./checks.ts";
import { examplesOf } from "./loss-settings.ts";
import type { Output } from "./output.ts";
import { UsageError } from "./settings.ts";
import { methodOf } from "./method-settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** The number of examples that a start from data observes by default. */
const OBSERVED = 32;

/** Whether a start observes the model on data. */
function observes(start: StartName): boolean {
  const { needs } = STARTS[start];
  return needs === "moments" || needs === "gradient";
}

/** Throws UsageError if the settings cannot have the start that --init names. */
export function checkStart(settings: TrainSettings): void {
  const { init, initExamples, initFrom, quantize, shuffleBuffer, loss, stream } = settings;
  if (init === undefined) {
    if (initExamples !== undefined)
      throw new UsageError(
        "--init-examples is given without --init, which names the start that observes them",
      );
    return;
  }
  if (initFrom !== undefined)
    throw new UsageError(
      `--init ${init} is given beside --init-from, whose adapter has values; give one of them`,
    );
  try {
    checkStartMethod(methodOf(settings), init);
  } catch (cause) {
    throw new UsageError(`--init: ${(cause as Error).message}`);
  }
  if (initExamples !== undefined && !observes(init))
    throw new UsageError(`--init-examples is given, and --init ${init} observes no data; leave it out`);
  if (STARTS[init].needs === "original" && quantize === undefined)
    throw new UsageError(
      `--init ${init} starts from what --quantize loses, which is not given; give --quantize, or another start`,
    );
  if (!observes(init)) return;
  if (stream)
    throw new UsageError(
      `--init ${init} observes the model on data, with all weights in memory; leave --stream out, or give pissa, olora or orthogonal`,
    );
  if (shuffleBuffer !== undefined)
    throw new UsageError(
      `--init ${init} observes examples, and --shuffle-buffer keeps none in memory; leave it out, or give another start`,
    );
  if (examplesOf({ loss }) !== "texts")
    throw new UsageError(
      `--init ${init} observes examples with one answer each, and --loss ${loss} has preferences; give another start`,
    );
}

/** What a start needs. */
interface StartContext {
  readonly device: Device;
  /** The directory of the base model, for the weights before quantization. */
  readonly directory: string;
  readonly examples: readonly EncodedExample[];
  readonly output: Output;
}

/** Puts a new adapter on the model, with the start of --init. */
export async function adaptAtStart(
  model: Decoder,
  settings: TrainSettings,
  context: StartContext,
): Promise<Adapter> {
  const { init: start, initExamples: count = OBSERVED, seed } = settings;
  const { device, directory, examples, output } = context;
  const method = methodOf(settings);
  checkRank(model, method, output);
  const options: StartOptions = {
    start: start!,
    seed,
    ...(observes(start!) && { batches: observedBatches(examples, { count, seed }) }),
  };
  const began = performance.now();
  const adapter =
    STARTS[start!].needs === "original"
      ? await withOriginal(directory, device, (original) =>
          adaptWithStart(model, method, { ...options, original }),
        )
      : await adaptWithStart(model, method, options);
  const from = observes(start!) ? `, from ${options.batches!.length} examples` : "";
  output.info(`A and B start as ${start} says${from} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  return adapter;
}

/** Runs `work` with the weights as the files have them, which are read one at a time. */
async function withOriginal<T>(
  directory: string,
  device: Device,
  work: (original: NonNullable<StartOptions["original"]>) => Promise<T>,
): Promise<T> {
  const unquantized = await loadModel(directory, { device, stream: true });
  try {
    return await work((_path, site) => siteWeight({ model: unquantized }, site));
  } finally {
    await unquantized.streamed?.free();
  }
}
