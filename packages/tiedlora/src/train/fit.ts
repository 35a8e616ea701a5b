/** Training with evaluations on held-out examples: finds the best step, and can stop early. The caller prints and saves. */
import { checkWhole, refuse } from "@tiedlora/core/arguments";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import { evaluate, type Evaluation } from "./evaluate.ts";
import type { StepReport, TrainOptions } from "./options.ts";
import { train } from "./train.ts";

/** The progress of a training. */
export interface FitState {
  /** The number of steps done. */
  readonly step: number;
  /** The number of tokens seen, without padding. */
  readonly tokens: number;
  /** The lowest held-out loss so far and the first step that had it. Null before the first evaluation after a step. */
  readonly best: { readonly step: number; readonly loss: number } | null;
  /** The number of evaluations since the best step. */
  readonly sinceBest: number;
  /** Whether the training has ended: all steps are done, or it was stopped early. */
  readonly finished: boolean;
}

/** The options of `fit`. */
export interface FitOptions extends Omit<TrainOptions, "start" | "tokens"> {
  /** Held-out batches; their loss decides which step is the best, and when to stop. Default: no evaluations. */
  readonly valid?: readonly Batch[] | undefined;
  /** The number of steps between evaluations. The last step is always followed by one. Default: only that one. */
  readonly evalEvery?: number | undefined;
  /** Whether to evaluate before the first step too; this evaluation never counts as the best. Default: true. */
  readonly evalFirst?: boolean;
  /** Stops after this many evaluations in a row without a lower loss. Default: never. */
  readonly patience?: number | undefined;
  /** Whether to set the adapter to the values of the best step at the end, from a copy on the host. Default: true. */
  readonly restoreBest?: boolean;
  /** The state from which to continue: the last one of the same training before it was cut off. Default: the beginning. */
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
 * the end, also after `signal`, sets the adapter to the values of the step with the lowest held-out loss, if this call has done
 * that step and `restoreBest` is not false. Throws as `train` does, and for invalid options.
 */
export async function* fit(options: FitOptions): AsyncGenerator<FitReport, void> {
  checkFit(options);
  const { from = BEGINNING, valid, evalEvery = Infinity, evalFirst = true, restoreBest = true, ...rest } = options; // prettier-ignore
  const { model, adapter, steps } = options;
  if (isFinished(from, options)) return;
  const isDue = (step: number): boolean => valid !== undefined && (step % evalEvery === 0 || step === steps);
  if (valid !== undefined && evalFirst && from.step === 0)
    yield { training: null, evaluation: await evaluate(model, valid, adapter), improved: false, state: from };
  const best = restoreBest ? new Snapshot(adapter) : null;
  let state = from;
  const pauseAfter = (step: number): boolean => isDue(step) || options.pauseAfter?.(step) === true;
  for await (const training of train({ ...rest, start: from.step, tokens: from.tokens, pauseAfter })) {
    const evaluation = isDue(training.step) ? await evaluate(model, valid!, adapter) : null;
    const improved = evaluation !== null && evaluation.loss < (state.best?.loss ?? Infinity);
    if (improved) await best?.take();
    state = stateAfter(state, training, evaluation, improved);
    state = { ...state, finished: isFinished(state, options) };
    yield { training, evaluation, improved, state };
    if (state.finished) break;
  }
  best?.restore();
}

function stateAfter(
  { best, sinceBest }: FitState,
  { step, tokens }: StepReport,
  evaluation: Evaluation | null,
  improved: boolean,
): Omit<FitState, "finished"> & { finished: boolean } {
  if (evaluation === null) return { step, tokens, best, sinceBest, finished: false };
  if (improved) return { step, tokens, best: { step, loss: evaluation.loss }, sinceBest: 0, finished: false };
  return { step, tokens, best, sinceBest: sinceBest + 1, finished: false };
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

/** A copy of the values of an adapter, on the host. */
class Snapshot {
  readonly #adapter: Adapter;
  #values = new Map<nn.Parameter, Awaited<ReturnType<nn.Parameter["data"]>>>();

  constructor(adapter: Adapter) {
    this.#adapter = adapter;
  }

  async take(): Promise<void> {
    const values = new Map<nn.Parameter, Awaited<ReturnType<nn.Parameter["data"]>>>();
    for (const parameter of this.#adapter.stateDict().values())
      values.set(parameter, (await parameter.data()).slice());
    this.#values = values;
  }

  restore(): void {
    for (const [parameter, values] of this.#values) parameter.set(values);
  }
}
