/** The contents of a folder that must not be overwritten by accident: a run, a sweep, an adapter, or a model. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MLX_TENSORS } from "../files/mlx.ts";
import { CONFIG_FILE, TENSORS_FILE } from "../files/native.ts";
import { checkpointSteps } from "./checkpoint.ts";

/** The file with the settings of a run. */
export const RUN_FILE = "run.yaml";
export const CHECKPOINTS = "checkpoints";
export const LOGS = "logs";

/** The first and the last line of a run.yaml that a run has written; a file without the last line is cut off. */
export const RUN_FILE_BEGINS = "# The settings of a run, as tiedlora train has written them.\n";
export const RUN_FILE_ENDS = "# (end of the settings)\n";

/** A kind of content of a folder. */
export type Holding = "run" | "sweep" | "adapter" | "model";

/** The names of the kinds of content, for messages. */
export const HOLDINGS: Readonly<Record<Holding, string>> = {
  run: "a training run",
  sweep: "the results of a sweep",
  adapter: "an adapter",
  model: "a model",
};

/** The files of an adapter, in any format. */
const ADAPTER_FILES: readonly string[] = [TENSORS_FILE, MLX_TENSORS, "adapter_model.bin", CONFIG_FILE];

const WEIGHTS: readonly string[] = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];

/** Whether a file of settings was written by hand, or by a run and is whole or cut off; null if there is no such file. */
export async function runFileKind(path: string): Promise<"by hand" | "whole" | "cut off" | null> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return null;
    throw new Error(`${path} cannot be read: ${cause.message}`, { cause });
  });
  if (text === null) return null;
  if (RUN_FILE_BEGINS.startsWith(text)) return "cut off"; // within the first line
  if (!text.startsWith(RUN_FILE_BEGINS)) return "by hand";
  return text.endsWith(RUN_FILE_ENDS) ? "whole" : "cut off";
}

/** The files and folders that a run has written in a folder, as paths relative to it. All other files are not the run's. */
export async function writtenByRun(directory: string): Promise<string[]> {
  const names = async (folder: string, pattern: RegExp): Promise<string[]> => {
    const all = await readdir(join(directory, folder)).catch(() => []);
    return all.filter((name) => pattern.test(name)).map((name) => join(folder, name));
  };
  const top = [...ADAPTER_FILES, RUN_FILE];
  return [
    ...(await names(".", /./)).filter((name) => top.includes(name)),
    ...(await names(CHECKPOINTS, /^step-\d{8}$/)),
    ...(await names(LOGS, /^metrics\.(jsonl|csv)$|^events\.out\.tfevents\./)),
  ];
}

/**
 * The kinds of content in a folder; none if it does not exist. A run counts only if it has a checkpoint: before its first one
 * there is little to lose.
 */
export async function holdingsOf(directory: string): Promise<ReadonlySet<Holding>> {
  const names = await readdir(directory).catch((): string[] => []);
  const has = (wanted: readonly string[]): boolean => names.some((name) => wanted.includes(name));
  const found = new Set<Holding>();
  if (names.includes(CHECKPOINTS) && (await checkpointSteps(join(directory, CHECKPOINTS))).length > 0)
    found.add("run");
  if (has(ADAPTER_FILES)) found.add("adapter");
  if (has(WEIGHTS) || (await hasModelConfig(directory))) found.add("model");
  if (names.includes("runs") && names.includes("failed")) found.add("sweep");
  return found;
}

/** The names of a model's files, those of its tokenizer included. */
const OF_MODELS =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|vocab)\.json$|^merges\.txt$|^chat_template\.jinja$|\.safetensors(\.index\.json)?$/;

/** Tests of the names of files that a command replaces when it writes an adapter or a model into a folder. */
const WRITTEN = {
  adapter: (name: string): boolean => ADAPTER_FILES.includes(name),
  model: (name: string): boolean => OF_MODELS.test(name),
} as const;

/**
 * Throws if a folder into which a command is to write an adapter or a model holds another kind of content, or, without `force`,
 * files that would be replaced.
 */
export async function checkTarget(
  directory: string,
  kind: keyof typeof WRITTEN,
  force: boolean,
): Promise<void> {
  const other = [...(await holdingsOf(directory))].find((one) => one !== kind);
  if (other !== undefined)
    throw new Error(`--out ${directory}: ${HOLDINGS[other]} is in there; give another directory`);
  const names = await readdir(directory).catch((): string[] => []);
  checkFree(directory, names.filter(WRITTEN[kind]), force);
}

/** Throws if there are files that would be replaced, unless `force` allows it. */
export function checkFree(directory: string, there: readonly string[], force: boolean): void {
  if (there.length === 0 || force) return;
  const are = there.length === 1 ? "is" : "are";
  throw new Error(
    `--out ${directory}: ${there.join(", ")} ${are} there already; replace by --force, or give another directory`,
  );
}

async function hasModelConfig(directory: string): Promise<boolean> {
  const text = await readFile(join(directory, "config.json"), "utf8").catch(() => "");
  return text.includes('"model_type"');
}
