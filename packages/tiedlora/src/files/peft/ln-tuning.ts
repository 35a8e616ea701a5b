/** peft's LN_TUNING: copies of norms, at the norms' paths. Norms are no sites of adapters, so it is not one of the kinds in kinds.ts. */
import { type Files, FormatError } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import { adaptersOf, type Adapter } from "../../adapter/adapter.ts";
import { normsAmong, parameterInfos } from "../../adapter/overlay.ts";
import type { LinearInfo } from "../../linear-info.ts";
import { methods } from "../../methods/index.ts";
import { modelTypeOf } from "../../model.ts";
import { CONFIG_FILE, type Provenance } from "../native.ts";
import type { LoadOptions } from "../options.ts";
import type { OutputFile } from "../../output-file.ts";
import { Reader } from "./config.ts";
import { into, PREFIX } from "./keys.ts";
import { fill, withTensors } from "./load.ts";
import { outputFiles } from "./save.ts";
import { savedModules, shortNames, targetPaths } from "./targets.ts";

const BLOCK = ["input_layernorm", "post_attention_layernorm", "norm"];
const FOUR = [...BLOCK, "pre_feedforward_layernorm", "post_feedforward_layernorm"];

/** peft's default targets, for target_modules null, by model_type. */
const DEFAULTS: Readonly<Record<string, readonly string[]>> = {
  llama: BLOCK,
  mistral: BLOCK,
  gemma: BLOCK,
  gemma2: FOUR,
  gemma3_text: FOUR,
  gpt2: ["ln_1", "ln_2", "ln_f"],
  phi: ["input_layernorm", "final_layernorm"],
  qwen2: ["post_attention_layernorm"],
  qwen3: ["post_attention_layernorm"],
};

function norms(model: nn.Module): LinearInfo[] {
  const parameters = parameterInfos(adaptersOf(model).ownParameters());
  const width = new Map(parameters.map(({ path, shape }) => [path, shape[0]!]));
  return [...normsAmong(parameters)].map((path) => {
    const size = width.get(`${path}.weight`)!;
    return { path, in: size, out: size };
  });
}

/** Puts copies of norms on a model. */
export async function loadPeftNorms(
  model: nn.Module,
  files: Files,
  raw: Readonly<Record<string, unknown>>,
  options: LoadOptions = {},
): Promise<Adapter> {
  const where = `${files.name}/${CONFIG_FILE}`;
  const targets = new Reader(raw, where).targets();
  const modules = targets.modules ?? DEFAULTS[modelTypeOf(model) ?? ""] ?? null;
  if (modules === "all-linear")
    throw new FormatError({ file: where, tensor: "target_modules", found: '"all-linear"', expected: "names of norms" }); // prettier-ignore
  const target = targetPaths(model, norms(model), { ...targets, modules }, where);
  const parameters = parameterInfos(adaptersOf(model).ownParameters());
  const modulesToSave = savedModules(parameters, targets.modulesToSave, where);
  const method = methods.normTuning({ target, modulesToSave });
  return withTensors(files, (file) =>
    fill(model, files, file, method, options, (adapter) =>
      [...adapter.replacements()].map(([path, parameter]) => into(parameter, ...namesOf(path, target))),
    ),
  );
}

/** The names of a copy in a file; a raw state dict has the adapter's name in them. */
function namesOf(path: string, tuned: readonly string[]): string[] {
  const [module, field] = [path.slice(0, path.lastIndexOf(".")), path.slice(path.lastIndexOf(".") + 1)];
  if (!tuned.includes(module)) return [`${PREFIX}${path}`];
  const layer = `${PREFIX}${module}.ln_tuning_layers`;
  return [`${layer}.${field}`, `${layer}.default.${field}`];
}

/** The files of a `norm-tuning` adapter as peft's LN_TUNING. Throws for what that has no place for. */
export function peftNormFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  const { method, model } = adapter;
  if (method.bias !== "none")
    throw new Error(
      `peft's LN_TUNING has the biases of its norms alone, and this adapter has others (bias: ${method.bias}); keep the native file`,
    );
  const infos = norms(model);
  const known = new Set(infos.map(({ path }) => path));
  const module = (path: string): string => path.slice(0, path.lastIndexOf("."));
  const replaced = [...adapter.replacements()];
  const tuned = [...new Set(replaced.map(([path]) => module(path)).filter((path) => known.has(path)))];
  const others = [...new Set(replaced.map(([path]) => module(path)).filter((path) => !known.has(path)))];
  const tensors = replaced.map(([path, parameter]): [string, nn.Parameter] => [namesOf(path, tuned)[0]!, parameter]); // prettier-ignore
  return outputFiles(adapter, provenance, tensors, {
    peft_type: "LN_TUNING",
    target_modules: shortNames(tuned, infos),
    modules_to_save: others.length === 0 ? null : others,
    exclude_modules: null,
  });
}
