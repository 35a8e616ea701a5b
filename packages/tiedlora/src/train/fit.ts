/** Training with evaluations on held-out examples: finds the best step, and can stop early. The caller prints and saves. */
import type { TypedArray } from "@tiedlora/core";
import { checkWhole, refuse } from "@tiedlora/core/arguments";
import type * as optim from "@tiedlora/nn/optim";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import { evaluate, type Evaluation } from "./evaluate.ts";
import type { LossLike } from "./loss.ts";
import type { StepReport, TrainOptions } from "./options.ts";
import type { RankSchedule } from "./rank-schedule.ts";
import { train } from "./train.ts";

/** The values of an adapter's parameters on the host, by the path of each parameter in files. */
export type AdapterValues = ReadonlyMap<string, TypedArray>;

/** The step with the lowest held-out loss. */
export interface BestStep {
  readonly step: number;
  readonly loss: number;
  /** The adapter's values after that step; absent with `restoreBest: false`. A state that was saved as JSON has lost them. */
  readonly values?: AdapterValues;
}

/** The progress of a training. */
export interface FitState {
  /** The number of steps done. */
  readonly step: number;
  /** The number of tokens seen, without padding. */
  readonly tokens: number;
  /** The lowest held-out loss so far and the first step that had it. Null before the first evaluation after a step. */
  readonly best: BestStep | null;
  /** The number of evaluations since the best step. */
  readonly sinceBest: number;
  /** Whether the training has ended: all steps are done, or it was stopped early. */
  readonly finished: boolean;
}

/** The options of `fit`. */
export interface FitOptions extends Omit<TrainOptions, "start" | "tokens"> {
  /** Held-out batches; their loss decides which step is the best, and when to stop. Default: no evaluations. */
  readonly valid?: readonly Batch[] | undefined;
  /** The loss of the evaluations, by which the best step is found; null for the model's own. Default: `loss`. */
  readonly validLoss?: LossLike | null | undefined;
  /** The number of steps between evaluations. The last step is always followed by one. Default: only that one. */
  readonly evalEvery?: number | undefined;
  /**
   * Prunes the adapter while it trains. Steps before the end of the schedule, at which the adapter still has more ranks than it is to
   * have, never count as the best.
   */
  readonly ranks?: RankSchedule | undefined;
  /** Whether to evaluate before the first step too; this evaluation never counts as the best. Default: true. */
  readonly evalFirst?: boolean;
  /** Stops after this many evaluations in a row without a lower loss. Default: never. */
  readonly patience?: number | undefined;
  /** Whether to set the adapter to the values of the best step at the end, from a copy on the host. Default: true. */
  readonly restoreBest?: boolean;
  /**
   * The state from which to continue: the last one of the same training before it was cut off; the adapter and the optimizer must
   * have their values of that step. Default: the beginning.
   */
  readonly from?: FitState;
}

/** The report after a step, or after the evaluation before the first step. */
export interface FitReport {
  /** The report of the step; null for the evaluation before the first step. */
  readonly training: StepReport | null;
  /** The evaluation after the step; null if none was due. */
  readonly evaluation: Evaluation | null;
  /** Whether this evaluation's loss is the lowest so far, so that the adapter now has the values of the best step. */
  readonly improved: boolean;
  readonly state: FitState;
}

const BEGINNING: FitState = { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false };

/**
 * Trains the adapter, evaluates it on held-out batches, and stops early if `patience` is given; yields reports as `train` does. At
 * the end, also after `signal`, sets the adapter to the values of the step with the lowest held-out loss (without held-out batches, to
 * the averages if there are some), unless `restoreBest` is false. Throws as `train` does, for invalid options, and before the first step if `from` lacks the values of its best step.
 */
export async function* fit(options: FitOptions): AsyncGenerator<FitReport, void> {
  checkFit(options);
  const { from = BEGINNING, valid, evalEvery = Infinity, evalFirst = true, restoreBest = true, ranks, ...rest } = options; // prettier-ignore
  const { model, adapter, steps, average, validLoss = options.loss } = options;
  const measure = (): Promise<Evaluation> =>
    withAverages(average, () => evaluate(model, valid!, adapter, validLoss ?? undefined));
  let state = restoreBest ? await withBestValues(from, adapter) : from;
  if (isFinished(state, options)) {
    if (restoreBest) restore(adapter, state);
    return;
  }
  const isDue = (step: number): boolean => valid !== undefined && (step % evalEvery === 0 || step === steps);
  if (valid !== undefined && evalFirst && from.step === 0)
    yield {
      training: null,
      evaluation: await measure(),
      improved: false,
      state,
    };
  await ranks?.resume(from.step);
  const pauseAfter = (step: number): boolean =>
    isDue(step) || ranks?.due(step) === true || options.pauseAfter?.(step) === true;
  for await (const training of train({ ...rest, start: from.step, tokens: from.tokens, pauseAfter })) {
    await ranks?.apply(training.step, average);
    const evaluation = isDue(training.step) ? await measure() : null;
    const counts = evaluation !== null && training.step >= (ranks?.last ?? 0);
    const improved = counts && evaluation.loss < (state.best?.loss ?? Infinity);
    const best = improved ? { step: training.step, loss: evaluation.loss } : null;
    const kept =
      best && restoreBest ? { ...best, values: await withAverages(average, () => valuesOf(adapter)) } : best;
    state = stateAfter(state, training, counts, kept);
    state = { ...state, finished: isFinished(state, options) };
    yield { training, evaluation, improved, state };
    if (state.finished) break;
  }
  if (restoreBest && state.best !== null) restore(adapter, state);
  else if (restoreBest) average?.swap();
}

/** Runs `work` while the adapter has its averages, if there are some. */
export async function withAverages<T>(average: optim.EMA | undefined, work: () => Promise<T>): Promise<T> {
  if (average === undefined) return work();
  average.swap();
  try {
    return await work();
  } finally {
    average.swap();
  }
}

/** The state after a step; `best` is the new best step if an evaluation's loss is the lowest so far, else null. */
function stateAfter(
  state: FitState,
  { step, tokens }: StepReport,
  evaluated: boolean,
  best: BestStep | null,
): FitState {
  if (best !== null) return { step, tokens, best, sinceBest: 0, finished: false };
  const sinceBest = state.sinceBest + (evaluated ? 1 : 0);
  return { step, tokens, best: state.best, sinceBest, finished: false };
}

/** Whether the training has ended: all steps are done, or `patience` is used up. */
export function isFinished(
  { step, sinceBest }: FitState,
  { steps, patience = Infinity }: Pick<FitOptions, "steps" | "patience">,
): boolean {
  return step >= steps || sinceBest >= patience;
}

function checkFit({ valid, evalEvery, patience, steps }: FitOptions): void {
  checkWhole("fit: steps", steps, 1);
  if (evalEvery !== undefined) checkWhole("fit: evalEvery", evalEvery, 1);
  if (patience !== undefined) checkWhole("fit: patience", patience, 1);
  if (valid !== undefined && (!Array.isArray(valid) || valid.length === 0))
    refuse("fit: valid", valid, "list of held-out batches", "at least one, e.g. of evaluationBatches");
  if (valid !== undefined) return;
  for (const [name, value] of Object.entries({ evalEvery, patience })) {
    if (value !== undefined)
      throw new TypeError(`fit: ${name} ${value} is given without valid; give held-out batches to evaluate`);
  }
}

/** A copy of the values of all parameters of an adapter, on the host. */
async function valuesOf(adapter: Adapter): Promise<AdapterValues> {
  const values = new Map<string, TypedArray>();
  for (const [path, parameter] of adapter.stateDict()) values.set(path, (await parameter.data()).slice());
  return values;
}

/** `from` with the values of its best step: those that it has or, if it is at its best step, the adapter's. Throws if they are missing. */
async function withBestValues(from: FitState, adapter: Adapter): Promise<FitState> {
  const { best, step } = from;
  if (best === null) return from;
  if (best.values === undefined && best.step === step)
    return { ...from, best: { ...best, values: await valuesOf(adapter) } };
  const { values } = best;
  const missing = [...adapter.stateDict()].find(
    ([path, { size }]) =>
      !(values instanceof Map) || (values.get(path) as TypedArray | undefined)?.length !== size,
  );
  if (missing === undefined) return from;
  throw new TypeError(
    `fit: from.best is step ${best.step}, and from.best.values has no ${missing[1].size} values of ${missing[0]}; give the adapter's ` +
      "values after that step as a Map by path, or restoreBest: false",
  );
}

/** Sets the adapter to the values of the best step, if there is one. */
function restore(adapter: Adapter, { best }: FitState): void {
  const { drawn } = adapter;
  for (const [path, parameter] of best === null ? [] : adapter.stateDict())
    if (!drawn.has(path)) parameter.set(best!.values!.get(path)!);
}
