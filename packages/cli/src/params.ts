/** `tiedlora params`: counts an adapter's parameters from the model's architecture alone. */
import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { adaptableSpecs, parameterSpecs, preset, PRESET_NAMES, type DecoderConfig } from "@tiedlora/models";
import { isOnHub, loadConfig } from "@tiedlora/models/node";
import { METHOD_NAMES, type MethodName } from "tiedlora";
import { describeTies, suggestion } from "tiedlora/internal";
import { countParameters, planAdapter } from "tiedlora";
import type { Modules } from "tiedlora";
import { findModel } from "./find-model.ts";
import { UsageError } from "./settings.ts";
import { methodName, optionsByName, target, whole } from "./options.ts";
import type { Output } from "./output.ts";
import { declareMethod } from "./method-settings.ts";
import { DEFAULT_TARGET } from "./train-settings.ts";

interface ParamsOptions {
  readonly model: string;
  readonly method: MethodName;
  readonly rank: number;
  readonly methodOptions?: Readonly<Record<string, unknown>>;
  readonly target: Modules;
  readonly json?: true;
}

export function addParams(program: Command, output: Output): void {
  program
    .command("params")
    .description("count the parameters that a method trains, from the architecture alone")
    .requiredOption(
      "--model <name|dir>",
      `a model directory, a name on the Hugging Face hub, or one of ${PRESET_NAMES.join(", ")}`,
    )
    .requiredOption("--method <name>", METHOD_NAMES.join(", "), methodName)
    .requiredOption("--rank <n>", "rank of the update", whole(1))
    .option(
      "--method-options <name=value,...>",
      "options that only some methods have: bases=16",
      optionsByName,
    )
    .option(
      "--target <modules>",
      "all-linear, qkv (as in the Tied-LoRA paper), module names, or /pattern/",
      target,
      DEFAULT_TARGET,
    )
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  tiedlora params --model llama-2-7b --method tl6 --rank 8")
    .action(async (options: ParamsOptions) => params(options, output));
}

async function params(options: ParamsOptions, output: Output): Promise<void> {
  const config = preset(options.model) ?? (await readConfig(options.model, output));
  const linears = adaptableSpecs(config);
  const { model, method, rank, target: adapted, methodOptions } = options;
  const own = declareMethod(method, { rank, target: adapted }, methodOptions);
  const trainable = countParameters(linears, own, parameterSpecs(config)).trainable;
  const lora = countParameters(
    linears,
    declareMethod("lora", { rank, target: adapted }, undefined),
  ).trainable;
  const percentOfLora = (100 * trainable) / lora;
  const plan = planAdapter(linears, own, parameterSpecs(config));
  const modules = plan.sites.length;
  const target = targetText(options.target);
  if (options.json) {
    output.out(JSON.stringify({ model, method, rank, target, modules, trainable, lora, percentOfLora }));
  } else {
    const share =
      method === "lora" ? "" : ` (${percentOfLora.toFixed(2)} % of LoRA's ${lora.toLocaleString("en-US")})`;
    output.out(
      `${method}, rank ${rank}, on ${model}: ${trainable.toLocaleString("en-US")} trainable parameters${share}`,
    );
    output.out(`target ${target}: ${modules} modules${describeTies(plan)}`);
  }
}

/** A target as --target takes it. */
function targetText(target: Modules): string {
  if (typeof target === "string") return target;
  return "source" in target ? `/${target.source}/` : target.join(",");
}

/** The config.json of a model directory, or of a model on the hub. */
async function readConfig(model: string, output: Output): Promise<DecoderConfig> {
  if (await isOnHub(model)) return loadConfig((await findModel(model, output, { part: "config" })).directory);
  if (!(await stat(model).catch(() => null))?.isDirectory()) {
    const hint = suggestion(model, PRESET_NAMES, "known names are");
    throw new UsageError(`"${model}" is neither a directory nor the name of a known model; ${hint}`);
  }
  return loadConfig(model);
}
