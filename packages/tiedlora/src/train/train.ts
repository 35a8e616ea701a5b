/** The training loop: batches in, a report a step out. What is printed or saved is the caller's business. */
import type { optim } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import type { Adapter } from "../adapter.ts";
import type { Batch } from "../data/batches.ts";

export interface TrainOptions {
  readonly model: Decoder;
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  readonly steps: number;
  /** The batch of a step, counted from 0. */
  readonly batch: (step: number) => Batch;
  /** Stops after the current step. */
  readonly signal?: AbortSignal;
}

export interface StepReport {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** Before the step's update. */
  readonly loss: number;
  readonly lr: number;
  /** Tokens seen so far, without padding. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
}

/** The loss stopped being a number. The update of that step is in the adapter: do not save it. */
export class DivergedError extends Error {
  readonly step: number;

  constructor(step: number, loss: number, where: string) {
    super(
      `the loss is ${loss} at step ${step}: ${where}; nothing was saved. Try a lower learning rate, a warm-up, or gradient clipping`,
    );
    this.name = "DivergedError";
    this.step = step;
  }
}

/**
 * Trains the adapter, and reports each step once its loss is known. The next step is prepared while the device works.
 * Throws DivergedError when the loss is not finite.
 */
export async function* train(options: TrainOptions): AsyncGenerator<StepReport> {
  const { model, adapter, optimizer, steps, signal } = options;
  if (adapter.trainableParameters().length === 0)
    throw new Error("nothing would be trained: every parameter of the adapter is frozen; unfreeze some");
  const meter = new Meter(steps);
  adapter.train();
  try {
    let pending: Promise<StepReport> | null = null;
    for (let step = 0; step < steps && !signal?.aborted; step++) {
      adapter.step = step;
      const batch = options.batch(step);
      const loss = model.loss(lossInputs(model, batch));
      const lr = optimizer.lr;
      optimizer.step(loss);
      if (pending !== null) yield await pending;
      const reported = loss.item().then(async (value) => {
        if (!Number.isFinite(value)) throw new DivergedError(step + 1, value, await firstNotFinite(adapter));
        return meter.report(step + 1, value, lr, batch.tokenCount);
      });
      reported.catch(() => undefined); // it is thrown when it is awaited
      pending = reported;
    }
    if (pending !== null) yield await pending;
  } finally {
    adapter.train(false);
  }
}

/** A batch as the model's loss takes it. */
export function lossInputs(
  model: Decoder,
  { batch, length, tokens, mask }: Batch,
): Parameters<Decoder["loss"]>[0] {
  const shape = [batch, length];
  return {
    inputIds: model.device.tensor(tokens, { shape, dtype: "i32" }),
    mask: model.device.tensor(mask, { shape }),
  };
}

/** Says which parameter holds numbers that are not finite. */
async function firstNotFinite(adapter: Adapter): Promise<string> {
  for (const [path, parameter] of adapter.stateDict()) {
    const values = await parameter.data();
    const count = Array.from(values).filter((value) => !Number.isFinite(value)).length;
    if (count > 0) return `${count} of ${values.length} values of ${path} are not finite`;
  }
  return "all parameters of the adapter are finite, so it comes from the model's own weights or the data";
}

/** Speed and time left. The first step compiles, and is left out of the estimate once there are others. */
class Meter {
  readonly #steps: number;
  readonly #start: number = performance.now();
  #first: { readonly time: number; readonly tokens: number } | null = null;
  #tokens = 0;

  constructor(steps: number) {
    this.#steps = steps;
  }

  report(step: number, loss: number, lr: number, tokens: number): StepReport {
    const now = performance.now();
    this.#tokens += tokens;
    const since = this.#first ?? { time: this.#start, tokens: 0 };
    const stepsSince = this.#first === null ? 1 : step - 1;
    const seconds = Math.max((now - since.time) / 1000, 1e-9);
    this.#first ??= { time: now, tokens: this.#tokens };
    return {
      step,
      steps: this.#steps,
      loss,
      lr,
      tokens: this.#tokens,
      tokensPerSecond: (this.#tokens - since.tokens) / seconds,
      secondsLeft: (seconds / stepsSince) * (this.#steps - step),
    };
  }
}
