/**
 * RaSA (He et al. 2025, arXiv 2503.12576): ΔW_l = s · [B_l ∣ B_S] diag(D_l) [A_l; A_S]. Of its rank, each layer gives `pool` columns to a
 * pool that all layers share, so that each layer's update has rank r - k + kL with about as many numbers as LoRA.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import { concat } from "@tiedlora/core";
import { init, type Init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface RasaOptions extends CommonOptions {
  /** The rank k that each layer gives to the pool; less than the rank. Default: 1. */
  readonly pool?: number;
}

type Factors = "A" | "B" | "d" | "A_S" | "B_S" | "D_S";

export function rasa({ pool = 1, ...common }: RasaOptions, named: Named): PlainMethod<Factors> {
  const { rank = 8 } = common;
  if (checkWhole("rasa: pool", pool, 1) >= rank)
    throw new RangeError(
      `rasa: pool ${pool} given for rank ${rank}; expected less, so that each layer keeps a part`,
    );
  const own = ({ rank: r }: Dims): number => r - pool;
  const shared = ({ layers }: Dims): number => pool * layers;
  // private and shared parts start with half of the scale each, as in the authors' code
  const half: Init = {
    zero: false,
    label: "r/2n",
    fill: ([n = 1]) => new Float32Array(n).fill(rank / (2 * n)),
  };
  return defineMethod({
    ...common,
    ...named,
    factors: {
      A: { shape: [own, "in"], init: init.normal() },
      B: { shape: ["out", own], init: init.zeros() },
      d: { shape: [own], init: half },
      A_S: { shape: [shared, "in"], init: init.normal(), tie: "all" },
      B_S: { shape: ["out", shared], init: init.zeros(), tie: "all" },
      D_S: { shape: [shared], init: half },
    },
    product: [
      ["B", "d", "A"],
      ["B_S", "D_S", "A_S"],
    ],
    lowRank: ({ A, B, d, A_S, B_S, D_S }) => ({
      A: concat([A.mul(d.unsqueeze(1)), A_S.mul(D_S.unsqueeze(1))], 0),
      B: concat([B, B_S], 1),
    }),
  });
}
