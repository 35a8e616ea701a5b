/** One run of a sweep: adapts the model to a task, keeps the factors of the best step, and measures them. */
import { adapt, type Adapter, adapterOptimizer, adaptWithStart, DivergedError, lossByName } from "tiedlora";
import * as optim from "@tiedlora/nn/optim";
import { type LanguageModel, type Method, observedBatches, RankSchedule } from "tiedlora";
import { examplesOfLoss, isOwnLoss, methodOptions } from "tiedlora/internal";
import { batchesOf, evaluationBatches } from "tiedlora";
import { OPTIMIZER_BETAS, type OptimizerName } from "tiedlora";
import { methodByName } from "tiedlora";
import { evaluateTask, type Evaluated } from "../tasks/evaluate.ts";
import { taskByName } from "../tasks/index.ts";
import { fitting } from "../tasks/fitting.ts";
import { type Question, runSplits, type RunSplits, type Task, type TaskSource } from "../tasks/task.ts";
import { encodedTask } from "../tasks/encoded.ts";
import { fit, type FitOptions, type FitState } from "tiedlora";
import {
  BASELINE,
  type Outcome,
  type Point,
  type RunConfig,
  runId,
  type RungResult,
  type RunResult,
  wholeId,
} from "./config.ts";
import { exampleScores } from "./examples.ts";
import { encodeProgress, type Progress, restoreProgress, type SavedRun, type Trainee } from "./saved-run.ts";

export interface RunContext extends Evaluated {
  readonly source: TaskSource;
  /** The model of the config's `teacher`, on the same device, if it has one. */
  readonly teacher?: LanguageModel | undefined;
  /** Called after every step. */
  readonly onStep?: (step: number, loss: number) => void;
  /** Ends the run after the current step; its state is saved if `saved` is given. `runOne` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Where the state of the run is saved, and from where it goes on. Default: it begins anew. */
  readonly saved?: SavedRun | undefined;
}

/** The number of examples that a start from data observes. */
const OBSERVED = 32;

/** The most points of a training curve, and the most generated texts, in a result. */
const CURVE_POINTS = 60;
const SAMPLES = 3;

/**
 * Runs one config, and takes the adapter off the model afterwards. A run that goes on from a saved state has the result of one that
 * never stopped, on a backend that computes the same bits each time.
 */
export async function runOne(config: RunConfig, context: RunContext): Promise<Outcome> {
  const task = taskByName(config.task, config);
  const { fits, shortest } = fitting(context.tokenizer, config.seq);
  const splits = await runSplits(task, context.source, config.examples, fits);
  const empty = (["train", "valid", "test"] as const).find((split) => splits[split].length === 0);
  if (empty !== undefined && shortest[empty] < Infinity)
    throw new RangeError(
      `on.seq is ${config.seq}, and none of the ${empty} examples of ${config.task} fits: the shortest has ${shortest[empty]} tokens; give at least on.seq: ${shortest[empty]}`,
    );
  const trained = config.method === BASELINE ? UNTRAINED : await adapted(config, context, task, splits);
  try {
    const { adapter: _, ...findings } = trained;
    const { device } = context.model;
    const result = { id: runId(config), config, ...findings, device: device.name, note: splits.note };
    if (config.until !== undefined) return result;
    const { texts, asked, parts, losses, ...measured } = await evaluateTask(task, context, splits.test, {
      maxLength: config.seq,
      batch: config.batch,
      lossOnly: config.lossOnly,
      exampleLosses: config.exampleLosses === true,
      ...(context.signal !== undefined && { signal: context.signal }),
    });
    const test = { ...measured, ...((parts ?? losses) && { examples: exampleScores(asked, parts, losses) }) };
    return { ...result, test, samples: sampled(splits.test, texts, test.skipped) };
  } finally {
    trained.adapter?.detach();
  }
}

type Trained = Omit<RungResult, "id" | "config" | "device" | "note"> & {
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
  const { batch, seq, steps, every, patience, seed, lr, rates, loraPlus, schedule, warmup, weightDecay, decays, clip } = config; // prettier-ignore
  const {
    optimizer: named = "adamw",
    loss = "cross-entropy",
    beta,
    labelSmoothing,
    zLoss,
    temperature,
    teacherWeight,
    regularize,
  } = config;
  const options = { beta, labelSmoothing, zLoss, temperature, teacherWeight, regularize };
  const kind = examplesOfLoss(loss);
  const train = encodedTask(task, splits.train, { ...context, kind, maxLength: seq });
  const valid = encodedTask(task, splits.valid, { ...context, kind: "texts", maxLength: seq });
  const nextBatch = batchesOf(train, { batch, maxLength: seq, seed, padId });
  const validBatches = evaluationBatches(valid, { batch, maxLength: seq, padId });
  const method = methodOf(config);
  const adapter =
    config.init === undefined
      ? await adapt(model, method, { seed })
      : await adaptWithStart(model, method, { seed, start: config.init, batches: observedBatches(train, { count: OBSERVED, seed }) }); // prettier-ignore
  try {
    // The schedule is that of all steps, also of a run that ends before: one that goes on is one that never stopped.
    const optimizer = adapterOptimizer(adapter, {
      steps,
      optimizer: named,
      lr,
      rates,
      loraPlus,
      schedule,
      warmup,
      weightDecay,
      decays,
      betas: betasOf(named, config),
      clipNorm: clip,
    });
    const fitting = {
      model,
      adapter,
      optimizer,
      ...(config.ema !== undefined && { average: averagesOf(adapter, config.ema) }),
      steps: config.until ?? steps,
      ...(config.rankSchedule && { ranks: new RankSchedule(adapter, { steps, ...config.rankSchedule }) }),
      batch: nextBatch,
      loss: isOwnLoss(loss, options) ? undefined : lossByName(loss, options, context.teacher ?? null),
      valid: validBatches,
      validLoss: null, // which all runs can be compared by
      evalEvery: every,
      evalFirst: false,
      patience: patience ?? undefined,
      ...(context.signal !== undefined && { signal: context.signal }),
    };
    const { state, losses, points, seconds } = await fitted(config, fitting, context);
    return {
      adapter, ...adapter.count(), steps: losses.length, bestStep: state.best?.step ?? 0, curve: binned(losses), valid: points,
      seconds, tokensPerSecond: state.tokens / seconds,
    }; // prettier-ignore
  } catch (error) {
    adapter.detach();
    throw error;
  }
}

/** Moving averages as `train --ema` has them. */
const averagesOf = (adapter: Adapter, decay: number): optim.EMA =>
  new optim.EMA(adapter.trainableParameters(), { decay, warmup: true });

/** The decay rates of an optimizer, of which a config may have one, both or none. */
function betasOf(
  optimizer: OptimizerName,
  { beta1, beta2 }: RunConfig,
): readonly [number, number] | undefined {
  if (beta1 === undefined && beta2 === undefined) return undefined;
  const [first, second] = OPTIMIZER_BETAS[optimizer]!;
  return [beta1 ?? first, beta2 ?? second];
}

function methodOf({ method, rank, dropout, target, methodOptions: own }: RunConfig): Method {
  const name = method as Exclude<RunConfig["method"], typeof BASELINE>;
  return methodByName(name, {
    rank,
    dropout,
    target: target === "qkv" || target === "all-linear" ? target : target.split(","),
    ...(own !== undefined && methodOptions(name, own)),
  });
}

/** Trains to the end, from the saved state if there is one; saves it on the way, and at `until`. */
async function fitted(
  config: RunConfig,
  options: FitOptions & Trainee,
  { saved, signal, onStep }: RunContext,
): Promise<Progress> {
  const { optimizer, steps } = options;
  const id = wholeId(config);
  const bytes = (await saved?.read()) ?? null;
  const from = bytes && (await restoreProgress(bytes, { name: saved!.name, id, last: steps }, options));
  const losses = [...(from?.losses ?? [])];
  const points = [...(from?.points ?? [])];
  let state: FitState = from?.state ?? { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false };
  const start = performance.now() - 1000 * (from?.seconds ?? 0);
  const seconds = (): number => (performance.now() - start) / 1000;
  let last = seconds();
  const saves = saved !== undefined && (bytes === null || from !== null); // a state that is further is kept
  const isDue = (): boolean => saves && seconds() - last > saved.everySeconds;
  const reports = fit({ ...options, ...(from && { from: state }), pauseAfter: isDue });
  for await (const { training, evaluation, state: reached } of reports) {
    const { step, loss } = training!;
    losses.push(loss);
    onStep?.(step, loss);
    state = reached;
    if (evaluation !== null) points.push([step, checkedLoss(step, evaluation.loss)]);
    // After some steps the device already works on the next one: the adapter is then not as it was after this step.
    const isStill = optimizer.stepCount === step;
    const ends = (state.finished && config.until !== undefined) || signal?.aborted === true;
    if (!saves || !isStill || !(ends || isDue())) continue;
    await saved.write(await encodeProgress(id, { state, losses, points, seconds: seconds() }, options), step);
    last = seconds();
  }
  signal?.throwIfAborted();
  return { state, losses, points, seconds: seconds() };
}

/** The loss of a validation. Throws DivergedError if it is not finite. */
function checkedLoss(step: number, loss: number): number {
  if (Number.isFinite(loss)) return loss;
  throw DivergedError.after(step, "the validation loss");
}

/** Means over intervals of equally many steps, each at the last step of its interval. */
function binned(losses: readonly number[]): Point[] {
  const size = Math.max(1, Math.ceil(losses.length / CURVE_POINTS));
  return Array.from({ length: Math.ceil(losses.length / size) }, (_, i): Point => {
    const part = losses.slice(i * size, (i + 1) * size);
    return [i * size + part.length, part.reduce((a, b) => a + b) / part.length];
  });
}
