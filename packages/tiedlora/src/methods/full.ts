/**
 * Full fine-tuning: all parameters of the model are trained, as copies in the adapter (`modulesToSave: ["*"]`). The copies take as much memory as
 * a model in f32, and so does each of an optimizer's states; rank and alpha have no meaning.
 */
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function full(options: CommonOptions, named: Named): PlainMethod<never> {
  const { target = "qkv" } = options;
  if (target !== "qkv" && target !== "all-linear")
    throw new Error(
      'full: a target or layers are given, and this method trains all parameters; leave them out, or train some modules whole by modulesToSave: ["lm_head"] of another method',
    );
  if (options.trainedTokens !== undefined)
    throw new Error("full: trainedTokens is given, and this method trains all rows; leave it out");
  return defineMethod<never>({
    ...options,
    ...named,
    modulesToSave: ["*"],
    bias: "none", // they are among all parameters
    factors: {},
    product: [],
    forward: (_factors, { y }) => y,
  });
}
