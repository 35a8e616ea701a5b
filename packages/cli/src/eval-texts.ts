/** Metrics of generated texts on any file of examples, and files of predictions. */
import { writeFilesAtomic } from "@tiedlora/core/node";
import { basename, dirname, resolve } from "node:path";
import type { Prompt, TextOptions } from "@tiedlora/models";
import { taskMetrics, type TextMetric } from "@tiedlora/experiments/tasks";
import { DataError, readRecords, type TextFile } from "tiedlora";
import { exampleReader, isChat } from "tiedlora/internal";
import { writing } from "tiedlora/internal/node";
import { predict } from "./predict.ts";
import { givenPrompt } from "./sample.ts";
import type { Opened } from "./with-model.ts";

/** The names of the metrics in flags. */
export type MetricName =
  "exact-match" | "f1" | "bleu" | "rouge-1" | "rouge-2" | "rouge-l" | "accuracy" | "number";

export const METRICS: { readonly [M in MetricName]: TextMetric } = {
  "exact-match": taskMetrics.EXACT_MATCH,
  f1: taskMetrics.F1,
  bleu: taskMetrics.BLEU,
  "rouge-1": taskMetrics.ROUGE_1,
  "rouge-2": taskMetrics.ROUGE_2,
  "rouge-l": taskMetrics.ROUGE_L,
  accuracy: taskMetrics.SAME_TEXT,
  number: taskMetrics.SAME_RESULT,
};

export const METRIC_NAMES: readonly MetricName[] = Object.keys(METRICS) as MetricName[];

/** A prompt, what was generated for it, and what should have been. */
export interface Prediction {
  readonly prompt: string;
  readonly prediction: string;
  readonly references: readonly string[];
}

/** How texts are generated for a file of examples. */
export interface TextsFlags {
  readonly promptColumn?: string;
  readonly completionColumn?: string;
  readonly limit?: number;
  readonly batch: number;
}

interface Question {
  readonly text: string;
  readonly prompt: Prompt;
  readonly answer: string;
}

/** The model's answers to the prompts of a file. Throws DataError for an example without a prompt. */
export async function predictionsOn(
  opened: Opened,
  file: TextFile,
  flags: TextsFlags,
  separator: string | undefined,
  options: TextOptions,
): Promise<Prediction[]> {
  const predictions: Prediction[] = [];
  const questions = questionsOf(opened, file, flags, separator);
  const batch = { ...options, rows: flags.batch };
  for await (const { item, text } of predict(opened, questions, ({ prompt }) => prompt, batch))
    predictions.push({ prompt: item.text, prediction: text.trim(), references: [item.answer] });
  return predictions;
}

async function* questionsOf(
  { tokenizer }: Opened,
  file: TextFile,
  { limit = Infinity, ...flags }: TextsFlags,
  separator: string | undefined,
): AsyncGenerator<Question, void, undefined> {
  const columns = { prompt: flags.promptColumn, completion: flags.completionColumn };
  let toExample: ReturnType<typeof exampleReader> | null = null;
  let count = 0;
  for await (const record of readRecords(file)) {
    if (count++ >= limit) return;
    toExample ??= exampleReader(file.name, record, columns);
    const example = toExample(record);
    if (isChat(example)) {
      const last = example.messages.findLastIndex(({ role }) => role === "assistant");
      if (last < 0) throw new DataError(file.name, record.line, "the chat has no answer of the assistant");
      const text = tokenizer.chat(example.messages.slice(0, last), { addGenerationPrompt: true });
      const prompt = tokenizer.encode(text, { specialTokens: false });
      yield { text, prompt, answer: example.messages[last]!.content.trim() };
    } else {
      const { prompt: text, completion } = example;
      if (text === "")
        throw new DataError(file.name, record.line, "there is no prompt: metrics and predictions need examples with a prompt and a completion"); // prettier-ignore
      yield { text, prompt: givenPrompt(tokenizer, text, separator), answer: completion.trim() };
    }
  }
}

/** The score of each metric on all predictions, in percent. */
export function scoresOf(
  predictions: readonly Prediction[],
  metrics: readonly TextMetric[],
): Record<string, number> {
  const texts = predictions.map(({ prediction }) => prediction);
  const references = predictions.map((one) => one.references);
  return Object.fromEntries(metrics.map(({ name, score }) => [name, score(texts, references)]));
}

/** Writes one line for each prediction, with the scores that it has alone. */
export async function writePredictions(
  path: string,
  predictions: readonly Prediction[],
  metrics: readonly TextMetric[],
): Promise<void> {
  const lines = predictions.map((one) => `${JSON.stringify({ ...one, scores: scoresOf([one], metrics) })}\n`);
  const folder = dirname(resolve(path));
  await writing(folder, () => writeFilesAtomic(folder, [[basename(path), lines.join("")]]));
}
