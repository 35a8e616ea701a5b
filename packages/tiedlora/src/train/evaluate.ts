/** Evaluation: how well a model predicts examples that it is not trained on. */
import { realize } from "@tiedlora/core";
import type { LanguageModel } from "../model.ts";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import { headOf, type Loss, type LossLike, lossOf, type Metrics, valueOf, weightOf } from "./loss.ts";
import { yieldToEventLoop } from "./yield.ts";
import { lossInputs } from "./micro-batch.ts";

/** The result of an evaluation. */
export interface Evaluation {
  /** The mean of -log p over the predicted tokens, in nats, or the mean of the loss that was given. */
  readonly loss: number;
  /** exp(loss); without a meaning for a loss that is no cross-entropy. */
  readonly perplexity: number;
  /** What the loss reports beside its value, by name; left out for the model's own loss. */
  readonly metrics?: Metrics;
  /** The number of predicted tokens. */
  readonly tokens: number;
}

/**
 * Evaluates a model on all batches; each predicted token has the same weight, or each example if `given` is a loss over examples.
 * Turns off the dropout of `adapter` meanwhile. Throws if `adapter` was made for another model.
 * @param given the loss. Default: the model's own, the mean of -log p over the predicted tokens
 */
export async function evaluate(
  model: LanguageModel,
  batches: readonly Batch[],
  adapter?: Adapter,
  given?: LossLike,
): Promise<Evaluation> {
  const own = lossOf(given);
  if (adapter !== undefined && adapter.model !== model)
    throw new Error(`evaluate: adapter "${adapter.name}" was made for another model`);
  const training = adapter?.training ?? false;
  adapter?.train(false);
  try {
    let [sum, tokens, weights] = [0, 0, 0];
    const sums = new Map<string, number>();
    for (const batch of batches) {
      await yieldToEventLoop();
      const weight = weightOf(own, batch);
      const { loss, metrics } = await measured(model, batch, adapter ?? null, own);
      sum += loss * weight;
      for (const [name, value] of Object.entries(metrics))
        sums.set(name, (sums.get(name) ?? 0) + value * weight);
      weights += weight;
      tokens += batch.predicted;
    }
    const metrics = Object.fromEntries([...sums].map(([name, value]) => [name, value / weights]));
    const loss = sum / weights;
    return { loss, perplexity: Math.exp(loss), tokens, ...(own !== null && { metrics }) };
  } finally {
    adapter?.train(training);
  }
}

async function measured(
  model: LanguageModel,
  batch: Batch,
  adapter: Adapter | null,
  own: Loss | null,
): Promise<{ readonly loss: number; readonly metrics: Metrics }> {
  if (own === null) {
    const inputs = lossInputs(model, batch);
    return { loss: await (model.streamed?.loss(inputs) ?? model.loss(inputs).item()), metrics: {} };
  }
  const streamed = model.streamed ?? null;
  const { loss, metrics } =
    streamed === null
      ? valueOf(own, model, adapter, batch)
      : (await headOf(own, model, adapter, batch))(await streamed.predictions(lossInputs(model, batch)));
  realize(loss, ...Object.values(metrics)); // one program for all of them
  const values = Object.entries(metrics).map(async ([name, one]) => [name, await one.item()] as const);
  return { loss: await loss.item(), metrics: Object.fromEntries(await Promise.all(values)) };
}
