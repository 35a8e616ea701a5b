/** All targets by name. */
import { configs } from "./targets/configs.ts";
import { safetensors, shards } from "./targets/safetensors.ts";
import type { TargetSource } from "./target.ts";

export type TargetName = "safetensors" | "shards" | "configs";

export const TARGETS: Readonly<Record<TargetName, TargetSource>> = { safetensors, shards, configs };

export const TARGET_NAMES = Object.keys(TARGETS) as readonly TargetName[];
