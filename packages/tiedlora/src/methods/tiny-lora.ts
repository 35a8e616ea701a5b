/**
 * TinyLoRA (Morris et al. 2026, arXiv 2602.04118): LoRA-XS whose core is R = Σ vᵢ Pᵢ, with random frozen matrices Pᵢ and one short vector v
 * for many modules, by default for all of them. Its paper reports results of reinforcement learning only.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { leadingSingularVectors } from "../linalg/svd.ts";
import { defineMethod, type CommonOptions, type PreparedMethod, type Tie } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface TinyLoraOptions extends CommonOptions {
  /** The length of v. Default: 64. */
  readonly length?: number;
  /** Which modules share one v. Default: "model", all of them. */
  readonly share?: Tie;
}

export function tinyLora(options: TinyLoraOptions, named: Named): PreparedMethod<"A" | "B" | "P" | "v"> {
  const { length = 64, share = "model", ...common } = options;
  checkWhole("tiny-lora: length", length, 1);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.fromWeight(), trained: false },
      B: { shape: ["out", "rank"], init: init.fromWeight(), trained: false },
      P: { shape: [length, "rank", "rank"], init: init.normal(), trained: false, bySeed: true },
      v: { shape: [length], init: init.zeros(), tie: share },
    },
    lowRank: ({ A, B, P, v }) => ({
      A: P.mul(v.reshape([length, 1, 1]))
        .sum(0)
        .matmul(A),
      B,
    }),
    prepare: ({ weight, dims }) => {
      const { left, values, right } = leadingSingularVectors(weight, dims.out, dims.in, dims.rank);
      const B = left.map((value, i) => value * values[i % dims.rank]!);
      return Promise.resolve({ A: right, B });
    },
  });
}
