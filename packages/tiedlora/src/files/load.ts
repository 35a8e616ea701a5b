/** Reads adapters of any known format, which their config determines, and writes them in a format given by name. */
import { describeValue, FormatError, type Files } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../adapter/adapter.ts";
import type { LoadOptions } from "./options.ts";
import { isMlxConfig, loadMlx, mlxFiles } from "./mlx.ts";
import {
  CONFIG_FILE,
  loadNative,
  nativeFiles,
  PEFT_TYPE,
  type Provenance,
  readAdapterConfig,
} from "./native.ts";
import type { OutputFile } from "../output-file.ts";
import { loadPeftNorms } from "./peft/ln-tuning.ts";
import { loadPeftLora, loadPeftVera } from "./peft/load.ts";
import { KINDS } from "./peft/kinds.ts";
import { loadPeftKind, peftFiles, peftSeedFiles, peftTopKFiles } from "./peft/other.ts";
import { peftLoraFiles, peftStackedFiles, peftVeraFiles } from "./peft/save.ts";

type Loader = (
  model: nn.Module,
  files: Files,
  config: Record<string, unknown>,
  options: LoadOptions,
) => Promise<Adapter>;

/** The loaders, by `peft_type` in adapter_config.json. */
const LOADERS: Readonly<Record<string, Loader>> = {
  [PEFT_TYPE]: loadNative,
  LORA: loadPeftLora,
  VERA: loadPeftVera,
  LN_TUNING: loadPeftNorms,
  ...Object.fromEntries(Object.keys(KINDS).map((type) => [type, loadPeftKind])),
};

/**
 * Puts an adapter from files on a model. Strict: throws FormatError if a tensor is missing, unexpected or of another shape
 * (Python's peft only warns, or does not even warn). A failed load leaves the model unchanged.
 */
export async function loadAdapterFiles(
  model: nn.Module,
  files: Files,
  options: LoadOptions = {},
): Promise<Adapter> {
  const config = await readAdapterConfig(files);
  if (isMlxConfig(config)) return loadMlx(model, files, config, options);
  const type = config["peft_type"];
  const loader = typeof type === "string" && Object.hasOwn(LOADERS, type) ? LOADERS[type] : undefined;
  if (loader === undefined) {
    throw new FormatError({
      file: `${files.name}/${CONFIG_FILE}`,
      tensor: "peft_type",
      found: describeValue(type),
      expected: `one of ${Object.keys(LOADERS).join(", ")}`,
    });
  }
  return loader(model, files, config, options);
}

/** The name of a file format for adapters. */
export type AdapterFormat =
  "native" | "peft-lora" | "peft-lora-stacked" | "peft-vera" | "peft" | "peft-topk" | "peft-seed" | "mlx";
type Writer = (adapter: Adapter, provenance?: Provenance) => OutputFile[];

/** The functions that write an adapter, by the format's name. */
export const ADAPTER_FORMATS: Readonly<Record<AdapterFormat, Writer>> = {
  /** This library's own format: holds everything, and each tied tensor once. Only this library reads it. */
  native: nativeFiles,
  /** peft's LoRA, expanded to one A and one B for each module. Most tools read it. */
  "peft-lora": peftLoraFiles,
  /** The same, with the factors of a layer's experts stacked, as peft has them from transformers 5 on. */
  "peft-lora-stacked": peftStackedFiles,
  /** peft's VeRA: holds a tied adapter, compactly and exactly. */
  "peft-vera": peftVeraFiles,
  /** peft's own kind for (IA)³, AdaLoRA, LoHa, LoKr, HRA, OFT, VB-LoRA, RandLoRA, prefixes, prompts, norms and trained tokens. */
  peft: (adapter, provenance) => peftFiles(adapter, provenance),
  /** peft's VB-LoRA with the largest weights alone: small, and not to be trained further. */
  "peft-topk": peftTopKFiles,
  /** peft's RandLoRA without its random bases, whose seed it names: small, and for this library alone. */
  "peft-seed": peftSeedFiles,
  /** mlx-lm's LoRA or DoRA. */
  mlx: mlxFiles,
};

/** The files of an adapter in a format. Throws if the format cannot hold it; the error names a format that can. */
export function adapterFiles(
  adapter: Adapter,
  format: AdapterFormat = "native",
  provenance: Provenance = {},
): OutputFile[] {
  return ADAPTER_FORMATS[format](adapter, provenance);
}
