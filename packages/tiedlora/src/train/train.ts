/** The training loop: takes batches, and yields a report for each step. The caller prints and saves. */
import type { Tensor } from "@tiedlora/core";
import type * as optim from "@tiedlora/nn/optim";
import type { LanguageModel, LossInputs, StreamedLanguageModel } from "../model.ts";
import { type Batch, batchesOfStep } from "../data/batches.ts";
import { yieldToEventLoop } from "./yield.ts";
import { diagnose, DivergedError } from "./diverged.ts";
import type { StepReport, TrainOptions } from "./options.ts";

/**
 * Trains the adapter, and yields a report of each step once its loss is known. Prepares the next step while the device works.
 * Throws DivergedError if the loss is not finite, and an error with the reason if a step would train nothing of the adapter.
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
      const submitted = await submitStep(options, step, lr);
      if (pending !== null) yield await pending;
      pending = reportOf(submitted);
      pending.catch(() => undefined); // a failure is thrown where `pending` is awaited
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

/** Throws if a step would train nothing of the adapter. Called before each step: the adapter may have been merged or detached. */
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

/** Whether training was aborted. A function, so that each step reads the signal anew. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted ?? false;
}

/** A step that was submitted to the device. */
interface Submitted {
  /** The step, from 1. */
  readonly step: number;
  readonly lr: number;
  readonly tokens: number;
  readonly loss: Promise<number>;
  readonly gradNorm: Promise<number | null>;
}

async function submitStep(
  { model, optimizer, batch, accumulate = 1 }: TrainOptions,
  step: number,
  lr: number,
): Promise<Submitted> {
  const batches = batchesOfStep(step, accumulate, batch.perEpoch).map((index) => batch(index));
  const predicted = batches.reduce((n, one) => n + one.predicted, 0);
  // A batch's loss is a mean over its own tokens. Weighted by each batch's share of tokens, the losses sum to the mean over all.
  const parts = batches.map((one) => ({
    inputs: lossInputs(model, one),
    factor: batches.length === 1 ? 1 : one.predicted / predicted,
  }));
  const loss = model.streamed
    ? Promise.resolve(await streamStep(model.streamed, optimizer, parts))
    : stepAtOnce(model, optimizer, parts);
  const gradNorm = optimizer.gradNorm?.item() ?? Promise.resolve(null);
  gradNorm.catch(() => undefined); // it fails as the loss does, which is awaited
  const tokens = batches.reduce((n, one) => n + one.tokenCount, 0);
  return { step: step + 1, lr, tokens, loss, gradNorm };
}

/** The batches of a step, each with its share of the step's tokens. */
type Parts = readonly { readonly inputs: LossInputs; readonly factor: number }[];

/** Submits a step as one program for each batch; the result is the step's loss. */
function stepAtOnce(model: LanguageModel, optimizer: optim.Optimizer, parts: Parts): Promise<number> {
  const losses = parts.map(({ inputs, factor }): Tensor => {
    const loss = model.loss(inputs);
    return factor === 1 ? loss : loss.mul(factor);
  });
  for (const loss of losses.slice(0, -1)) optimizer.accumulate(loss);
  optimizer.step(losses.at(-1));
  return Promise.all(losses.map((one) => one.item())).then((values) => values.reduce((a, b) => a + b));
}

/** Performs a step of a model that is run layer by layer; returns the step's loss. */
async function streamStep(
  streamed: StreamedLanguageModel,
  optimizer: optim.Optimizer,
  parts: Parts,
): Promise<number> {
  const trained = optimizer.parameters.filter(({ requiresGrad }) => requiresGrad);
  const losses: number[] = [];
  for (const [i, { inputs, factor }] of parts.entries()) {
    const { loss, gradients } = await streamed.gradients(inputs, trained, { factor });
    if (i + 1 < parts.length) optimizer.accumulate(gradients);
    else optimizer.step(gradients);
    losses.push(loss);
  }
  return losses.reduce((a, b) => a + b);
}

/** Converts a batch to the argument of the model's loss. */
export function lossInputs(
  model: LanguageModel,
  { batch, length, tokens, mask, segments, packed }: Batch,
): LossInputs {
  const rows = <T extends Int32Array | Float32Array>(values: T): T[] =>
    Array.from({ length: batch }, (_, row) => values.subarray(row * length, (row + 1) * length) as T);
  // If rotary embeddings depend on the length of a sequence, padding must not count as part of the sequence.
  const apart = packed || model.lengthMatters === true;
  return { inputIds: rows(tokens), mask: rows(mask), ...(apart && { segments: rows(segments) }) };
}

/** Measures speed and estimates the time left. The first step, which compiles, is left out once there are other steps. */
class Meter {
  readonly #steps: number;
  readonly #started: number = performance.now();
  /** Time, step and tokens from which speed is measured: the beginning, and later the end of the first step. */
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
