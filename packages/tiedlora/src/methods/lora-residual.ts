/**
 * LoRA whose start does not have to be zero: y = W x + s · (B A - B₀ A₀) x, where A₀ and B₀ are frozen at the start values of A and B.
 * Where others subtract the start from the frozen weight (PiSSA, OLoRA, CorDA, LoRA-GA), it is subtracted here, so that the weight is
 * never changed. The update is a LoRA of twice the rank. Without another start it is PiSSA's.
 */
import { concat } from "@tiedlora/core";
import { init } from "../init.ts";
import { defineMethod, lowRankForward, type CommonOptions, type PreparedMethod } from "../method.ts";
import { STARTS } from "../starts/formulas.ts";
import type { Named } from "./recipe.ts";

export function loraResidual(options: CommonOptions, named: Named): PreparedMethod<"A" | "B" | "A0" | "B0"> {
  return defineMethod({
    ...options,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.fromWeight() },
      B: { shape: ["out", "rank"], init: init.fromWeight() },
      A0: { shape: ["rank", "in"], init: init.fromWeight(), trained: false },
      B0: { shape: ["out", "rank"], init: init.fromWeight(), trained: false },
    },
    product: [], // zero at the start because both products are equal
    forward: ({ A, B, A0, B0 }, call) =>
      lowRankForward({ A: concat([A, A0]), B: concat([B, B0.neg()], 1) }, call),
    lowRank: ({ A, B, A0, B0 }) => ({ A: concat([A, A0]), B: concat([B, B0.neg()], 1) }),
    prepare: ({ weight, dims, scale }) => {
      const { A, B } = STARTS.pissa.formula({
        weight,
        rank: dims.rank,
        rows: dims.out,
        columns: dims.in,
        scale,
      });
      return Promise.resolve({ A, B, A0: A, B0: B });
    },
  });
}
