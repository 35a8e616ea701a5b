/** Evaluation: how well a model predicts examples that it is not trained on. */
import type { LanguageModel } from "../model.ts";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import { yieldToEventLoop } from "./yield.ts";
import { lossInputs } from "./micro-batch.ts";

/** The result of an evaluation. */
export interface Evaluation {
  /** The mean of -log p over the predicted tokens, in nats. */
  readonly loss: number;
  /** exp(loss). */
  readonly perplexity: number;
  /** The number of predicted tokens. */
  readonly tokens: number;
}

/**
 * Evaluates a model on all batches; each predicted token has the same weight. Turns off the dropout of `adapter` meanwhile. Throws
 * if `adapter` was made for another model.
 */
export async function evaluate(
  model: LanguageModel,
  batches: readonly Batch[],
  adapter?: Adapter,
): Promise<Evaluation> {
  if (adapter !== undefined && adapter.model !== model)
    throw new Error(`evaluate: adapter "${adapter.name}" was made for another model`);
  const training = adapter?.training ?? false;
  adapter?.train(false);
  try {
    let [sum, tokens] = [0, 0];
    for (const batch of batches) {
      await yieldToEventLoop();
      const inputs = lossInputs(model, batch);
      const loss = await (model.streamed?.loss(inputs) ?? model.loss(inputs).item());
      sum += loss * batch.predicted;
      tokens += batch.predicted;
    }
    return { loss: sum / tokens, perplexity: Math.exp(sum / tokens), tokens };
  } finally {
    adapter?.train(training);
  }
}
