/** The training loop: batches in, a report a step out. What is printed or saved is the caller's business. */
import type { Tensor } from "@tiedlora/core";
import type { LanguageModel, LossInputs } from "../model.ts";
import { type Batch, batchesOfStep } from "../data/batches.ts";
import { yieldToEventLoop } from "./yield.ts";
import { diagnose, DivergedError } from "./diverged.ts";
import type { StepReport, TrainOptions } from "./options.ts";

/**
 * Trains the adapter, and reports each step once its loss is known. The next step is prepared while the device works.
 * Throws DivergedError when the loss is not finite, and an error that says why when nothing of the adapter would be trained.
 */
export async function* train(options: TrainOptions): AsyncGenerator<StepReport> {
  const { adapter, optimizer, steps, start = 0, signal } = options;
  const meter = new Meter(steps, start, options.tokens ?? 0);
  let lastFinite: StepReport | null = null;
  const reportOf = async (submitted: Submitted): Promise<StepReport> => {
    const [loss, gradNorm] = await Promise.all([submitted.loss, submitted.gradNorm]);
    if (!Number.isFinite(loss))
      throw new DivergedError(submitted.step, loss, await diagnose(options, lastFinite));
    const memoryBytes = options.model.device.memory().liveBytes;
    lastFinite = { ...meter.measure(submitted), loss, gradNorm, memoryBytes };
    return lastFinite;
  };
  adapter.train();
  try {
    let pending: Promise<StepReport> | null = null;
    for (let step = start; step < steps && !isAborted(signal); step++) {
      checkTrains(options);
      adapter.step = step;
      const lr = optimizer.lr;
      const submitted = submitStep(options, step, lr);
      if (pending !== null) yield await pending;
      pending = reportOf(submitted);
      pending.catch(() => undefined); // it is thrown when it is awaited
      if (options.pauseAfter?.(step + 1)) {
        yield await pending;
        pending = null;
      }
      await yieldToEventLoop();
    }
    if (pending !== null) yield await pending;
  } finally {
    adapter.train(false);
  }
}

/** Throws if a step would train nothing of the adapter. Asked anew each step: it may be merged or taken off meanwhile. */
function checkTrains({ model, adapter, optimizer }: TrainOptions): void {
  const refuse = (reason: string): never => {
    throw new Error(`train: nothing of adapter "${adapter.name}" would be trained: ${reason}`);
  };
  if (adapter.model !== model) refuse("it was made for another model; adapt this one, or train that one");
  const { idleReason } = adapter;
  if (idleReason !== null) refuse(idleReason);
  const trained = adapter.trainableParameters();
  if (trained.length === 0) refuse("every parameter of it is frozen; unfreeze some");
  if (!trained.some((parameter) => optimizer.parameters.includes(parameter)))
    refuse("the optimizer has none of its parameters; make it from adapter.parameters()");
}

/** Asked anew each step: others abort it. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted ?? false;
}

/** A step that the device has been given. */
interface Submitted {
  /** From 1. */
  readonly step: number;
  readonly lr: number;
  readonly tokens: number;
  readonly loss: Promise<number>;
  readonly gradNorm: Promise<number | null>;
}

function submitStep(
  { model, optimizer, batch, accumulate = 1 }: TrainOptions,
  step: number,
  lr: number,
): Submitted {
  const batches = batchesOfStep(step, accumulate, batch.perEpoch).map((index) => batch(index));
  const predicted = batches.reduce((n, one) => n + one.predicted, 0);
  // Each part's loss is a mean over its own tokens: weighted by their share, the parts add up to the mean over all.
  const losses = batches.map((one): Tensor => {
    const loss = model.loss(lossInputs(model, one));
    return batches.length === 1 ? loss : loss.mul(one.predicted / predicted);
  });
  for (const loss of losses.slice(0, -1)) optimizer.accumulate(loss);
  optimizer.step(losses.at(-1));
  const loss = Promise.all(losses.map((one) => one.item())).then((parts) => parts.reduce((a, b) => a + b));
  const gradNorm = optimizer.gradNorm?.item() ?? Promise.resolve(null);
  gradNorm.catch(() => undefined); // the same failure as the loss's
  const tokens = batches.reduce((n, one) => n + one.tokenCount, 0);
  return { step: step + 1, lr, tokens, loss, gradNorm };
}

/** A batch as the model's loss takes it. */
export function lossInputs(
  model: LanguageModel,
  { batch, length, tokens, mask, segments, packed }: Batch,
): LossInputs {
  const rows = <T extends Int32Array | Float32Array>(values: T): T[] =>
    Array.from({ length: batch }, (_, row) => values.subarray(row * length, (row + 1) * length) as T);
  // Where rotations depend on the length of a sequence, padding must not count as part of it.
  const apart = packed || model.lengthMatters === true;
  return { inputIds: rows(tokens), mask: rows(mask), ...(apart && { segments: rows(segments) }) };
}

/** Speed and time left. The first step compiles, and is left out of the estimate once there are others. */
class Meter {
  readonly #steps: number;
  readonly #started: number = performance.now();
  /** Step and tokens at which counting starts: the beginning, later the end of the first step. */
  #from: { readonly time: number; readonly step: number; readonly tokens: number };
  #tokens: number;
  #measured = 0;

  constructor(steps: number, start: number, tokens: number) {
    this.#steps = steps;
    this.#tokens = tokens;
    this.#from = { time: this.#started, step: start, tokens };
  }

  measure({ step, lr, tokens }: Submitted): Omit<StepReport, "loss" | "gradNorm" | "memoryBytes"> {
    const now = performance.now();
    this.#tokens += tokens;
    const from = this.#from;
    const seconds = Math.max((now - from.time) / 1000, 1e-9);
    if (this.#measured++ === 0) this.#from = { time: now, step, tokens: this.#tokens };
    return {
      step,
      steps: this.#steps,
      lr,
      tokens: this.#tokens,
      tokensPerSecond: (this.#tokens - from.tokens) / seconds,
      secondsLeft: (seconds / (step - from.step)) * (this.#steps - step),
    };
  }
}
