/**
 * VB-LoRA (Li et al. 2024, arXiv 2405.15179): one bank of short vectors for the whole model. Each piece of A's rows and B's columns
 * is a mixture of the `topK` vectors with the largest logits. The adapted model starts near the base model, not equal to it.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { commonDivisor, mixtureRows } from "../linalg/mixture.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface VbLoraOptions extends CommonOptions {
  /** The number of vectors in the bank. Default: 256. */
  readonly vectors?: number;
  /** The length of the vectors, a divisor of all sizes of adapted modules. Default: the greatest common divisor of them and 256. */
  readonly length?: number;
  /** The number of vectors in a mixture. Default: 2. */
  readonly topK?: number;
}

export function vbLora(options: VbLoraOptions, named: Named): PlainMethod<"bank" | "a" | "b"> {
  const { vectors = 256, topK = 2, length: given, ...common } = options;
  for (const [what, value] of Object.entries({
    vectors,
    topK,
    ...(given !== undefined && { length: given }),
  }))
    checkWhole(`vb-lora: ${what}`, value, 1);
  const length = (d: Dims): number => given ?? commonDivisor(d.divisor, 256);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      bank: { shape: [vectors, length], init: init.uniform(0.02), tie: "model" },
      a: { shape: ["rank", (d) => d.in / length(d), vectors], init: init.normal(0.1) },
      b: { shape: ["rank", (d) => d.out / length(d), vectors], init: init.normal(0.1) },
    },
    product: [],
    lowRank: ({ bank, a, b }) => ({
      A: mixtureRows(a, bank, topK),
      B: mixtureRows(b, bank, topK).transpose(),
    }),
  });
}
