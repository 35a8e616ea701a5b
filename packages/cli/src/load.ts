/** Models, adapters and data for commands, with errors that say what to do. */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { readdir } from "node:fs/promises";
import type { Device } from "@tiedlora/core";
import type { DecoderConfig, Tokenizer } from "@tiedlora/models";
import { loadConfig, loadPretrained, type Pretrained } from "@tiedlora/models/node";
import { loadDataset, type Dataset } from "tiedlora";
import type { TextFile } from "tiedlora";
import type { Unknown } from "tiedlora";
import { nearest } from "tiedlora/internal";
import { paint, type Output } from "./output.ts";
import { UsageError } from "./settings.ts";
import type { DataSettings } from "./train-settings.ts";

/** Loads a model directory and its tokenizer. */
export async function openModel(directory: string, device: Device): Promise<Pretrained> {
  await checkModelDirectory(directory);
  return loadPretrained(directory, { device });
}

/** Throws if there is no such directory, and says what it may be instead. `name`: of the setting that gives it. */
export async function checkModelDirectory(directory: string, name = "--model"): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory()) return;
  const expected = "expected a Hugging Face model directory (config.json, model.safetensors, tokenizer.json)";
  if (found !== null) throw new UsageError(`${name} ${directory}: this is a file; ${expected}`);
  throw new UsageError(
    `${name} ${directory}: there is no such directory; ${(await suggestion(directory)) ?? expected}`,
  );
}

/** Throws if there is no file or directory at a path that a setting gives. */
export async function checkExists(name: string, path: string): Promise<void> {
  if ((await stat(path).catch(() => null)) !== null) return;
  const siblings = await readdir(dirname(path)).catch(() => []);
  const close = nearest(basename(path), siblings);
  const hint = close === null ? "" : `; did you mean ${join(dirname(path), close)}?`;
  throw new UsageError(`${name} ${path}: there is no such file or directory${hint}`);
}

/** Throws if a path to examples leads nowhere. */
export async function checkDataPaths({ data, valid }: { data: string; valid?: string }): Promise<void> {
  await checkExists("--data", data);
  if (valid !== undefined) await checkExists("--valid", valid);
}

async function suggestion(directory: string): Promise<string | null> {
  const parent = dirname(directory);
  const siblings = await readdir(parent).catch(() => null);
  const name = directory.slice(directory.lastIndexOf("/") + 1);
  const close = siblings && nearest(name, siblings);
  if (close !== null) return `did you mean ${parent === "." ? close : `${parent}/${close}`}?`;
  if (siblings === null && /^[\w.-]+\/[\w.-]+$/.test(directory))
    return `to use a model of the Hugging Face hub, download it first: hf download ${directory} --local-dir ${name}`;
  return null;
}

/** Throws if sequences are longer than the model has learned positions for. */
export async function checkLength(directory: string, seq: number, name = "--seq"): Promise<void> {
  const { maxPositions } = await loadConfig(directory);
  if (seq > maxPositions)
    throw new UsageError(
      `${name} ${seq}: the model knows ${maxPositions} positions (max_position_embeddings); give at most ${name} ${maxPositions}`,
    );
}

/** Reads and encodes a file of examples, for a model whose embedding has `vocab` rows. */
export function openData(
  file: TextFile,
  tokenizer: Tokenizer,
  settings: DataSettings,
  { vocab }: Pick<DecoderConfig, "vocab">,
): Promise<Dataset> {
  return loadDataset(file, tokenizer, {
    vocab,
    prompt: settings.promptColumn,
    completion: settings.completionColumn,
    ...(settings.separator !== undefined && { separator: settings.separator }),
    maxLength: settings.seq,
  });
}

/** What was read, and what was cut or left out. */
export function describeData(
  output: Output,
  name: string,
  { examples, truncated, skipped, empty, unanswered, unknown }: Dataset,
  seq: number,
): void {
  output.info(`${examples.length.toLocaleString("en-US")} examples from ${name}`);
  const warn = (text: string): void => output.info(`${paint("yellow", "note:")} ${text}`);
  if (truncated > 0) warn(`${truncated} of them are cut off at ${seq} tokens (--seq)`);
  if (skipped.length > 0)
    warn(`${skipped.length} left out: their prompts fill ${seq} tokens (--seq); lines ${some(skipped)}`);
  if (unanswered.length > 0)
    warn(`${unanswered.length} left out: nothing in them is the assistant's; lines ${some(unanswered)}`);
  if (unknown !== null) warn(describeUnknown(unknown));
  if (empty.length > 0) warn(`${empty.length} left out: their completions are empty; lines ${some(empty)}`);
}

/** Of how many characters an account is given. */
const SHOWN = 5;

function describeUnknown({ tokens, characters }: Unknown): string {
  const times = (n: number): string => (n === 1 ? "once" : `${n.toLocaleString("en-US")} times`);
  const shown = characters
    .slice(0, SHOWN)
    .map(([character, n]) => `${JSON.stringify(character)} ${times(n)}`);
  const more = characters.length > SHOWN ? `, and ${characters.length - SHOWN} others` : "";
  const made =
    tokens === 0
      ? "it leaves them out"
      : `${tokens.toLocaleString("en-US")} tokens are the one for the unknown`;
  const what = characters.length === 0 ? "words of the data" : `${shown.join(", ")}${more}`;
  return (
    `the model's tokenizer does not know ${what}: ${made}, and the model learns to write that; replace them in the data ` +
    "(a line break by a space, say), or take a model whose tokenizer knows them"
  );
}

function some(lines: readonly number[]): string {
  return lines.slice(0, 5).join(", ") + (lines.length > 5 ? ", ..." : "");
}
