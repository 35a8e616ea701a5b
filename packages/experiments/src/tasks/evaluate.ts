/** Evaluates a model on the questions of a task: loss of the right answers, metrics of the generated ones. */
import { generateText, idsTensor } from "@tiedlora/models";
import type { Decoder, Tokenizer } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import { evaluationBatches, stackBatch } from "tiedlora";
import { encodeExample, type EncodedExample } from "tiedlora";
import { yieldToEventLoop } from "tiedlora/internal";
import { evaluate } from "tiedlora";
import { lossOfParts, meanOfParts } from "./metrics.ts";
import type { Choice, ChoiceMetric, Question, Task, TextMetric } from "./task.ts";

/** The model to evaluate, e.g. a `Pretrained` of @tiedlora/models. */
export interface Evaluated {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly padId: number;
}

export interface EvaluateOptions {
  /** The most tokens of a sequence; longer questions are left out and counted. Default: 256. */
  readonly maxLength?: number;
  /** Sequences in a batch. Default: 16. */
  readonly batch?: number;
  /** Leave out metrics that need generated text, for models that are too small to write any. Default: false. */
  readonly lossOnly?: boolean;
  /** Also give the loss of each question, which is then computed on its own, in no batch. Default: false. */
  readonly exampleLosses?: boolean;
  readonly signal?: AbortSignal;
}

/** The evaluation of a model on the questions of a task. */
export interface TaskResult {
  /** The number of questions that were asked. */
  readonly count: number;
  /** The number of questions that are longer than `maxLength`, and were left out. */
  readonly skipped: number;
  /** Mean over the tokens of the first answers of -log p, in nats. */
  readonly loss: number;
  /** exp(loss) */
  readonly perplexity: number;
  /** The scores in percent, by the metric's name. */
  readonly scores: Readonly<Record<string, number>>;
  /** What the task's first metric is computed from, for each question that was asked; null if it was not measured, or has no parts. */
  readonly parts: readonly (readonly number[])[] | null;
  /** With `exampleLosses`, of each question that was asked: the sum of -log p over the tokens of its first answer, in nats, and their number. */
  readonly losses: readonly (readonly [sum: number, tokens: number])[] | null;
  /** The generated text of each question that was asked; empty with `lossOnly`. */
  readonly texts: readonly string[];
  /** The questions that were asked. */
  readonly asked: readonly Question[];
}

/** Evaluates a model on questions. Decoding is greedy, so the same model gives the same result. Throws RangeError if none fits. */
export async function evaluateTask(
  task: Task,
  evaluated: Evaluated,
  questions: readonly Question[],
  options: EvaluateOptions = {},
): Promise<TaskResult> {
  const { tokenizer } = evaluated;
  const { maxLength = 256, lossOnly = false } = options;
  const fitting = questions.flatMap((question) => {
    const example = encoded(tokenizer, question.prompt, question.answers[0]!, maxLength);
    return example === null ? [] : [{ question, example }];
  });
  if (fitting.length === 0)
    throw new RangeError(
      `none of ${questions.length} questions of ${task.name} fits into ${maxLength} tokens`,
    );
  const asked = fitting.map(({ question }) => question);
  const measured = await measuredLoss(evaluated, fitting.map(({ example }) => example), options); // prettier-ignore
  const texts = lossOnly ? [] : await answers(task, evaluated, asked, options);
  const references = asked.map((question) => question.answers);
  const scores: [string, number][] = [];
  let parts: TaskResult["parts"] = null;
  for (const metric of task.metrics) {
    const isFirst = metric === task.metrics[0];
    if (metric.kind === "text" && !lossOnly) {
      scores.push([metric.name, scoreTexts(metric, texts, references)]);
      if (isFirst && metric.parts !== undefined) parts = texts.map((text, i) => metric.parts!.of(text.trim(), references[i]!)); // prettier-ignore
    }
    if (metric.kind === "choice") {
      const each = await choiceScores(metric, evaluated, asked, options);
      scores.push([metric.name, meanOfParts([each.reduce((a, b) => a + b, 0)], each.length)]);
      if (isFirst && each.length === asked.length) parts = each.map((score) => [score]);
    }
  }
  return {
    count: asked.length,
    skipped: questions.length - asked.length,
    ...measured,
    scores: Object.fromEntries(scores),
    parts,
    texts,
    asked,
  };
}

/** The loss of all examples, and on request that of each. */
async function measuredLoss(
  { model, padId }: Evaluated,
  examples: readonly EncodedExample[],
  { maxLength = 256, batch = 16, exampleLosses = false }: EvaluateOptions,
): Promise<Pick<TaskResult, "loss" | "perplexity" | "losses">> {
  if (!exampleLosses) {
    const { loss, perplexity } = await evaluate(
      model,
      evaluationBatches(examples, { batch, maxLength, padId }),
    );
    return { loss, perplexity, losses: null };
  }
  const losses: [sum: number, tokens: number][] = [];
  for (const example of examples) {
    const { loss, tokens } = await evaluate(model, [stackBatch([example], maxLength, padId)]);
    losses.push([loss * tokens, tokens]);
  }
  const loss = lossOfParts([0, 1].map((part) => losses.reduce((sum, one) => sum + one[part]!, 0)));
  return { loss, perplexity: Math.exp(loss), losses };
}

function scoreTexts(
  metric: TextMetric,
  texts: readonly string[],
  references: readonly (readonly string[])[],
): number {
  return metric.score(
    texts.map((text) => text.trim()),
    references,
  );
}

/** The model's answers, in the order of the questions. Prompts of similar length are generated in one batch. */
async function answers(
  task: Task,
  { model, tokenizer }: Evaluated,
  questions: readonly Question[],
  { batch = 16, signal }: EvaluateOptions,
): Promise<string[]> {
  const order = questions
    .map((_, i) => i)
    .sort((i, j) => questions[i]!.prompt.length - questions[j]!.prompt.length);
  const texts = Array<string>(questions.length).fill("");
  for (let at = 0; at < order.length; at += batch) {
    await yieldToEventLoop();
    const rows = order.slice(at, at + batch);
    const prompts = rows.map((i) => questions[i]!.prompt);
    const generated = await generateText(model, tokenizer, prompts, {
      maxTokens: task.maxTokens,
      stop: task.stop,
      ...(signal !== undefined && { signal }),
    });
    rows.forEach((i, row) => (texts[i] = generated[row]!));
  }
  return texts;
}

/** The score of each question that is a choice. */
async function choiceScores(
  metric: ChoiceMetric,
  evaluated: Evaluated,
  questions: readonly Question[],
  options: EvaluateOptions,
): Promise<number[]> {
  const scores: number[] = [];
  for (const { choice } of questions) {
    if (choice === undefined) continue;
    await yieldToEventLoop();
    scores.push(metric.score(await logLikelihoods(evaluated, choice, options), choice));
  }
  return scores;
}

/** log p(ending | context) of each ending, in nats. Contexts that are too long lose their beginning. */
export async function logLikelihoods(
  { model, tokenizer, padId }: Evaluated,
  { context, endings }: Choice,
  { maxLength = 256 }: EvaluateOptions = {},
): Promise<number[]> {
  const rows = endings.map((ending) => {
    const example = encoded(tokenizer, context, ending, Infinity, false)!;
    return lastTokens(example, maxLength);
  });
  const { batch, length, tokens, mask } = stackBatch(rows, maxLength, padId);
  const { device } = model;
  const each = rows.map((_, row) => tokens.subarray(row * length, (row + 1) * length));
  const ids = idsTensor(device, each, model.config.vocab);
  const weight = device.tensor(mask, { shape: [batch, length] }).narrow(1, 1, length - 1);
  const inputs = ids.narrow(1, 0, length - 1);
  const logits = await (model.streamed?.forward(inputs) ?? model.forward(inputs));
  return Promise.all(
    rows.map(async (_, row) => {
      const [own, targets] = [logits.narrow(0, row, 1), ids.narrow(0, row, 1).narrow(1, 1, length - 1)];
      const counted = weight.narrow(0, row, 1);
      return -(await nn.crossEntropy(own, targets, { mask: counted }).mul(counted.sum()).item());
    }),
  );
}

function encoded(
  tokenizer: Tokenizer,
  prompt: string,
  completion: string,
  maxLength: number,
  ends = true,
): EncodedExample | null {
  const encoder = ends ? tokenizer : { encode: tokenizer.encode.bind(tokenizer), eosId: null };
  const example = encodeExample({ prompt, completion, line: 0 }, encoder, { maxLength });
  return example === null || example.truncated ? null : example;
}

/** The last `count` tokens of a sequence, with its spans shifted accordingly. */
function lastTokens(example: EncodedExample, count: number): EncodedExample {
  const cut = Math.max(0, example.tokens.length - count);
  const spans = example.spans.map(([start, end]) => [Math.max(1, start - cut), end - cut] as const);
  return { ...example, tokens: example.tokens.slice(cut), spans };
}
