/** A good learning rate for each method, from the table of methods; the command line, sweeps, demo and page use them. */
import { DEFAULT_LEARNING_RATE } from "../method.ts";
import { ENTRIES, type MethodName } from "./table.ts";
import { FACTOR_NAMES, type FactorName } from "./tied-lora.ts";

/**
 * For each method, a good highest learning rate for AdamW with warm-up and cosine decay, at a scale of 1 (alpha = rank), measured
 * on the embedded base model. Larger models need lower rates.
 */
export const LEARNING_RATES: Readonly<Record<MethodName, number>> = Object.fromEntries(
  ENTRIES.map(({ name, learningRate }) => [name, learningRate]),
) as Record<MethodName, number>;

/**
 * The learning rate of a member of the Tied-LoRA family: of the method of this name, otherwise of the first method in the table
 * that trains the same factors, otherwise `DEFAULT_LEARNING_RATE`.
 */
export function familyRate(name: string, trained: readonly FactorName[]): number {
  const set = factorSet(trained);
  const known =
    ENTRIES.find((entry) => entry.name === name) ??
    ENTRIES.find(({ member }) => member !== null && factorSet(member.trained) === set);
  return known?.learningRate ?? DEFAULT_LEARNING_RATE;
}

/** The factors in the order of the formula, as text: "v B". */
function factorSet(trained: readonly FactorName[]): string {
  return FACTOR_NAMES.filter((factor) => trained.includes(factor)).join(" ");
}
