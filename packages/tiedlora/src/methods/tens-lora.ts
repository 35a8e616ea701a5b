/**
 * TensLoRA (Marmoret et al. 2025, arXiv 2509.19391), in its form over types and depth: all updates are one tensor in Tucker form,
 * ΔW of type q in layer l = s · U₁ (G ×₃ U₃[q] ×₄ U₄[l]) U₂ᵀ. All five factors belong to the whole model.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface TensLoraOptions extends CommonOptions {
  /** The rank along the types of modules. Default: the rank. */
  readonly typeRank?: number;
  /** The rank along the layers. Default: the rank. */
  readonly layerRank?: number;
}

type Factors = "U1" | "U2" | "U3" | "U4" | "G";

export function tensLora(options: TensLoraOptions, named: Named): PlainMethod<Factors> {
  const { typeRank, layerRank, ...common } = options;
  const { rank = 8 } = common;
  const r3 = checkWhole("tens-lora: typeRank", typeRank ?? rank, 1);
  const r4 = checkWhole("tens-lora: layerRank", layerRank ?? rank, 1);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      U1: { shape: ["out", "rank"], init: init.normal(), tie: "model" },
      U2: { shape: ["rank", "in"], init: init.normal(), tie: "model" },
      U3: { shape: ["types", r3], init: init.normal(), tie: "model" },
      U4: { shape: ["layers", r4], init: init.normal(), tie: "model" },
      G: { shape: ["rank", "rank", r3, r4], init: init.zeros(), tie: "model" },
    },
    lowRank: ({ U1, U2, U3, U4, G }, { type, layer, dims: { rank: r } }) => {
      const mode = U3.narrow(0, type, 1)
        .transpose()
        .mul(U4.narrow(0, layer, 1)); // [r3, r4]
      const core = G.reshape([r * r, r3 * r4]).matmul(mode.reshape([r3 * r4, 1]));
      return { A: U2, B: U1.matmul(core.reshape([r, r])) };
    },
  });
}
