/** Code shared by the commands that use a model: they load a model and perhaps an adapter, and open a device. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { type Device, isRecord, parseJsonObject } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import type { Decoder } from "@tiedlora/models";
import { loadModel, type Pretrained } from "@tiedlora/models/node";
import type { Adapter } from "tiedlora";
import { CONFIG_FILE } from "tiedlora/internal";
import { readProvenance } from "tiedlora";
import { loadAdapter } from "tiedlora/node";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import { checkModelDirectory, openModel } from "./load.ts";
import { oneOf, path } from "./options.ts";
import { UsageError } from "./settings.ts";

export interface ModelFlags {
  readonly model?: string;
  readonly adapter?: string;
  readonly backend: BackendName;
}

/** Adds --model, --adapter and --backend. */
export function addModelFlags(command: Command): Command {
  return command
    .option("--model <dir>", "the base model (default: the one that the adapter was trained on)", path)
    .option("--adapter <dir>", "an adapter, as train, peft or mlx-lm writes it (default: none)", path)
    .option("--backend <name>", "where to compute: cpu, webgpu, or reference", oneOf(BACKEND_NAMES), "cpu");
}

export interface OpenedModel {
  readonly model: Decoder;
  readonly adapter: Adapter | null;
  /** The text that followed every prompt in the adapter's training, if there was one. */
  readonly separator: string | undefined;
  /** The directory of the model. */
  readonly directory: string;
}

export interface Opened extends OpenedModel, Pick<Pretrained, "tokenizer" | "padId"> {}

/** Runs `work` with the model, the tokenizer and the adapter of the flags, and closes the device afterwards. */
export async function withModel<T>(flags: ModelFlags, work: (opened: Opened) => Promise<T>): Promise<T> {
  return withLoaded(flags, openModel, ({ model, tokenizer, padId }, rest) =>
    work({ model, tokenizer, padId, ...rest }),
  );
}

/** As `withModel`, without a tokenizer, which the model's directory need not have. */
export async function withModelAlone<T>(
  flags: ModelFlags,
  work: (opened: OpenedModel) => Promise<T>,
): Promise<T> {
  const load = async (directory: string, device: Device): Promise<{ model: Decoder }> => ({
    model: await loadModel(directory, { device }),
  });
  return withLoaded(flags, load, ({ model }, rest) => work({ model, ...rest }));
}

async function withLoaded<L extends { readonly model: Decoder }, T>(
  flags: ModelFlags,
  load: (directory: string, device: Device) => Promise<L>,
  work: (loaded: L, rest: Omit<OpenedModel, "model">) => Promise<T>,
): Promise<T> {
  const directory = await modelOf(flags);
  await checkModelDirectory(directory);
  return withDevice(flags.backend, async (device) => {
    const loaded = await load(directory, device);
    const adapter = flags.adapter === undefined ? null : await loadAdapter(loaded.model, flags.adapter);
    const { separator } =
      flags.adapter === undefined ? {} : await readProvenance(await directoryFiles(flags.adapter));
    return work(loaded, { adapter, separator, directory });
  });
}

/** The model directory of the flags, or the one that the adapter's config names. Throws UsageError if neither names one. */
async function modelOf({ model, adapter }: ModelFlags): Promise<string> {
  if (model !== undefined) return model;
  if (adapter === undefined) throw new UsageError("--model is missing: give a Hugging Face directory");
  const path = join(adapter, CONFIG_FILE);
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null)
    throw new UsageError(`--adapter ${adapter}: there is no ${CONFIG_FILE} in it; expected an adapter`);
  const config = parseJsonObject(text, path);
  const base = isRecord(config) ? config["base_model_name_or_path"] : null;
  if (typeof base !== "string" || base === "")
    throw new UsageError(`--model is missing, and ${path} does not say which it was trained on`);
  return base;
}
