/** One run of a sweep: adapts the model to a task, keeps the factors of the best step, and measures them. */
import { adapt, type Adapter, adapterOptimizer } from "tiedlora";
import { batchesOf, evaluationBatches } from "tiedlora";
import { encodeExample, type EncodedExample } from "tiedlora";
import { methodByName } from "tiedlora";
import { evaluateTask, type Evaluated } from "../tasks/evaluate.ts";
import { taskByName } from "../tasks/index.ts";
import {
  type Question,
  runSplits,
  type RunSplits,
  type Task,
  type TaskSource,
  trainingTexts,
} from "../tasks/task.ts";
import { fit } from "tiedlora";
import { BASELINE, type Point, type RunConfig, runId, type RunResult } from "./config.ts";

export interface RunContext extends Evaluated {
  readonly source: TaskSource;
  /** Called after every step. */
  readonly onStep?: (step: number, loss: number) => void;
  readonly signal?: AbortSignal;
}

/** The most points of a training curve, and the most generated texts, in a result. */
const CURVE_POINTS = 60;
const SAMPLES = 3;

/** Runs one config, and takes the adapter off the model afterwards. */
export async function runOne(config: RunConfig, context: RunContext): Promise<RunResult> {
  const task = taskByName(config.task);
  const fits = (question: Question): boolean => tokensOf(question, context) <= config.seq;
  const splits = await runSplits(task, context.source, config.examples, fits);
  const trained = config.method === BASELINE ? UNTRAINED : await adapted(config, context, task, splits);
  try {
    const { texts, ...test } = await evaluateTask(task, context, splits.test, {
      maxLength: config.seq,
      batch: config.batch,
      lossOnly: config.lossOnly,
      ...(context.signal !== undefined && { signal: context.signal }),
    });
    const { adapter: _, ...findings } = trained;
    return {
      id: runId(config),
      config,
      ...findings,
      test,
      samples: sampled(splits.test, texts, test.skipped),
      device: context.model.device.name,
      note: splits.note,
    };
  } finally {
    trained.adapter?.detach();
  }
}

/** The number of tokens of a question and its first answer, with the token that ends the answer. */
function tokensOf({ prompt, answers }: Question, { tokenizer }: Evaluated): number {
  return tokenizer.encode(`${prompt} ${answers[0]}`).length + 1;
}

type Trained = Omit<RunResult, "id" | "config" | "test" | "samples" | "device" | "note"> & {
  readonly adapter: Adapter | null;
};

const UNTRAINED: Trained = {
  adapter: null, trainable: 0, total: 0, steps: 0, bestStep: 0, curve: [], valid: [], seconds: 0, tokensPerSecond: 0,
}; // prettier-ignore

/** The first questions with their texts. None if questions were skipped: the texts could then not be matched with questions. */
function sampled(
  questions: readonly Question[],
  texts: readonly string[],
  skipped: number,
): RunResult["samples"] {
  if (skipped > 0) return [];
  return texts.slice(0, SAMPLES).map((text, i) => {
    const { prompt, answers } = questions[i]!;
    return { prompt, text: text.trim(), answer: answers[0]! };
  });
}

async function adapted(
  config: RunConfig,
  context: RunContext,
  task: Task,
  splits: RunSplits,
): Promise<Trained> {
  const { model, padId } = context;
  const { batch, seq, steps, every, patience, seed, lr, schedule, warmup, weightDecay, clip } = config;
  const encode = (questions: readonly Question[]): EncodedExample[] => encoded(task, questions, context, seq);
  const nextBatch = batchesOf(encode(splits.train), { batch, maxLength: seq, seed, padId });
  const validBatches = evaluationBatches(encode(splits.valid), { batch, maxLength: seq, padId });
  const method = methodByName(config.method as Exclude<RunConfig["method"], typeof BASELINE>, {
    rank: config.rank,
    dropout: config.dropout,
    target:
      config.target === "qkv" || config.target === "all-linear" ? config.target : config.target.split(","),
  });
  const adapter = await adapt(model, method, { seed });
  try {
    const losses: number[] = [];
    const points: Point[] = [];
    const start = performance.now();
    let [tokens, bestStep] = [0, 0];
    const reports = fit({
      model,
      adapter,
      optimizer: adapterOptimizer(adapter, { steps, lr, schedule, warmup, weightDecay, clipNorm: clip }),
      steps,
      batch: nextBatch,
      valid: validBatches,
      evalEvery: every,
      evalFirst: false,
      patience: patience ?? undefined,
      ...(context.signal !== undefined && { signal: context.signal }),
    });
    for await (const { training, evaluation, state } of reports) {
      const { step, loss } = training!;
      losses.push(loss);
      context.onStep?.(step, loss);
      if (evaluation !== null) points.push([step, evaluation.loss]);
      [tokens, bestStep] = [state.tokens, state.best?.step ?? 0];
    }
    context.signal?.throwIfAborted();
    const seconds = (performance.now() - start) / 1000;
    return {
      adapter, ...adapter.count(), steps: losses.length, bestStep, curve: binned(losses), valid: points,
      seconds, tokensPerSecond: tokens / seconds,
    }; // prettier-ignore
  } catch (error) {
    adapter.detach();
    throw error;
  }
}

function encoded(
  task: Task,
  questions: readonly Question[],
  { tokenizer }: Evaluated,
  maxLength: number,
): EncodedExample[] {
  const examples = questions
    .flatMap((question) => trainingTexts(task, question))
    .map((text) => encodeExample({ ...text, line: 0 }, tokenizer, { maxLength }))
    .filter((example) => example !== null);
  if (examples.length > 0) return examples;
  throw new RangeError(
    `none of ${questions.length} examples of ${task.name} fits into ${maxLength} tokens; give a larger on.seq`,
  );
}

/** Means over intervals of equally many steps, each at the last step of its interval. */
function binned(losses: readonly number[]): Point[] {
  const size = Math.max(1, Math.ceil(losses.length / CURVE_POINTS));
  return Array.from({ length: Math.ceil(losses.length / size) }, (_, i): Point => {
    const part = losses.slice(i * size, (i + 1) * size);
    return [i * size + part.length, part.reduce((a, b) => a + b) / part.length];
  });
}
