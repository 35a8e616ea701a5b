/**
 * Rows of the input embedding that any method can train beside its own target (`trainedTokens`): what is added to the vectors of a few
 * tokens, as one more factor of the adapter. As a method of its own it is methods/trained-tokens.ts.
 */
import type { FactorTensors, LowRank, Method, Place } from "../method.ts";

/** The name of the factor: what is added to the rows, [width, tokens]. */
export const TOKENS = "tokens";

/** The part of an adapter's formulas that a layer evaluates. */
export type Formulas = Pick<Method, "name" | "forward" | "lowRank" | "prefix" | "prompt">;

/** The formula of the rows: the update of an embedding [width, rows] that is zero but for the given rows. */
export function tokenFormulas({ name, trainedTokens }: Pick<Method, "name" | "trainedTokens">): Formulas {
  const lowRank = (factors: FactorTensors, { dims }: Place): LowRank => {
    const rows = factors[TOKENS]!;
    const ids = rows.device!.tensor(Int32Array.from(trainedTokens));
    return { A: ids.oneHot(dims.in), B: rows };
  };
  return { name, lowRank };
}
