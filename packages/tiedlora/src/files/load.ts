/** Adapters of any format that is known: read by what their config says they are, written by the format's name. */
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
import { loadPeftLora, loadPeftVera } from "./peft/load.ts";
import { peftLoraFiles, peftVeraFiles } from "./peft/save.ts";

type Loader = (
  model: nn.Module,
  files: Files,
  config: Record<string, unknown>,
  options: LoadOptions,
) => Promise<Adapter>;

/** By `peft_type` of adapter_config.json. */
const LOADERS: Readonly<Record<string, Loader>> = {
  [PEFT_TYPE]: loadNative,
  LORA: loadPeftLora,
  VERA: loadPeftVera,
};

/**
 * Puts an adapter from files on a model. Strict: a tensor that is missing, unexpected or of another shape is an error
 * (Python's peft warns, or says nothing). A failed load leaves the model as it was.
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
export type AdapterFormat = "native" | "peft-lora" | "peft-vera" | "mlx";
type Writer = (adapter: Adapter, provenance?: Provenance) => OutputFile[];

/** How an adapter is written, by the format's name. */
export const ADAPTER_FORMATS: Readonly<Record<AdapterFormat, Writer>> = {
  /** Everything, each tied tensor once; read by this library alone. */
  native: nativeFiles,
  /** peft's LoRA, expanded to one A and B a module; read by most tools. */
  "peft-lora": peftLoraFiles,
  /** peft's VeRA: a tied adapter, compact and exact. */
  "peft-vera": peftVeraFiles,
  /** mlx-lm's LoRA. */
  mlx: mlxFiles,
};

/** The files of an adapter in a format. Throws if the format cannot hold it, and says which can. */
export function adapterFiles(
  adapter: Adapter,
  format: AdapterFormat = "native",
  provenance: Provenance = {},
): OutputFile[] {
  return ADAPTER_FORMATS[format](adapter, provenance);
}
