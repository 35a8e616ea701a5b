/** The learning rate that each method learns well with, for command line, sweeps, demo and page: taken from the table of methods. */
import { DEFAULT_LEARNING_RATE } from "../method.ts";
import { ENTRIES, type MethodName } from "./table.ts";
import { FACTOR_NAMES, type FactorName } from "./tied-lora.ts";

/**
 * The highest rate of AdamW with warm-up and cosine decay that each method learns well with, at a scale of 1 (alpha = rank):
 * measured on the embedded base model. Larger models want less.
 */
export const LEARNING_RATES: Readonly<Record<MethodName, number>> = Object.fromEntries(
  ENTRIES.map(({ name, learningRate }) => [name, learningRate]),
) as Record<MethodName, number>;

/** The rate of a member of the Tied-LoRA family: by its name, else that of the first method that trains the same factors. */
export function familyRate(name: string, trained: readonly FactorName[]): number {
  const set = factorSet(trained);
  const known =
    ENTRIES.find((entry) => entry.name === name) ??
    ENTRIES.find(({ member }) => member !== null && factorSet(member.trained) === set);
  return known?.learningRate ?? DEFAULT_LEARNING_RATE;
}

/** "v B": the factors in the order of the formula. */
function factorSet(trained: readonly FactorName[]): string {
  return FACTOR_NAMES.filter((factor) => trained.includes(factor)).join(" ");
}
