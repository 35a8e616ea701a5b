/**
 * The micro-batches of a step, whose gradients are accumulated. Each is a function of the step, the data and the settings alone, so
 * its gradient can be computed anywhere.
 */
import { type AsyncBatchSource, type Batch, type BatchSource, batchesOfStep } from "../data/batches.ts";
import type { LanguageModel, LossInputs } from "../model.ts";

/** One of the batches of a step. */
export interface MicroBatch {
  /** The step, from 0. */
  readonly step: number;
  /** The index of the batch in the training's BatchSource. */
  readonly index: number;
  readonly batch: Batch;
  /** What its loss is multiplied by: its share of the step's predicted tokens, or of its examples if the loss is over examples. */
  readonly factor: number;
}

/** What is computed from a micro-batch. */
export interface MicroGradients {
  /** The loss, times the factor. */
  readonly loss: number;
  /** What the loss reports beside its value, times the factor; left out for the model's own loss. */
  readonly metrics?: Readonly<Record<string, number>>;
  /** The gradients of that, by the path of each trained parameter of the adapter in files; none for one that has no effect. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

/**
 * Computes the gradients of the micro-batches of a step, in another place, from the values that the adapter has now. The results
 * are in the order of the micro-batches; null if it was stopped, and training then ends with the step before.
 */
export type GradientSource = (batches: readonly MicroBatch[]) => Promise<readonly MicroGradients[] | null>;

/**
 * The micro-batches of a step, from 0. A batch's loss is a mean over its own tokens, or over its examples; weighted by each batch's
 * share of them, as `weightOf` counts, the losses sum to the mean over all.
 */
export async function microBatchesOf(
  batch: BatchSource | AsyncBatchSource,
  step: number,
  accumulate: number,
  weightOf: (batch: Batch) => number = ({ predicted }) => predicted,
): Promise<MicroBatch[]> {
  const indices = batchesOfStep(step, accumulate, batch.perEpoch);
  const batches: Batch[] = [];
  for (const index of indices) batches.push(await batch(index));
  const all = batches.reduce((n, one) => n + weightOf(one), 0);
  return batches.map((one, i) => ({
    step,
    index: indices[i]!,
    batch: one,
    factor: batches.length === 1 ? 1 : weightOf(one) / all,
  }));
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
