/** Training with evaluations on held-out examples: which step is the best, and when to stop early. What is printed or saved is the caller's business. */
import { checkWhole, refuse } from "@tiedlora/core/arguments";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import { evaluate, type Evaluation } from "./evaluate.ts";
import type { StepReport, TrainOptions } from "./options.ts";
import { train } from "./train.ts";

/** Where a training is. */
export interface FitState {
  /** Steps done. */
  readonly step: number;
  /** Tokens seen. */
  readonly tokens: number;
  /** The lowest loss on the held-out batches so far, and its step: of equal losses the first. Null before the first evaluation. */
  readonly best: { readonly step: number; readonly loss: number } | null;
  /** Evaluations since then. */
  readonly sinceBest: number;
  /** Whether it has ended: all steps are done, or it was stopped early. */
  readonly finished: boolean;
}

/** What `fit` needs. */
export interface FitOptions extends Omit<TrainOptions, "start" | "tokens"> {
  /** Held-out batches: their loss decides which step is the best, and when to stop. Default: there are no evaluations. */
  readonly valid?: readonly Batch[] | undefined;
  /** Steps between evaluations; there is one after the last step in any case. Default: that one alone. */
  readonly evalEvery?: number | undefined;
  /** Whether the model is evaluated before the first step too: that one is never the best. Default: true. */
  readonly evalFirst?: boolean;
  /** Stops after this many evaluations in a row without a lower loss. Default: never. */
  readonly patience?: number | undefined;
  /** Whether the adapter has the values of the best step in the end, from a copy on the host. Default: true. */
  readonly restoreBest?: boolean;
  /** Goes on from here: the last state of the same training before it was cut off. Default: the beginning. */
  readonly from?: FitState;
}

/** What is known after a step, or after the evaluation before the first. */
export interface FitReport {
  /** The step; null: the evaluation before the first. */
  readonly training: StepReport | null;
  /** Null where none was due. */
  readonly evaluation: Evaluation | null;
  /** Whether this evaluation's loss is the lowest so far: the adapter now has the values of the best step. */
  readonly improved: boolean;
  readonly state: FitState;
}

const BEGINNING: FitState = { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false };

/**
 * Trains the adapter, evaluates it on held-out batches, and stops early where that is asked for; reports as `train` does. In the
 * end, also after `signal`, the adapter has the values of the step with the lowest held-out loss. Throws what `train` throws.
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

/** Whether nothing is left to do. */
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

/** The values of an adapter at one time. */
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
