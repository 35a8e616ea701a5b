/**
 * A training run in a directory: trains, evaluates, writes metrics and checkpoints, stops early, and goes on where it was
 * cut off. In the directory lie the adapter (at the end), `checkpoints/` and `logs/`.
 */
import { join } from "node:path";
import type * as optim from "@tiedlora/nn/optim";
import type { Decoder } from "@tiedlora/models";
import type { Adapter } from "tiedlora";
import { batchesOf, evaluationBatches } from "tiedlora";
import type { EncodedExample } from "tiedlora";
import { isFinished, TENSORS_FILE } from "tiedlora/internal";
import { type Provenance } from "tiedlora";
import { type Evaluation, fit, type StepReport } from "tiedlora";
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
  /** The number of evaluations without a lower loss after which the run ends. */
  readonly patience?: number | undefined;
  /** Steps between checkpoints; there is one at the end, and one of the best step, in any case. */
  readonly saveEvery: number;
  readonly log: readonly MetricFormat[];
  /** Goes on from the newest whole checkpoint in the directory, if there is one. */
  readonly resume: boolean;
  /**
   * Takes the place of the run or adapter that is in the directory, which stands until this one has its first checkpoint.
   * Default: false; a directory that has one is an error.
   */
  readonly restart?: boolean;
  /** Lines of YAML that are kept as the directory's run.yaml. */
  readonly settings?: string;
  /** Goes into the adapter's files. */
  readonly provenance?: Provenance;
  readonly signal?: AbortSignal;
  /** Is told of checkpoints that were found damaged, and what is done about it. */
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
   * The step whose adapter was saved: the best on the validation examples, or the last. Null if it was interrupted before its
   * first checkpoint, when it was to take the place of another run: that one stands.
   */
  readonly saved: number | null;
  /** The lowest validation loss, if there were evaluations. */
  readonly best: RunState["best"];
}

/**
 * Runs it. A run that is cut off and resumed gives the adapter of one that was not, bit for bit, on a backend that
 * computes the same bits twice. Throws DivergedError when numbers stop being finite; what was saved before stays. Throws
 * FolderInUseError if another process works in the directory.
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

/** As `run`, in a folder that is open. */
export async function runIn(folder: RunFolder, options: RunOptions): Promise<RunResult> {
  let state = await startState(options, folder);
  await folder.begin();
  if (options.settings !== undefined) await folder.writeSettings(options.settings);
  const keeper = await Keeper.open(folder, options);
  try {
    for await (const next of runSteps(options, state, keeper)) state = next;
    if (folder.replaces && !state.finished)
      return { steps: state.step, ended: "interrupted", saved: null, best: null };
    await keeper.keep(state); // it may have been interrupted in between
  } finally {
    keeper.close();
  }
  const saved = state.best?.step ?? state.step;
  if (saved !== state.step)
    await restoreAdapter(join(folder.checkpoints, checkpointName(saved), TENSORS_FILE), options.adapter);
  await saveAdapter(options.adapter, options.directory, {
    ...options.provenance,
    step: String(saved),
  });
  const ended = state.step >= options.steps ? "done" : isFinished(state, options) ? "early" : "interrupted";
  return { steps: state.step, ended, saved, best: state.best };
}

/** Where the run begins: at a checkpoint, or anew. */
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

/** Keeps checkpoints and metrics. */
class Keeper {
  readonly #folder: RunFolder;
  readonly #options: RunOptions;
  #log: MetricsLog;
  /** The steps of the last two checkpoints: should the last turn out to be damaged, there is one to go back to. */
  #kept: readonly number[];

  private constructor(folder: RunFolder, options: RunOptions, log: MetricsLog) {
    this.#folder = folder;
    this.#options = options;
    this.#log = log;
    this.#kept = folder.last === null ? [] : [folder.last.step];
  }

  static async open(folder: RunFolder, options: RunOptions): Promise<Keeper> {
    const log = await MetricsLog.open(folder.logs, options.log, folder.last?.step ?? 0);
    return new Keeper(folder, options, log);
  }

  write(metrics: Parameters<MetricsLog["write"]>[0]): void {
    this.#log.write(metrics);
  }

  /** Saves a checkpoint of the state, and removes those that are not needed any more. */
  async keep(state: RunState): Promise<void> {
    const { step, best } = state;
    if (this.#kept.at(-1) === step) return;
    await saveCheckpoint(this.#folder.checkpoints, this.#options, state, this.#options.provenance ?? {});
    this.#kept = [...this.#kept.slice(-1), step];
    if (this.#folder.replaces) await this.#settle(step);
    await pruneCheckpoints(this.#folder.checkpoints, [...this.#kept, ...(best === null ? [] : [best.step])]);
  }

  /** Now there is something to go on from: the older run goes. */
  async #settle(step: number): Promise<void> {
    this.#log.close();
    await this.#folder.settle();
    this.#log = await MetricsLog.open(this.#folder.logs, this.#options.log, step);
  }

  close(): void {
    this.#log.close();
  }
}

/** The state after each step that is done. */
async function* runSteps(options: RunOptions, start: RunState, keeper: Keeper): AsyncGenerator<RunState> {
  const { model, adapter, optimizer, accumulate = 1, examples, steps, saveEvery, padId, maxLength, batch } = options; // prettier-ignore
  const valid = options.valid && evaluationBatches(options.valid, { batch, maxLength, padId });
  const reports = fit({
    model,
    adapter,
    optimizer,
    steps,
    accumulate,
    batch: batchesOf(examples, options),
    from: start,
    restoreBest: false, // its checkpoint has it
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
