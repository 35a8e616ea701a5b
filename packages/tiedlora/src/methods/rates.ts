/**
 * The learning rate that each method learns well with: one table for command line, sweeps, demo and page. Measured, not
 * derived: docs/paper-grid.md says by which search, and a test holds the table against examples/paper-grid.yaml.
 */
import { DEFAULT_LEARNING_RATE } from "../method.ts";
import type { MethodName } from "./names.ts";

/**
 * The highest rate of AdamW with warm-up and cosine decay, at a scale of 1 (alpha = rank): of 0.003, 0.01, 0.03 and 0.1 the
 * one with the lowest validation loss at ranks 8 and 128 together, on the embedded base model. Larger models want less.
 * tl4 and tl5 were not searched: they have the rates of tl6 and of lora. rslora, lora-fa, lora-xs and vb-lora were searched at
 * rank 8 alone; dora, lora-bias and ShareLoRA train pairs as lora does, and have its rate.
 */
export const LEARNING_RATES: Readonly<Record<MethodName, number>> = {
  lora: 0.01,
  vera: 0.1,
  tl1: 0.03,
  tl2: 0.1,
  tl3: 0.1,
  tl4: 0.03,
  tl5: 0.01,
  tl6: 0.03,
  rslora: 0.01,
  "lora-fa": 0.03,
  "sharelora-a": 0.01,
  "sharelora-b": 0.01,
  "sharelora-ab": 0.01,
  dora: 0.01,
  "lora-bias": 0.01,
  "lora-xs": 0.1,
  "vb-lora": 0.03,
};

/** Members of the family without a name of their own: the rate of the configuration that trains the same factors. */
const SAME_FACTORS: Readonly<Record<string, MethodName>> = {
  "v u": "vera",
  A: "tl1",
  "v A": "tl2",
  "B u": "tl3",
  "v B u": "tl4",
  "B A": "tl5",
  "v B u A": "tl6",
};

/** The rate of a member of the Tied-LoRA family: by its name, else by the factors it trains, given in the formula's order. */
export function familyRate(name: string, trained: readonly string[]): number {
  const known = isKnown(name) ? name : SAME_FACTORS[trained.join(" ")];
  return known === undefined ? DEFAULT_LEARNING_RATE : LEARNING_RATES[known];
}

const isKnown = (name: string): name is MethodName => Object.hasOwn(LEARNING_RATES, name);
