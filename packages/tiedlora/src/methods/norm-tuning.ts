/**
 * Norm tuning (Zhao et al. 2023, arXiv 2312.11420; PEFT's LN tuning): the scales of all norms, or of those that the target names, and their biases
 * where they have some, are trained as copies in the adapter (`modulesToSave: ["*norms"]`, which any method can have). Rank and alpha have no meaning.
 */
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import { ALL_NORMS } from "../adapter/overlay.ts";
import type { Target } from "../adapter/sites.ts";
import type { Named } from "./recipe.ts";

export function normTuning(options: CommonOptions, named: Named): PlainMethod<never> {
  return defineMethod<never>({
    ...options,
    ...named,
    modulesToSave: [...normsOf(options.target), ...(options.modulesToSave ?? [])],
    factors: {},
    product: [],
    forward: (_factors, { y }) => y,
  });
}

/** The norms that a target names; all in place of "qkv" and "all-linear", which are defaults. */
function normsOf(target: Target = "qkv"): string[] {
  if (target === "qkv" || target === "all-linear") return [ALL_NORMS];
  if (Array.isArray(target)) return (target as readonly string[]).map((name) => `${ALL_NORMS}.${name}`);
  throw new Error(
    'norm-tuning: the target is neither a default nor a list; give names of norms or ends of their paths, such as ["input_layernorm", "layers.0.post_attention_layernorm"]',
  );
}
