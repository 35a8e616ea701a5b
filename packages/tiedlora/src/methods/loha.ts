/**
 * LoHa (Hyeon-Woo et al. 2022, arXiv 2108.06098): ΔW = s (B1 A1) ⊙ (B2 A2). The elementwise product of two matrices of rank r has a rank
 * of up to r².
 */
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function loha(options: CommonOptions, named: Named): PlainMethod<"A1" | "B1" | "A2" | "B2"> {
  return defineMethod({
    ...options,
    ...named,
    factors: {
      A1: { shape: ["rank", "in"], init: init.normal(1) },
      B1: { shape: ["out", "rank"], init: init.normal(0.1) },
      A2: { shape: ["rank", "in"], init: init.normal(1) },
      B2: { shape: ["out", "rank"], init: init.zeros() },
    },
    forward: ({ A1, B1, A2, B2 }, { x, y, scale }) => {
      const update = B1.matmul(A1).mul(scaled(B2, scale).matmul(A2));
      return y.add(x.matmul(update.transpose()));
    },
  });
}
