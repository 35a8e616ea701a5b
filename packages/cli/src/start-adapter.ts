/** The adapter that a run trains: a new one, or the one that --init-from names; and the settings that follow from it. */
import { access } from "node:fs/promises";
import { join, resolve } from "node:path";
import { directoryFiles } from "@tiedlora/core/node";
import type { Decoder } from "@tiedlora/models";
import { isOnHub } from "@tiedlora/models/node";
import { adapt, type Adapter } from "tiedlora";
import { MLX_TENSORS, UnexpectedAdapterError } from "tiedlora/internal";
import { readAdapterConfig, TENSORS_FILE } from "tiedlora/internal";
import { readProvenance } from "tiedlora";
import { METHOD_NAMES } from "tiedlora";
import { checkpointName } from "tiedlora/internal/node";
import { digestOf } from "tiedlora/internal/node";
import { initFrom } from "tiedlora/node";
import type { RunFolder } from "./run/run-folder.ts";
import { checkRank } from "./checks.ts";
import { findModel, type Found, pinned } from "./find-model.ts";
import { checkPath } from "./load.ts";
import type { Output } from "./output.ts";
import { type Quantize, quantizeFor } from "./quantized.ts";
import { nameOf, UsageError } from "./settings.ts";
import { methodOf } from "./method-settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** Settings, and the keys of those that were given and are not defaults. */
export interface Given {
  readonly settings: TrainSettings;
  readonly given: ReadonlySet<keyof TrainSettings>;
}

export interface Started {
  readonly adapter: Adapter;
  /** The settings, completed by those that come from the adapter. */
  readonly settings: TrainSettings;
}

/** Puts the adapter on the model. A resumed run does not need the adapter that it once started from. */
export async function startAdapter(
  model: Decoder,
  { settings, given }: Given,
  folder: RunFolder,
  output: Output,
): Promise<Started> {
  const { initFrom: source, seed } = settings;
  if (source === undefined) {
    const method = methodOf(settings);
    checkRank(model, method, output);
    return { adapter: await adapt(model, method, { seed }), settings };
  }
  const { last } = folder;
  const directory = last === null ? source : join(folder.checkpoints, checkpointName(last.step));
  const dropout = given.has("dropout") ? settings.dropout : undefined;
  const expect = last === null ? expected({ settings, given }) : {};
  const adapter = await initFrom(model, directory, { seed, dropout, expect }).catch((error: unknown) => {
    throw error instanceof UnexpectedAdapterError ? new UsageError(`--init-from: ${error.message}`) : error;
  });
  const { separator } = await readProvenance(await directoryFiles(directory));
  const digest = settings.initDigest ?? (await digestOf(await tensorsOf(source)));
  output.info(`starting from the adapter in ${source}`);
  const own = { initDigest: digest, ...(separator !== undefined && { separator }) };
  return {
    adapter,
    settings: { ...withAdapter({ settings, given }, adapter), ...own, ...separatorOf(settings) },
  };
}

/** A given separator, which overrides the separator of the adapter's training. */
function separatorOf({ separator }: TrainSettings): Partial<TrainSettings> {
  return separator === undefined ? {} : { separator };
}

function expected({
  settings,
  given,
}: Given): Partial<Pick<TrainSettings, "method" | "rank" | "alpha" | "target">> {
  const keys = (["method", "rank", "alpha", "target"] as const).filter((key) => given.has(key));
  return Object.fromEntries(keys.map((key) => [key, settings[key]]));
}

/** Takes settings that were not given from the adapter; the target stays undefined, since adapters may name it differently. */
function withAdapter({ settings, given }: Given, { method }: Adapter): TrainSettings {
  const name = METHOD_NAMES.find((one) => one === method.name);
  const own = {
    method: given.has("method") ? settings.method : name,
    rank: method.rank,
    alpha: method.alpha,
    dropout: method.dropout,
    lr: given.has("lr") ? settings.lr : method.learningRate,
    target: given.has("target") ? settings.target : undefined,
  };
  return { ...settings, ...own } as TrainSettings;
}

/** The settings with the directory of an adapter that --init-from names on the hub, and its name with the commit. */
export async function findInitFrom(
  settings: TrainSettings,
  output: Output,
): Promise<{ readonly settings: TrainSettings; readonly initName?: string }> {
  const { initFrom: source } = settings;
  if (source === undefined || !(await isOnHub(source))) return { settings };
  const found = await findModel(source, output, { setting: "--init-from", part: "adapter" });
  return { settings: { ...settings, initFrom: found.directory }, initName: pinned(source, found) };
}

/** The form of the model's weights: that of --quantize, or else of the training of the adapter that --init-from names. */
export async function quantizeAsBefore(
  { initFrom: source, quantize }: TrainSettings,
  { directory }: Found,
  output: Output,
): Promise<Quantize | undefined> {
  if (source === undefined) return quantize;
  const { quantize: trainedOn } = await readProvenance(await directoryFiles(source));
  return quantizeFor(directory, quantize, trainedOn, output);
}

/** Throws unless --init-from, if given, names an adapter in a directory other than --out, with the expected digest, if any. */
export async function checkInitFrom(settings: TrainSettings): Promise<void> {
  const { initFrom: source, initDigest, out } = settings;
  if (source === undefined) {
    if (initDigest !== undefined) throw new UsageError("--init-digest is given without --init-from");
    return;
  }
  for (const key of [
    "layers",
    "methodOptions",
    "rankPattern",
    "alphaPattern",
    "modulesToSave",
    "trainedTokens",
  ] as const)
    if (settings[key] !== undefined)
      throw new UsageError(
        `--${nameOf(key)} is given with --init-from, whose adapter has its own; leave it out`,
      );
  if (settings.bias !== "none")
    throw new UsageError(
      `--bias ${settings.bias} is given with --init-from, whose adapter has its own; leave it out`,
    );
  if (resolve(source) === resolve(out))
    throw new UsageError(`--init-from ${source}: that is --out; give another directory for the new run`);
  await checkPath("--init-from", source, "directory", "expected an adapter of train, peft or mlx-lm");
  await readAdapterConfig(await directoryFiles(source));
  if (initDigest === undefined) return;
  const digest = await digestOf(await tensorsOf(source));
  if (digest !== initDigest)
    throw new Error(`--init-from ${source}: the SHA-256 of its tensors is ${digest}; expected ${initDigest}`);
}

async function tensorsOf(directory: string): Promise<string> {
  for (const name of [TENSORS_FILE, MLX_TENSORS]) {
    const found = await access(join(directory, name)).then(() => true, () => false); // prettier-ignore
    if (found) return join(directory, name);
  }
  throw new Error(`--init-from ${directory}: there is no ${TENSORS_FILE} in it; expected an adapter`);
}
