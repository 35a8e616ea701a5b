/** Loads models and data for commands, with errors that suggest a remedy. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { DecoderConfig, Tokenizer } from "@tiedlora/models";
import { loadConfig, loadTokenizer } from "@tiedlora/models/node";
import {
  type Dataset,
  type DatasetOptions,
  type EncodedExample,
  type ExampleKind,
  loadDataset,
  loadLabeled,
  loadPreferences,
  packExamples,
} from "tiedlora";
import type { TextFile } from "tiedlora";
import type { Unknown } from "tiedlora";
import { holdOut, isChat, nearest } from "tiedlora/internal";
import { examplesOf } from "./loss-settings.ts";
import { paint, type Output } from "./output.ts";
import { UsageError } from "./settings.ts";
import type { TrainingStep } from "./streaming.ts";
import type { DataSettings, TrainSettings } from "./train-settings.ts";

/**
 * Throws UsageError if the path of a setting does not exist; the message suggests the sibling that was probably meant, or else
 * gives `expected`. Also throws if the path is a file where a directory is needed. `name` is the setting's name.
 */
export async function checkPath(
  name: string,
  path: string,
  kind: "directory" | "file or directory",
  expected?: string,
): Promise<void> {
  const problem = (what: string, hint?: string): UsageError =>
    new UsageError(`${name} ${path}: ${what}${hint === undefined ? "" : `; ${hint}`}`);
  const found = await stat(path).catch(() => null);
  if (found !== null) {
    if (kind === "directory" && !found.isDirectory()) throw problem("this is a file", expected);
    return;
  }
  const siblings = await readdir(dirname(path)).catch(() => []);
  const close = nearest(basename(path), siblings);
  throw problem(
    `there is no such ${kind}`,
    close === null ? expected : `did you mean ${join(dirname(path), close)}?`,
  );
}

/** Throws UsageError if sequences are longer than the positions that the model was made for. */
export async function checkLength(directory: string, seq: number, name = "--seq"): Promise<void> {
  const { maxPositions } = await loadConfig(directory);
  if (seq > maxPositions)
    throw new UsageError(
      `${name} ${seq}: the model knows ${maxPositions} positions (max_position_embeddings); give at most ${name} ${maxPositions}`,
    );
}

const LOADERS: Readonly<Record<ExampleKind, typeof loadDataset>> = {
  texts: loadDataset,
  pairs: loadPreferences,
  labeled: loadLabeled,
};

/** Reads and encodes a file of examples, or the first `limit` of them, of the kind that the loss needs, for a model whose embedding has `vocab` rows. */
export function openData(
  file: TextFile,
  tokenizer: Tokenizer,
  settings: DataSettings & Partial<Pick<TrainSettings, "loss">>,
  { vocab }: Pick<DecoderConfig, "vocab">,
  limit?: number,
): Promise<Dataset> {
  const load = LOADERS[examplesOf({ loss: settings.loss ?? "cross-entropy" })];
  return load(file, tokenizer, {
    ...readingOptions(settings, { vocab }),
    ...(limit !== undefined && { limit }),
  });
}

/** Throws UsageError for a separator that was given for conversations, where it has no effect. */
export function checkSeparator(
  { separator }: Pick<DataSettings, "separator">,
  { sample }: Dataset,
  name: string,
): void {
  if (separator === undefined || !isChat(sample)) return;
  throw new UsageError(
    `--separator ${JSON.stringify(separator)}: ${name} holds conversations, in which the chat template says what follows a prompt; leave it out`,
  );
}

/** How the records of a file become examples. */
export function readingOptions(
  settings: DataSettings,
  { vocab }: Pick<DecoderConfig, "vocab">,
): DatasetOptions {
  return {
    vocab,
    template: settings.promptTemplate,
    prompt: settings.promptColumn,
    completion: settings.completionColumn,
    ...(settings.separator !== undefined && { separator: settings.separator }),
    maxLength: settings.seq,
  };
}

/** The examples that are read to find out how long the longest one is. */
const MEASURED = 2000;

/** The tokens of a batch: at most, and as found in the first examples. */
export function tokensOf(
  directory: string,
  file: TextFile | null,
  settings: DataSettings & Pick<TrainSettings, "batch" | "pack" | "loss" | "chatTemplate">,
): TrainingStep["tokens"] {
  const { batch, pack, seq } = settings;
  const rows = examplesOf(settings) === "texts" ? batch : 2 * batch;
  const limit = rows * seq;
  const find = async (): Promise<number> => {
    if (pack || file === null || settings.chatTemplate !== undefined) return limit;
    const [tokenizer, config] = [await loadTokenizer(directory), await loadConfig(directory)];
    const { examples } = await openData(file, tokenizer, settings, config, MEASURED);
    return (
      rows *
      Math.max(...examples.flatMap(({ tokens, beside }) => [tokens.length, beside?.tokens.length ?? 0]))
    );
  };
  return { limit, find };
}

/** The examples as they go into batches: but for those that are held out, and packed into sequences of up to `seq` tokens, if `pack` is set. */
export function trainedOn(
  { examples }: Dataset,
  { pack, seq, validSplit, seed }: Pick<TrainSettings, "pack" | "seq" | "seed" | "validSplit">,
): readonly EncodedExample[] {
  const [kept] = validSplit === undefined ? [examples] : holdOut(examples, validSplit, seed);
  return pack ? packExamples(kept, seq) : kept;
}

/** Prints how many examples were read, and how many were cut off or left out, and why. */
export function describeData(
  output: Output,
  name: string,
  { examples, truncated, skipped, empty, unanswered, equal, unknown }: Dataset,
  seq: number,
): void {
  output.info(`${examples.length.toLocaleString("en-US")} examples from ${name}`);
  const warn = (text: string): void => output.info(`${paint("yellow", "note:")} ${text}`);
  if (truncated > 0) warn(`${truncated} of them are cut off at ${seq} tokens (--seq)`);
  if (skipped.length > 0)
    warn(`${skipped.length} left out: their prompts fill ${seq} tokens (--seq); lines ${some(skipped)}`);
  if (unanswered.length > 0)
    warn(`${unanswered.length} left out: they have no turn of the assistant; lines ${some(unanswered)}`);
  if (equal.length > 0)
    warn(
      `${equal.length} left out: both answers are the same within ${seq} tokens (--seq); lines ${some(equal)}`,
    );
  if (unknown !== null) warn(describeUnknown(unknown));
  if (empty.length > 0) warn(`${empty.length} left out: their completions are empty; lines ${some(empty)}`);
}

/** The most unknown characters that are listed. */
const SHOWN = 5;

function describeUnknown({ tokens, characters }: Unknown): string {
  const times = (n: number): string => (n === 1 ? "once" : `${n.toLocaleString("en-US")} times`);
  const shown = characters
    .slice(0, SHOWN)
    .map(([character, n]) => `${JSON.stringify(character)} ${times(n)}`);
  const more = characters.length > SHOWN ? `, and ${characters.length - SHOWN} others` : "";
  const made =
    tokens === 0
      ? "it leaves them out, and the model learns to answer without them"
      : `${tokens.toLocaleString("en-US")} tokens of the data are its unknown token, which the model learns to write`;
  const what = characters.length === 0 ? "words of the data" : `${shown.join(", ")}${more}`;
  return (
    `the model's tokenizer does not know ${what}: ${made}; replace them in the data ` +
    "(a line break by a space, say), or choose a model whose tokenizer knows them"
  );
}

function some(lines: readonly number[]): string {
  return lines.slice(0, 5).join(", ") + (lines.length > 5 ? ", ..." : "");
}
