/** The examples that a start from data observes. */
import type { EncodedExample } from "../data/encode.ts";
import { exampleOrder } from "../data/batches.ts";
import type { LossInputs } from "../model.ts";

/**
 * Some examples, chosen by a seed, as batches of one row each without padding, which would count as an input: `batches` of
 * `adaptWithStart`, `inputMoments` and `weightGradients`.
 */
export function observedBatches(
  examples: readonly EncodedExample[],
  { count, seed }: { readonly count: number; readonly seed: number },
): LossInputs[] {
  const order = exampleOrder(examples.length, seed);
  return Array.from({ length: Math.min(count, examples.length) }, (_, i) => rowOf(examples[order(i)]!));
}

function rowOf({ tokens, spans, starts }: EncodedExample): LossInputs {
  const mask = new Float32Array(tokens.length);
  for (const [from, to] of spans) mask.fill(1, from, to);
  if (starts === undefined) return { inputIds: [tokens], mask: [mask] };
  const segments = new Int32Array(tokens.length);
  for (const [i, start] of starts.entries()) segments.fill(i, start);
  return { inputIds: [tokens], mask: [mask], segments: [segments] };
}
