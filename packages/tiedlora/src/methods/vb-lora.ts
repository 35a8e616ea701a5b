/**
 * VB-LoRA (Li et al. 2024, arXiv 2405.15179): one bank of short vectors for the whole model. Each piece of A's rows and
 * B's columns is a mixture of the `topK` vectors that its logits favour. It starts near the base model, not at it.
 */
import type { Tensor } from "@tiedlora/core";
import { where } from "@tiedlora/core";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import { recipe } from "./recipe.ts";

export interface VbLoraOptions extends CommonOptions {
  /** Vectors in the bank. Default: 256. */
  readonly vectors?: number;
  /** Their length; has to divide the sizes of the adapted modules. Default: the largest divisor of theirs and of 256. */
  readonly length?: number;
  /** Default: 2. */
  readonly topK?: number;
}

export function vbLora(options: VbLoraOptions = {}): PlainMethod<"bank" | "a" | "b"> {
  const { vectors = 256, topK = 2, ...common } = options;
  const length = (d: Dims): number => options.length ?? divisor(divisor(d.in, d.out), 256);
  /** [rows, pieces, vectors] -> [rows, pieces · length]. */
  const mix = (logits: Tensor, bank: Tensor): Tensor => {
    const [rows = 0, pieces = 0] = logits.shape;
    const weights = where(largest(logits, topK), logits, -1e30).softmax(-1);
    return weights.matmul(bank).reshape([rows, pieces * bank.shape[1]!]);
  };
  return defineMethod({
    ...common,
    name: "vb-lora",
    recipe: recipe("vb-lora", options),
    factors: {
      bank: { shape: [vectors, length], init: init.uniform(0.02), tie: "model" },
      a: { shape: ["rank", (d) => d.in / length(d), vectors], init: init.normal(0.1) },
      b: { shape: ["rank", (d) => d.out / length(d), vectors], init: init.normal(0.1) },
    },
    product: [],
    lowRank: ({ bank, a, b }) => ({ A: mix(a, bank), B: mix(b, bank).transpose() }),
  });
}

/** The greatest common divisor. */
function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}

/** Where the k largest of the last axis are (more, where some are equal). */
function largest(logits: Tensor, k: number): Tensor {
  let rest = logits.detach();
  let threshold = rest.max(-1, { keepdims: true });
  for (let i = 1; i < k; i++) {
    rest = where(rest.lt(threshold), rest, -1e30);
    threshold = rest.max(-1, { keepdims: true });
  }
  return logits.detach().ge(threshold);
}
