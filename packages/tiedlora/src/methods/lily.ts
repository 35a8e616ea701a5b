/**
 * Lily (Zhong et al. 2024, arXiv 2407.09946): z = W x + s (Σ_e p_e B_e) A x. A is shared by `stride` successive layers; the experts B_e are
 * shared by all layers, and each layer's router R mixes them: p is the mean over the tokens of softmax(R A x). Since the mixture
 * depends on the input, no weight can hold the update.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface LilyOptions extends CommonOptions {
  /** The number of experts. Default: 4. */
  readonly experts?: number;
  /** The number of successive layers that share one A. Default: 4. */
  readonly stride?: number;
}

export function lily(options: LilyOptions, named: Named): PlainMethod<"A" | "B" | "R"> {
  const { experts = 4, stride = 4, ...common } = options;
  checkWhole("lily: experts", experts, 1);
  checkWhole("lily: stride", stride, 1);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.normal(), tie: { blocks: stride } },
      B: { shape: [experts, "out", "rank"], init: init.zeros(), tie: "all" },
      R: { shape: [experts, "rank"], init: init.normal() },
    },
    forward: ({ A, B, R }, { x, y, scale, shared }) => {
      const hidden = shared(() => x.matmul(A.transpose()));
      const share = shared(() => hidden.matmul(R.transpose()).softmax(-1).reshape([-1, experts]).mean(0));
      const mixed = B.mul(scaled(share, scale).reshape([experts, 1, 1])).sum(0);
      return y.add(hidden.matmul(mixed.transpose()));
    },
  });
}
