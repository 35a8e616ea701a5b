/** Code shared by the commands that use a model: they load a model and perhaps an adapter, and open a device. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { isRecord, parseJsonObject } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import type { Decoder, LoadOptions } from "@tiedlora/models";
import { isOnHub, loadModel, loadPretrained, type Pretrained } from "@tiedlora/models/node";
import type { Adapter } from "tiedlora";
import { CONFIG_FILE } from "tiedlora/internal";
import { readProvenance } from "tiedlora";
import { loadAdapter } from "tiedlora/node";
import { BACKEND_NAMES, withDevice, type BackendName } from "./device.ts";
import { baseOf, findModel } from "./find-model.ts";
import { oneOf, path } from "./options.ts";
import type { Output } from "./output.ts";
import { type Quantize, QUANTIZE_ABOUT, QUANTIZE_NAMES, quantizeFor, quantizeOption } from "./quantized.ts";
import { UsageError } from "./settings.ts";
import { decideStreaming, STREAM_HELP } from "./streaming.ts";

export interface ModelFlags {
  readonly model?: string;
  readonly adapter?: string;
  readonly backend: BackendName;
  readonly stream?: true;
  /** Of commands that compute with the model, not of those that write its weights. */
  readonly quantize?: Quantize;
}

/** Adds --quantize. */
export function addQuantize(command: Command): Command {
  return command.option("--quantize <name>", QUANTIZE_ABOUT, oneOf(QUANTIZE_NAMES));
}

/** Adds --model, --adapter, --backend and --stream; with `several`, --adapter takes any number of adapters, each perhaps with a name. */
export function addModelFlags(
  command: Command,
  { several = false }: { readonly several?: boolean } = {},
): Command {
  return command
    .option(
      "--model <dir>",
      "the base model, or its name on the Hugging Face hub (default: the one that the adapter was trained on)",
      path,
    )
    .addOption(adapterOption(several))
    .option("--backend <name>", "where to compute: cpu, webgpu, or reference", oneOf(BACKEND_NAMES), "cpu")
    .option("--stream", STREAM_HELP);
}

function adapterOption(several: boolean): Option {
  const what = "as train, peft or mlx-lm writes it, or its name on the hub (default: none)";
  if (several)
    return new Option("--adapter <[name=]dir...>", `adapters, each ${what}; without a name, it has that of its directory`); // prettier-ignore
  return new Option("--adapter <dir>", `an adapter, ${what}`).argParser(path);
}

export interface OpenedModel {
  readonly model: Decoder;
  readonly adapter: Adapter | null;
  /** The text that followed every prompt in the adapter's training, if there was one. */
  readonly separator: string | undefined;
  /** The form to which the weights were quantized in the adapter's training, if they were. */
  readonly trainedOn: string | undefined;
  /** The directory of the model. */
  readonly directory: string;
  /** The origin of the model, for files of adapters. */
  readonly base: Readonly<Record<string, string>>;
}

export interface Opened extends OpenedModel, Pick<Pretrained, "tokenizer" | "padId"> {}

/**
 * Runs `work` with the model, the tokenizer and the adapter of the flags, and closes the device afterwards. With `attach: false`, the
 * adapter only says which model is loaded, and how its weights are quantized.
 */
export async function withModel<T>(
  flags: ModelFlags & { readonly attach?: false },
  output: Output,
  work: (opened: Opened) => Promise<T>,
): Promise<T> {
  return withLoaded(
    flags,
    output,
    loadPretrained,
    ({ model, tokenizer: own, padId }, { chatTemplate, ...rest }) => {
      const tokenizer = chatTemplate === undefined ? own : own.withChatTemplate(chatTemplate);
      return work({ model, tokenizer, padId, ...rest });
    },
  );
}

/**
 * As `withModel`, for commands that write weights or adapters: without a tokenizer, which the model's directory need not have, and
 * with the weights as they are in the files.
 */
export async function withModelAlone<T>(
  flags: ModelFlags & { readonly attach?: false },
  output: Output,
  work: (opened: OpenedModel) => Promise<T>,
): Promise<T> {
  const load = async (directory: string, options: LoadOptions): Promise<{ model: Decoder }> => ({
    model: await loadModel(directory, options),
  });
  const own = { ...flags, ofWeights: true } as const;
  return withLoaded(own, output, load, ({ model }, rest) => work({ model, ...rest }));
}

async function withLoaded<L extends { readonly model: Decoder }, T>(
  flags: ModelFlags & { readonly ofWeights?: true; readonly attach?: false },
  output: Output,
  load: (directory: string, options: LoadOptions) => Promise<L>,
  work: (loaded: L, rest: Omit<OpenedModel, "model"> & { readonly chatTemplate?: string }) => Promise<T>,
): Promise<T> {
  const from = flags.adapter === undefined ? null : await findAdapter(flags.adapter, output);
  const given = flags.model ?? (await modelOf(flags.adapter, from));
  const found = await findModel(given, output);
  const { directory } = found;
  const {
    separator,
    quantize: trainedOn,
    chat_template: chatTemplate,
  } = from === null ? {} : await readProvenance(await directoryFiles(from));
  const form = flags.ofWeights ? undefined : await quantizeFor(directory, flags.quantize, trainedOn, output);
  return withDevice(flags.backend, async (device) => {
    const quantize = quantizeOption(form);
    const stream = await decideStreaming(directory, device, {
      ...flags,
      quantize: undefined,
      ...quantize,
      output,
    });
    const loaded = await load(directory, { device, stream, ...quantize });
    const adapter = from === null || flags.attach === false ? null : await loadAdapter(loaded.model, from);
    return work(loaded, {
      adapter,
      separator,
      trainedOn,
      directory,
      base: baseOf(given, found),
      ...(chatTemplate !== undefined && { chatTemplate }),
    });
  });
}

/** The directory of an adapter; one that is on the hub is loaded. A path that is wrong is left to the adapter's own messages. */
export async function findAdapter(given: string, output: Output): Promise<string> {
  if (!(await isOnHub(given))) return given;
  return (await findModel(given, output, { setting: "--adapter", part: "adapter" })).directory;
}

/** The model that the config of an adapter names. Throws UsageError if it does not say. */
async function modelOf(given: string | undefined, directory: string | null): Promise<string> {
  if (directory === null)
    throw new UsageError(
      "--model is missing: give a Hugging Face directory, or a name on the hub (owner/name)",
    );
  const path = join(directory, CONFIG_FILE);
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null)
    throw new UsageError(`--adapter ${given}: there is no ${CONFIG_FILE} in it; expected an adapter`);
  const config = parseJsonObject(text, path);
  const base = isRecord(config) ? config["base_model_name_or_path"] : null;
  if (typeof base !== "string" || base === "")
    throw new UsageError(`--model is missing, and ${path} does not say which it was trained on`);
  const revision = config["revision"];
  const named = typeof revision === "string" ? `${base}@${revision}` : base;
  return (await isOnHub(named)) ? named : base;
}
