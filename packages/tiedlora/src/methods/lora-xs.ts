/**
 * LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604): ΔW = s · B R A. B is frozen at the leading left singular vectors of W, multiplied
 * by the singular values, and A at the right singular vectors; only the r×r core R is trained, starting at zero.
 */
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PreparedMethod } from "../method.ts";
import { leadingSingularVectors } from "../linalg/svd.ts";
import type { Named } from "./recipe.ts";

export function loraXs(options: CommonOptions, named: Named): PreparedMethod<"A" | "R" | "B"> {
  return defineMethod({
    ...options,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.fromWeight(), trained: false },
      R: { shape: ["rank", "rank"], init: init.zeros() },
      B: { shape: ["out", "rank"], init: init.fromWeight(), trained: false },
    },
    lowRank: ({ A, R, B }) => ({ A: R.matmul(A), B }),
    prepare: ({ weight, dims }) => {
      const { left, values, right } = leadingSingularVectors(weight, dims.out, dims.in, dims.rank);
      const B = left.map((value, i) => value * values[i % dims.rank]!);
      return Promise.resolve({ A: right, B });
    },
  });
}
