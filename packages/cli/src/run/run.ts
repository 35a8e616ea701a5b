/**
 * A training run in a directory: trains, evaluates, writes metrics and checkpoints, stops early, and resumes where it was
 * interrupted. The directory contains the adapter (at the end), `checkpoints/` and `logs/`.
 */
import { join } from "node:path";
import type * as optim from "@tiedlora/nn/optim";
import type { Decoder } from "@tiedlora/models";
import type { Adapter } from "tiedlora";
import { type AsyncBatchSource, batchesOf, type BatchSource, evaluationBatches } from "tiedlora";
import type { EncodedExample } from "tiedlora";
import { isFinished, TENSORS_FILE } from "tiedlora/internal";
import { type Provenance } from "tiedlora";
import {
  type Evaluation,
  fit,
  type GradientSource,
  type Loss,
  type RankSchedule,
  type StepReport,
} from "tiedlora";
import {
  checkpointName,
  pruneCheckpoints,
  restoreAdapter,
  restoreCheckpoint,
  saveCheckpoint,
  type RunState,
} from "tiedlora/internal/node";
import { saveAdapter } from "tiedlora/node";
import { MetricsLog, baselineOf, metricsOf, type MetricFormat } from "./metrics.ts";
import { RunFolder } from "./run-folder.ts";

/** The options of `run`. */
export interface RunOptions {
  readonly model: Decoder;
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  /** Moving averages of the adapter's parameters, which are evaluated and saved in their place. */
  readonly average?: optim.EMA | undefined;
  readonly directory: string;
  readonly examples: readonly EncodedExample[];
  /** The batches, in place of those of `examples`. */
  readonly batches?: BatchSource | AsyncBatchSource;
  /** Held-out examples: their loss decides which step is the best, and when to stop. */
  readonly valid?: readonly EncodedExample[] | undefined;
  /** The loss. Default: the model's own. */
  readonly loss?: Loss;
  /** Identifies the examples when the run is resumed; see Dataset. */
  readonly fingerprint: string;
  readonly steps: number;
  readonly batch: number;
  /** The number of batches per step. Default: 1. */
  readonly accumulate?: number;
  /** Computes the gradients of batches in another place; see `train`. */
  readonly gradients?: GradientSource;
  /** Prunes the adapter while it trains; see `fit`. */
  readonly ranks?: RankSchedule;
  readonly maxLength: number;
  readonly seed: number;
  readonly padId: number;
  /** Steps between evaluations; there is also one at the end. */
  readonly evalEvery: number;
  /** The number of evaluations without a lower loss after which the run ends. */
  readonly patience?: number | undefined;
  /** Steps between checkpoints; there is also one at the end, and one of the best step. */
  readonly saveEvery: number;
  readonly log: readonly MetricFormat[];
  /** Resumes from the newest undamaged checkpoint in the directory, if there is one. */
  readonly resume: boolean;
  /**
   * Replaces the run or adapter in the directory, which is kept until this run has its first checkpoint. Default: false, which
   * makes a directory that has one an error.
   */
  readonly restart?: boolean;
  /** Lines of YAML that are saved as the directory's run.yaml. */
  readonly settings?: string;
  /** Written into the adapter's files. */
  readonly provenance?: Provenance;
  readonly signal?: AbortSignal;
  /** Called with a note on each damage found in checkpoints, and on what is done about it. */
  readonly onNote?: (note: string) => void;
  /** Called once, before the first step of a new run: with the evaluation of the model as it is, if examples are held out. */
  readonly onStart?: (evaluation: Evaluation) => void;
  /** Called after every step, with the evaluation where one was due. */
  readonly onStep?: (report: StepReport, evaluation: Evaluation | null) => void;
}

/** How a run ended. */
export interface RunResult {
  /** Steps done, those before a resume included. */
  readonly steps: number;
  readonly ended: "done" | "early" | "interrupted";
  /**
   * The step whose adapter was saved: the best on the validation examples, or the last. Null if the run was to replace another
   * one and was interrupted before its first checkpoint: the other run is kept.
   */
  readonly saved: number | null;
  /** The lowest validation loss, if there were evaluations. */
  readonly best: RunState["best"];
}

/**
 * Performs a training run. A run that is interrupted and resumed gives, bit for bit, the adapter of an uninterrupted one, on a
 * backend that computes the same bits each time. Throws DivergedError when numbers are no longer finite; files that were saved
 * before are kept. Throws FolderInUseError if another process works in the directory.
 */
export async function run(options: RunOptions): Promise<RunResult> {
  const { directory, resume, restart } = options;
  if (resume && restart === true) throw new Error("resume and restart are both given; give one of them");
  const folder = await RunFolder.open(directory, resume ? "resume" : restart === true ? "restart" : "new");
  try {
    for (const note of folder.notes) options.onNote?.(note);
    return await runIn(folder, options);
  } finally {
    await folder.close();
  }
}

/** As `run`, in a folder that is open already. */
export async function runIn(folder: RunFolder, options: RunOptions): Promise<RunResult> {
  let state = await startState(options, folder);
  await folder.begin();
  if (options.settings !== undefined) await folder.writeSettings(options.settings);
  const keeper = await Keeper.open(folder, options);
  try {
    for await (const next of runSteps(options, state, keeper)) state = next;
    if (folder.replaces && !state.finished)
      return { steps: state.step, ended: "interrupted", saved: null, best: null };
    await keeper.keep(state); // the run may have been interrupted between checkpoints
  } finally {
    keeper.close();
  }
  const saved = state.best?.step ?? state.step;
  if (saved !== state.step)
    await restoreAdapter(join(folder.checkpoints, checkpointName(saved), TENSORS_FILE), options.adapter);
  else options.average?.swap();
  await saveAdapter(options.adapter, options.directory, {
    ...options.provenance,
    step: String(saved),
  });
  const ended = state.step >= options.steps ? "done" : isFinished(state, options) ? "early" : "interrupted";
  return { steps: state.step, ended, saved, best: state.best };
}

/** The state from which the run begins: a checkpoint's, or a new one. Throws if the examples are not the checkpoint's. */
async function startState(options: RunOptions, { checkpoints, last }: RunFolder): Promise<RunState> {
  if (last === null)
    return { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false, data: options.fingerprint };
  if (last.data !== options.fingerprint) {
    throw new Error(
      `the training examples are not those that the run in ${options.directory} was started with; give these again, or ` +
        `start a new run in another directory`,
    );
  }
  await restoreCheckpoint(checkpoints, last.step, options);
  return last;
}

/** Writes checkpoints and metrics. */
class Keeper {
  readonly #folder: RunFolder;
  readonly #options: RunOptions;
  #log: MetricsLog;
  /** The steps of the last two checkpoints: if the last is damaged, the run can go back to the one before. */
  #kept: readonly number[];

  private constructor(folder: RunFolder, options: RunOptions, log: MetricsLog) {
    this.#folder = folder;
    this.#options = options;
    this.#log = log;
    this.#kept = folder.last === null ? [] : [folder.last.step];
  }

  static async open(folder: RunFolder, options: RunOptions): Promise<Keeper> {
    const log = await MetricsLog.open(
      folder.logs,
      options.log,
      folder.last?.step ?? 0,
      options.loss?.reports,
    );
    return new Keeper(folder, options, log);
  }

  write(metrics: Parameters<MetricsLog["write"]>[0]): void {
    this.#log.write(metrics);
  }

  /** Saves a checkpoint of the state, and removes checkpoints that are no longer needed. */
  async keep(state: RunState): Promise<void> {
    const { step, best } = state;
    if (this.#kept.at(-1) === step) return;
    await saveCheckpoint(this.#folder.checkpoints, this.#options, state, this.#options.provenance ?? {});
    this.#kept = [...this.#kept.slice(-1), step];
    if (this.#folder.replaces) await this.#settle(step);
    await pruneCheckpoints(this.#folder.checkpoints, [...this.#kept, ...(best === null ? [] : [best.step])]);
  }

  /** Replaces the older run, now that this one has a checkpoint to resume from. */
  async #settle(step: number): Promise<void> {
    this.#log.close();
    await this.#folder.settle();
    this.#log = await MetricsLog.open(
      this.#folder.logs,
      this.#options.log,
      step,
      this.#options.loss?.reports,
    );
  }

  close(): void {
    this.#log.close();
  }
}

/** Performs the steps; yields the state after each. */
async function* runSteps(options: RunOptions, start: RunState, keeper: Keeper): AsyncGenerator<RunState> {
  const { model, adapter, optimizer, accumulate = 1, examples, steps, saveEvery, padId, maxLength, batch } = options; // prettier-ignore
  const valid = options.valid && evaluationBatches(options.valid, { batch, maxLength, padId });
  const reports = fit({
    model,
    adapter,
    optimizer,
    average: options.average,
    steps,
    accumulate,
    gradients: options.gradients,
    loss: options.loss,
    ranks: options.ranks,
    batch: options.batches ?? batchesOf(examples, options),
    from: start,
    restoreBest: false, // the checkpoint of the best step has its adapter
    pauseAfter: (step) => step % saveEvery === 0 || step === steps,
    ...(valid && { valid, evalEvery: options.evalEvery, patience: options.patience }),
    ...(options.signal && { signal: options.signal }),
  });
  for await (const { training, evaluation, improved, state: reached } of reports) {
    if (training === null) {
      keeper.write(baselineOf(evaluation!));
      options.onStart?.(evaluation!);
      continue;
    }
    const state = { ...reached, data: start.data };
    keeper.write(metricsOf(training, evaluation));
    options.onStep?.(training, evaluation);
    if (state.finished || improved || training.step % saveEvery === 0) await keeper.keep(state);
    yield state;
  }
}
