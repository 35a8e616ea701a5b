/**
 * Norm tuning (Zhao et al. 2023, arXiv 2312.11420; PEFT's LN tuning): the scales of all norms, and their biases where they have some, are trained as
 * copies in the adapter (`modulesToSave: ["*norms"]`, which any method can have). Rank and alpha have no meaning.
 */
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function normTuning(options: CommonOptions, named: Named): PlainMethod<never> {
  return defineMethod<never>({
    ...options,
    ...named,
    modulesToSave: ["*norms", ...(options.modulesToSave ?? [])],
    factors: {},
    product: [],
    forward: (_factors, { y }) => y,
  });
}
