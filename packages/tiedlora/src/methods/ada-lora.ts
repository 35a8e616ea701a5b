/**
 * AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): ΔW = s · P diag(λ) Q, in the form of a singular value decomposition, of which the least
 * important triplets of the whole model are pruned while it trains: see `RankSchedule`.
 */
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function adaLora(options: CommonOptions, named: Named): PlainMethod<"Q" | "lambda" | "P"> {
  return defineMethod({
    ...options,
    ...named,
    factors: {
      Q: { shape: ["rank", "in"], init: init.normal() },
      lambda: { shape: ["rank"], init: init.zeros() },
      P: { shape: ["out", "rank"], init: init.normal() },
    },
    lowRank: ({ Q, lambda, P }) => ({ A: Q.mul(lambda.unsqueeze(1)), B: P }),
  });
}
