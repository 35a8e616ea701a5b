/** The examples of a training and those that are held out: from files, from standard input, or from a task's own files. */
import type { DecoderConfig, Tokenizer } from "@tiedlora/models";
import { NO_FILES, directorySource } from "@tiedlora/experiments/node";
import {
  fitting,
  type Question,
  runSplits,
  type Task,
  taskByName,
  trainingTexts,
} from "@tiedlora/experiments/tasks";
import {
  type AsyncBatchSource,
  type BatchSource,
  type Dataset,
  encodeExample,
  type EncodedExample,
  mixedBatches,
  packExamples,
  streamBatches,
  type TextFile,
} from "tiedlora";
import { fingerprintOf, holdOut } from "tiedlora/internal";
import { dataFile } from "tiedlora/internal/node";
import { textFile } from "tiedlora/node";
import { checkPath, describeData, openData, readingOptions } from "./load.ts";
import { examplesOf } from "./loss-settings.ts";
import type { Output } from "./output.ts";
import { asUsage, nameOf, UsageError } from "./settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** Where the examples of a training are, before they are read. */
export interface DataSources {
  readonly task: Task | null;
  readonly file: TextFile | null;
  readonly valid: TextFile | null;
  /** Whether some examples are held out. */
  readonly held: boolean;
}

export interface TrainingData {
  readonly dataset: Dataset;
  /** The examples as they go into batches. */
  readonly examples: readonly EncodedExample[];
  readonly valid: readonly EncodedExample[] | null;
  /** The batches, if they are not those of `examples`: of several sets, or of a file that is read while training. */
  readonly batch?: BatchSource | AsyncBatchSource;
}

/** Throws UsageError for a path to examples that does not exist, and for settings that do not go together. */
export async function checkData(settings: TrainSettings): Promise<void> {
  const { data, valid, task, validSplit, loss } = settings;
  const needs = task === undefined || taskByName(task).needsFiles;
  if (task !== undefined && loss !== "cross-entropy" && loss !== "distillation")
    throw new UsageError(
      `--task ${task}: its examples have one answer each, and --loss ${loss} needs preferences; give --data`,
    );
  if (validSplit !== undefined && (valid !== undefined || task !== undefined))
    throw new UsageError(
      `--valid-split is given beside ${valid === undefined ? "--task, which has examples of its own to hold out" : "--valid"}; give one of them`,
    );
  if (valid !== undefined && task !== undefined)
    throw new UsageError(
      "--valid is given beside --task, which has examples of its own to hold out; give one of them",
    );
  checkTask(settings);
  checkPreferences(settings);
  checkSources(settings);
  for (const path of Object.keys(settings.also ?? {})) await checkPath("--also", path, "file or directory");
  if (needs && data !== STANDARD_INPUT)
    await checkPath("--data", data, task === undefined ? "file or directory" : "directory");
  if (valid !== undefined) await checkPath("--valid", valid, "file or directory");
}

/** Throws UsageError for settings of how a file is read beside --task, whose examples have a form of their own. */
function checkTask(settings: TrainSettings): void {
  if (settings.task === undefined) return;
  const keys = ["promptTemplate", "promptColumn", "completionColumn", "separator", "chatTemplate"] as const;
  const given = keys.find((key) => settings[key] !== undefined);
  if (given !== undefined)
    throw new UsageError(
      `--${nameOf(given)} is given beside --task ${settings.task}, whose examples have a form of their own; leave it out`,
    );
}

/** Throws UsageError for settings of single texts beside a loss of preferences, whose fields have names of their own. */
export function checkPreferences({
  loss = "cross-entropy",
  pack = false,
  ...settings
}: Partial<
  Pick<TrainSettings, "loss" | "pack" | "promptTemplate" | "promptColumn" | "completionColumn">
>): void {
  const kind = examplesOf({ loss });
  if (kind === "texts") return;
  if (pack) throw new UsageError(`--pack: the examples of --loss ${loss} have two rows each, which cannot be packed; leave it out`); // prettier-ignore
  const fields = kind === "pairs" ? "prompt, chosen and rejected" : "prompt, completion and label";
  const given = (["promptTemplate", "promptColumn", "completionColumn"] as const).find((key) => settings[key] !== undefined); // prettier-ignore
  if (given !== undefined)
    throw new UsageError(`--${nameOf(given)}: --loss ${loss} reads the fields ${fields}; leave it out, and name the fields so`); // prettier-ignore
}

/** Throws UsageError if --also or --shuffle-buffer is given with settings that it cannot serve. */
function checkSources({ also, shuffleBuffer, epochs, task, validSplit, loss }: TrainSettings): void {
  if (also !== undefined && shuffleBuffer !== undefined)
    throw new UsageError(
      "--also and --shuffle-buffer are both given; sets that are mixed are in memory: give one of them",
    );
  const name = also !== undefined ? "--also" : shuffleBuffer !== undefined ? "--shuffle-buffer" : null;
  if (name === null) return;
  const without = Object.entries(also ?? {}).find(([, weight]) => weight === 0)?.[0];
  if (without !== undefined)
    throw new UsageError(`--also ${without}=0: nothing would be taken from it; give a weight above 0, or leave it out`); // prettier-ignore
  if (epochs !== undefined)
    throw new UsageError(
      `${name}: --epochs ${epochs} cannot be counted, since the examples have no common end; give --steps`,
    );
  if (task !== undefined)
    throw new UsageError(`${name} is given beside --task; give files of examples by --data`);
  if (shuffleBuffer === undefined) return;
  if (validSplit !== undefined)
    throw new UsageError(
      "--shuffle-buffer: --valid-split divides examples in memory; give a file with --valid",
    );
  if (examplesOf({ loss }) === "labeled")
    throw new UsageError(
      "--shuffle-buffer: kto compares each answer with another one of the file, which has to be in memory; leave it out",
    );
}

/** The path that means standard input. */
export const STANDARD_INPUT = "-";

/** Finds the files. Throws if there are none. */
export async function findData({ data, valid, task, validSplit }: TrainSettings): Promise<DataSources> {
  if (task !== undefined) return { task: taskByName(task), file: null, valid: null, held: true };
  const file = (await dataFile(data, "train"))!; // throws if there is no such file
  if (validSplit !== undefined) return { task: null, file, valid: null, held: true };
  const held = valid === undefined ? await dataFile(data, "valid") : await textFile(valid);
  return { task: null, file, valid: held, held: held !== null };
}

/** Reads the examples, and prints what was found. */
export async function readData(
  { task, file, valid }: DataSources,
  settings: TrainSettings,
  tokenizer: Tokenizer,
  config: DecoderConfig,
  output: Output,
  padId: number,
): Promise<TrainingData> {
  const { seq, pack, seed, validSplit, shuffleBuffer, also } = settings;
  if (shuffleBuffer !== undefined)
    return streamed(file!, valid, settings, { tokenizer, config, output, padId });
  const packed = (examples: readonly EncodedExample[]): readonly EncodedExample[] =>
    pack ? packExamples(examples, seq) : examples;
  if (task !== null) {
    const { dataset, valid: held } = await readTask(task, settings, tokenizer, output);
    return { dataset, examples: packed(dataset.examples), valid: held };
  }
  const dataset = await openData(file!, tokenizer, settings, config);
  describeData(output, file!.name, dataset, seq);
  if (also !== undefined) return mixed(dataset, valid, settings, { tokenizer, config, output, padId });
  if (validSplit !== undefined) {
    const [kept, held] = asUsage(() => holdOut(dataset.examples, validSplit, seed));
    output.info(`${held.length.toLocaleString("en-US")} of them are held out (--valid-split ${validSplit})`);
    return { dataset, examples: packed(kept), valid: held };
  }
  const held = await heldOut(valid, settings, { tokenizer, config, output, padId });
  return { dataset, examples: packed(dataset.examples), valid: held?.examples ?? null };
}

/** What a set says that was read without leaving anything out, or is not known of it. */
const NOTHING_LEFT_OUT = { truncated: 0, skipped: [], empty: [], unanswered: [], equal: [], unknown: null };

interface Reading {
  readonly tokenizer: Tokenizer;
  readonly config: DecoderConfig;
  readonly output: Output;
  readonly padId: number;
}

async function heldOut(
  valid: TextFile | null,
  settings: TrainSettings,
  { tokenizer, config, output }: Reading,
): Promise<Dataset | null> {
  if (valid === null) return null;
  const held = await openData(valid, tokenizer, settings, config);
  describeData(output, `${valid.name} (held out)`, held, settings.seq);
  return held;
}

/** The file, read while training. */
async function streamed(
  file: TextFile,
  valid: TextFile | null,
  settings: TrainSettings,
  reading: Reading,
): Promise<TrainingData> {
  const { seq: maxLength, seed, batch, pack, shuffleBuffer } = settings;
  const options = { maxLength, seed, batch, pack, buffer: shuffleBuffer!, padId: reading.padId };
  const kind = examplesOf(settings) === "pairs" ? "pairs" : "texts";
  const {
    batch: batches,
    sample,
    fingerprint,
  } = await streamBatches(file, reading.tokenizer, {
    ...readingOptions(settings, reading.config),
    ...options,
    kind,
  });
  reading.output.info(`${file.name} is read while training, through a buffer of ${shuffleBuffer} examples`);
  const held = await heldOut(valid, settings, reading);
  return {
    dataset: { examples: [], sample, ...NOTHING_LEFT_OUT, fingerprint },
    examples: [],
    valid: held?.examples ?? null,
    batch: batches,
  };
}

/** The examples of --data and of --also, by their weights. */
async function mixed(
  dataset: Dataset,
  valid: TextFile | null,
  settings: TrainSettings,
  reading: Reading,
): Promise<TrainingData> {
  const { seq: maxLength, seed, batch, pack, validSplit } = settings;
  const all: Dataset[] = [dataset];
  for (const path of Object.keys(settings.also!)) {
    const file = (await dataFile(path, "train"))!;
    const more = await openData(file, reading.tokenizer, settings, reading.config);
    describeData(reading.output, file.name, more, maxLength);
    all.push(more);
  }
  const weights = [1, ...Object.values(settings.also!)];
  const split = all.map(({ examples }): readonly [readonly EncodedExample[], readonly EncodedExample[]] =>
    validSplit === undefined ? [examples, []] : asUsage(() => holdOut(examples, validSplit, seed)),
  );
  const held =
    validSplit === undefined
      ? ((await heldOut(valid, settings, reading))?.examples ?? null)
      : split.flatMap(([, some]) => some);
  const sets = split.map(([examples], i) => ({
    examples: pack ? packExamples(examples, maxLength) : examples,
    weight: weights[i]!,
  }));
  const total = weights.reduce((a, b) => a + b);
  reading.output.info(
    `mixed by weight: ${weights.map((weight) => `${((100 * weight) / total).toFixed(0)} %`).join(", ")}`,
  );
  const fingerprint = all.map((one) => one.fingerprint).join("+");
  return {
    dataset: { ...dataset, fingerprint },
    examples: sets.flatMap(({ examples }) => examples),
    valid: held,
    batch: mixedBatches(sets, { batch, maxLength, seed, padId: reading.padId }),
  };
}

/** The most examples of a task that is generated without end, and the most that are held out of one. */
const GENERATED = 2000;
const HELD_OUT = 200;

async function readTask(
  task: Task,
  { data, seq }: TrainSettings,
  tokenizer: Tokenizer,
  output: Output,
): Promise<{ readonly dataset: Dataset; readonly valid: readonly EncodedExample[] }> {
  const source = task.needsFiles ? directorySource(data) : NO_FILES;
  const encoded = (questions: readonly Question[]): EncodedExample[] =>
    questions
      .flatMap((question) => trainingTexts(task, question))
      .flatMap((text, i) => encodeExample({ ...text, line: i + 1 }, tokenizer, { maxLength: seq }) ?? []);
  const limits = { train: task.needsFiles ? Infinity : GENERATED, valid: HELD_OUT, test: 0 };
  const { fits, shortest } = fitting(tokenizer, seq);
  const { train, valid, note } = await runSplits(task, source, limits, fits);
  const [examples, held] = [encoded(train), encoded(valid)];
  if (examples.length === 0 || held.length === 0) {
    const [least, what] = examples.length === 0 ? [shortest.train, "train on"] : [shortest.valid, "hold out"];
    throw new UsageError(
      least === Infinity
        ? `--data ${data}: there are no examples of ${task.name} to ${what}; give a directory that has more of them`
        : `--seq ${seq}: none of the examples of ${task.name} to ${what} fits, the shortest has ${least} tokens; give at least --seq ${least}`,
    );
  }
  if (note !== null) output.info(note);
  output.info(
    `${examples.length.toLocaleString("en-US")} examples of ${task.name} (${task.title}), and ${held.length} held out`,
  );
  const [text] = trainingTexts(task, train[0]!);
  const dataset = {
    examples,
    sample: { ...text!, line: 1 },
    ...NOTHING_LEFT_OUT,
    fingerprint: fingerprintOf(examples),
  };
  return { dataset, valid: held };
}
