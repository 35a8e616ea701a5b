/** All targets by name. */
import { adaptersLora, adaptersMlx, adaptersNative, adaptersVera } from "./targets/adapters.ts";
import { configs } from "./targets/configs.ts";
import { data } from "./targets/data.ts";
import { gguf } from "./targets/gguf.ts";
import { checkpoints, sweepResults } from "./targets/runs.ts";
import { safetensors, shards } from "./targets/safetensors.ts";
import { tokenizers } from "./targets/tokenizers.ts";
import { runFiles, sweeps } from "./targets/yaml.ts";
import type { TargetSource } from "./target.ts";

export type TargetName =
  | "safetensors"
  | "shards"
  | "configs"
  | "gguf"
  | "adapters-native"
  | "adapters-lora"
  | "adapters-vera"
  | "adapters-mlx"
  | "tokenizers"
  | "data"
  | "run-files"
  | "sweeps"
  | "checkpoints"
  | "sweep-results";

export const TARGETS: Readonly<Record<TargetName, TargetSource>> = {
  safetensors,
  shards,
  configs,
  gguf,
  "adapters-native": adaptersNative,
  "adapters-lora": adaptersLora,
  "adapters-vera": adaptersVera,
  "adapters-mlx": adaptersMlx,
  tokenizers,
  data,
  "run-files": runFiles,
  sweeps,
  checkpoints,
  "sweep-results": sweepResults,
};

export const TARGET_NAMES = Object.keys(TARGETS) as readonly TargetName[];
