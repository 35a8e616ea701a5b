/** The training loop: takes batches, and yields a report for each step. The caller prints and saves. */
import { yieldToEventLoop } from "./yield.ts";
import { diagnose, DivergedError } from "./diverged.ts";
import { GradientMemory } from "./gradients.ts";
import { type Loss, lossOf, type Read, readValue, sumOf, valueOf, weightOf } from "./loss.ts";
import { lossInputs, type MicroBatch, microBatchesOf } from "./micro-batch.ts";
import type { StepReport, TrainOptions } from "./options.ts";

/**
 * Trains the adapter, and yields a report of each step once its loss is known. Prepares the next step while the device works.
 * Throws DivergedError if the loss is not finite, and an error with the reason if a step would train nothing of the adapter.
 */
export async function* train(options: TrainOptions): AsyncGenerator<StepReport> {
  const { adapter, optimizer, steps, start = 0, signal } = options;
  const loss = lossOf(options.loss);
  const meter = new Meter(steps, start, options.tokens ?? 0);
  let lastFinite: StepReport | null = null;
  const reportOf = async (submitted: Submitted): Promise<StepReport> => {
    const [{ loss, metrics }, gradNorm] = await Promise.all([submitted.value, submitted.gradNorm]);
    if (!Number.isFinite(loss))
      throw new DivergedError(submitted.step, loss, await diagnose(options, lastFinite));
    const memoryBytes = options.model.device.memory().liveBytes;
    lastFinite = { ...meter.measure(submitted), loss, metrics, gradNorm, memoryBytes };
    return lastFinite;
  };
  adapter.train();
  const memory = new GradientMemory(options.model, adapter, loss);
  try {
    let pending: Promise<StepReport> | null = null;
    for (let step = start; step < steps && !isAborted(signal); step++) {
      checkTrains(options);
      adapter.step = step;
      const lr = optimizer.lr;
      const submitted = await submitStep(options, step, { lr, memory, loss });
      if (submitted === null) break;
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
  /** The tokens and the padding of its batches. */
  readonly positions: number;
  readonly value: ReturnType<typeof sumOf>;
  readonly gradNorm: Promise<number | null>;
}

/** Submits a step; null if its gradients come from another place, which was stopped. */
async function submitStep(
  options: TrainOptions,
  step: number,
  { lr, memory, loss }: { readonly lr: number; readonly memory: GradientMemory; readonly loss: Loss | null },
): Promise<Submitted | null> {
  const { model, optimizer, batch, accumulate = 1, gradients } = options;
  const micro = await microBatchesOf(batch, step, accumulate, (one) => weightOf(loss, one));
  const submit = gradients ? applyGiven : accumulate === 1 && !model.streamed ? stepAtOnce : applyComputed;
  const parts = await submit({ ...options, loss: loss ?? undefined }, micro, memory);
  if (parts === null) return null;
  options.average?.update();
  const value = sumOf(parts);
  value.catch(() => undefined); // it is awaited after the norm is asked for
  const gradNorm = optimizer.gradNorm?.item() ?? Promise.resolve(null);
  gradNorm.catch(() => undefined); // it fails as the loss does, which is awaited
  const tokens = micro.reduce((n, { batch: { tokenCount } }) => n + tokenCount, 0);
  const positions = micro.reduce((n, { batch: { batch, length } }) => n + batch * length, 0);
  return { step: step + 1, lr, tokens, positions, value, gradNorm };
}

/** Performs a step of a single batch as one program. */
function stepAtOnce(
  { model, adapter, optimizer, loss: given }: TrainOptions,
  [only]: readonly MicroBatch[],
): Read[] {
  const own = lossOf(given);
  const value =
    own === null
      ? { loss: model.loss(lossInputs(model, only!.batch)), metrics: {} }
      : valueOf(own, model, adapter, only!.batch);
  optimizer.step(value.loss, Object.values(value.metrics));
  return [readValue(value)];
}

/** Performs a step from the gradients of its micro-batches, each of which is computed by itself. */
async function applyComputed(
  { optimizer }: TrainOptions,
  micro: readonly MicroBatch[],
  memory: GradientMemory,
): Promise<Read[]> {
  const trained = optimizer.parameters.filter(({ requiresGrad }) => requiresGrad);
  const parts: Read[] = [];
  for (const [i, one] of micro.entries()) {
    const { gradients, ...read } = await memory.compute(one, trained);
    read.loss.catch(() => undefined); // awaited once the step is submitted
    parts.push(read);
    if (i + 1 < micro.length) optimizer.accumulate(gradients);
    else optimizer.step(gradients);
  }
  return parts;
}

/** Performs a step from gradients that are computed in another place; null if that was stopped. */
async function applyGiven(
  { adapter, optimizer, gradients }: TrainOptions,
  micro: readonly MicroBatch[],
  memory: GradientMemory,
): Promise<Read[] | null> {
  const answers = await gradients!(micro);
  if (answers === null) return null;
  for (const { gradients: values } of answers.slice(0, -1)) optimizer.accumulate(memory.set(values, adapter));
  optimizer.step(memory.set(answers.at(-1)!.gradients, adapter));
  return answers.map(({ loss, metrics = {} }) => ({ loss: Promise.resolve(loss), metrics: Promise.resolve(metrics) })); // prettier-ignore
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

  measure({
    step,
    lr,
    tokens,
    positions,
  }: Submitted): Omit<StepReport, "loss" | "metrics" | "gradNorm" | "memoryBytes"> {
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
      padding: 1 - tokens / positions,
      tokensPerSecond: (this.#tokens - from.tokens) / seconds,
      secondsLeft: (seconds / (step - from.step)) * (this.#steps - step),
    };
  }
}
