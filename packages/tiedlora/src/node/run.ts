/**
 * A training run in a directory: trains, evaluates, writes metrics and checkpoints, stops early, and goes on where it was
 * cut off. In the directory lie the adapter (at the end), `checkpoints/` and `logs/`.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { optim } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import type { Adapter } from "../adapter.ts";
import { batchesOf, evaluationBatches, type Batch } from "../data/batches.ts";
import type { EncodedExample } from "../data/encode.ts";
import { TENSORS_FILE, type Provenance } from "../files/native.ts";
import { evaluate, type Evaluation } from "../train/evaluate.ts";
import { train, type StepReport } from "../train/train.ts";
import {
  checkpointName,
  checkpointSteps,
  pruneCheckpoints,
  readState,
  restoreAdapter,
  restoreCheckpoint,
  saveCheckpoint,
  type RunState,
} from "./checkpoint.ts";
import { saveAdapter } from "./files.ts";
import { MetricsLog, type MetricFormat } from "./metrics.ts";

/** What `run` needs. */
export interface RunOptions {
  readonly model: Decoder;
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  readonly directory: string;
  readonly examples: readonly EncodedExample[];
  /** Held out: their loss decides which step is the best, and when to stop. */
  readonly valid?: readonly EncodedExample[] | undefined;
  /** What the examples are recognised by when the run goes on; see Dataset. */
  readonly fingerprint: string;
  readonly steps: number;
  readonly batch: number;
  /** Batches a step. Default: 1. */
  readonly accumulate?: number;
  readonly maxLength: number;
  readonly seed: number;
  readonly padId: number;
  /** Steps between evaluations, and one at the end. */
  readonly evalEvery: number;
  /** Ends the run after so many evaluations without a lower loss. */
  readonly patience?: number | undefined;
  /** Steps between checkpoints; there is one at the end, and one of the best step, in any case. */
  readonly saveEvery: number;
  readonly log: readonly MetricFormat[];
  /** Goes on from the last checkpoint in the directory, if there is one. Otherwise what is there is replaced. */
  readonly resume: boolean;
  /** Goes into the adapter's files. */
  readonly provenance?: Provenance;
  readonly signal?: AbortSignal;
  /** Is told of each step, and of the evaluation after it. */
  readonly onStep?: (report: StepReport, evaluation: Evaluation | null) => void;
}

/** How a run ended. */
export interface RunResult {
  /** Steps done, those before a resume included. */
  readonly steps: number;
  readonly ended: "done" | "early" | "interrupted";
  /** The step whose adapter was saved: the best on the validation examples, or the last. */
  readonly saved: number;
  /** The lowest validation loss, if there were evaluations. */
  readonly best: RunState["best"];
}

/** Where a run's checkpoints are. */
function checkpointDirectory(directory: string): string {
  return join(directory, "checkpoints");
}

/** The state of the last checkpoint of a run; null: there is none. */
export async function lastState(directory: string): Promise<RunState | null> {
  const checkpoints = checkpointDirectory(directory);
  const step = (await checkpointSteps(checkpoints)).at(-1);
  return step === undefined ? null : readState(checkpoints, step);
}

/**
 * Runs it. A run that is cut off and resumed gives the adapter of one that was not, bit for bit, on a backend that
 * computes the same bits twice. Throws DivergedError when the loss stops being a number; what was saved before stays.
 */
export async function run(options: RunOptions): Promise<RunResult> {
  const checkpoints = checkpointDirectory(options.directory);
  let state = await startState(options, checkpoints);
  const log = await MetricsLog.open(join(options.directory, "logs"), options.log, state.step);
  try {
    if (!isOver(state, options)) {
      for await (const next of runSteps(options, state, log)) state = next;
    }
  } finally {
    log.close();
  }
  await keep(options, checkpoints, state); // it may have been interrupted in between
  const saved = state.best?.step ?? state.step;
  if (saved !== state.step)
    await restoreAdapter(join(checkpoints, checkpointName(saved), TENSORS_FILE), options.adapter);
  await saveAdapter(options.adapter, options.directory, {
    ...options.provenance,
    step: String(saved),
  });
  const ended = state.step >= options.steps ? "done" : isOver(state, options) ? "early" : "interrupted";
  return { steps: state.step, ended, saved, best: state.best };
}

/** Where the run begins: at a checkpoint, or anew. */
async function startState(options: RunOptions, checkpoints: string): Promise<RunState> {
  const last = options.resume ? await lastState(options.directory) : null;
  if (last === null) {
    await rm(checkpoints, { recursive: true, force: true });
    await rm(join(options.directory, "logs"), { recursive: true, force: true });
    return { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false, data: options.fingerprint };
  }
  if (last.data !== options.fingerprint) {
    throw new Error(
      `the training examples are not those that the run in ${options.directory} was started with; give these again, or ` +
        `start a new run in another directory`,
    );
  }
  await pruneCheckpoints(checkpoints, keptSteps(last));
  await restoreCheckpoint(checkpoints, last.step, options);
  return last;
}

/** The state after each step that is done. */
async function* runSteps(options: RunOptions, start: RunState, log: MetricsLog): AsyncGenerator<RunState> {
  const { model, adapter, examples, valid, steps, evalEvery, saveEvery, padId, maxLength, batch } = options;
  const held = valid && evaluationBatches(valid, { batch, maxLength, padId });
  const evaluates = (step: number): boolean =>
    held !== undefined && (step % evalEvery === 0 || step === steps);
  const reports = train({
    ...options,
    start: start.step,
    tokens: start.tokens,
    batch: batchesOf(examples, options),
    pauseAfter: (step) => evaluates(step) || step % saveEvery === 0 || step === steps,
  });
  let state = start;
  for await (const report of reports) {
    const evaluation = evaluates(report.step)
      ? await evaluate(model, held as readonly Batch[], adapter)
      : null;
    const before = state;
    state = stateAfter(before, report, evaluation, options);
    log.write(metricsOf(report, evaluation));
    options.onStep?.(report, evaluation);
    if (state.finished || state.best !== before.best || report.step % saveEvery === 0)
      await keep(options, checkpointDirectory(options.directory), state);
    yield state;
    if (state.finished) return;
  }
}

function stateAfter(
  before: RunState,
  { step, tokens }: StepReport,
  evaluation: Evaluation | null,
  options: RunOptions,
): RunState {
  const better = evaluation !== null && evaluation.loss < (before.best?.loss ?? Infinity);
  const best = better ? { step, loss: evaluation.loss } : before.best;
  const sinceBest = better ? 0 : before.sinceBest + (evaluation === null ? 0 : 1);
  const state = { ...before, step, tokens, best, sinceBest };
  return { ...state, finished: isOver(state, options) };
}

/** Whether nothing is left to do. */
function isOver({ step, sinceBest }: RunState, { steps, patience }: RunOptions): boolean {
  return step >= steps || (patience !== undefined && sinceBest >= patience);
}

/** Saves a checkpoint of the state, and removes those that are not needed any more. */
async function keep(options: RunOptions, checkpoints: string, state: RunState): Promise<void> {
  await saveCheckpoint(checkpoints, options, state, options.provenance ?? {});
  await pruneCheckpoints(checkpoints, keptSteps(state));
}

function keptSteps({ best }: RunState): number[] {
  return best === null ? [] : [best.step];
}

function metricsOf(report: StepReport, evaluation: Evaluation | null): Parameters<MetricsLog["write"]>[0] {
  return {
    step: report.step,
    loss: report.loss,
    lr: report.lr,
    ...(report.gradNorm !== null && { grad_norm: report.gradNorm }),
    tokens: report.tokens,
    tokens_per_second: report.tokensPerSecond,
    memory_bytes: report.memoryBytes,
    ...(evaluation && { valid_loss: evaluation.loss, valid_perplexity: evaluation.perplexity }),
  };
}
