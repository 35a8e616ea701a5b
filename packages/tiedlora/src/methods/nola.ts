/**
 * NOLA (Koohpayegani et al. 2024, arXiv 2310.02556): A = Σ αᵢ Aᵢ and B = Σ βⱼ Bⱼ, with random matrices Aᵢ, Bⱼ that are neither stored nor
 * kept in memory: each program draws them again from the adapter's seed. Only the coefficients are trained.
 */
import { type Key, random, type Shape, type Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface NolaOptions extends CommonOptions {
  /** The number of random matrices for A, and for B. Default: 64. */
  readonly bases?: number;
}

export function nola({ bases = 64, ...common }: NolaOptions, named: Named): PlainMethod<"alpha" | "beta"> {
  checkWhole("nola: bases", bases, 1);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      alpha: { shape: [bases], init: init.normal() },
      beta: { shape: [bases], init: init.zeros() },
    },
    seeded: true,
    lowRank: ({ alpha, beta }, { dims: { in: width, out, rank }, key }) => ({
      A: combined(alpha, key.fold("A"), [rank, width], 1 / Math.sqrt(width)),
      B: combined(beta, key.fold("B"), [out, rank], 1 / Math.sqrt(rank)),
    }),
  });
}

/** Σ cᵢ Mᵢ, where the Mᵢ have the given shape and are uniform in ±bound·√3, that is, of standard deviation `bound`. */
function combined(coefficients: Tensor, k: Key, shape: Shape, bound: number): Tensor {
  const n = coefficients.size;
  const drawn = random
    .uniform(k, [n, ...shape])
    .sub(0.5)
    .mul(2 * Math.sqrt(3) * bound);
  return drawn.mul(coefficients.reshape([n, 1, 1])).sum(0);
}
