/**
 * BSLoRA (Zhou et al. 2025, "Bi-Share LoRA"): ΔW = s (B A + B_L A_L + B_M A_M): the module's own LoRA, one that the modules of a layer share,
 * and one that all modules share. Modules of different sizes use the leading parts of the shared ones.
 */
import { concat } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Site } from "../adapter/sites.ts";
import type { Named } from "./recipe.ts";

export interface BsLoraOptions extends CommonOptions {
  /** The rank of the part that a layer shares. Default: the rank. */
  readonly layerRank?: number;
  /** The rank of the part that the model shares. Default: the rank. */
  readonly modelRank?: number;
}

type Factors = "A" | "B" | "A_L" | "B_L" | "A_M" | "B_M";

export function bsLora(options: BsLoraOptions, named: Named): PlainMethod<Factors> {
  const { layerRank, modelRank, ...common } = options;
  const { rank = 8 } = common;
  const inLayer = checkWhole("bs-lora: layerRank", layerRank ?? rank, 1);
  const inModel = checkWhole("bs-lora: modelRank", modelRank ?? rank, 1);
  const layer = (site: Site): string => String(site.layer ?? site.path);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      A: { shape: ["rank", "in"], init: init.normal() },
      B: { shape: ["out", "rank"], init: init.zeros() },
      A_L: { shape: [inLayer, "in"], init: init.normal(), tie: layer },
      B_L: { shape: ["out", inLayer], init: init.zeros(), tie: layer },
      A_M: { shape: [inModel, "in"], init: init.normal(), tie: "model" },
      B_M: { shape: ["out", inModel], init: init.zeros(), tie: "model" },
    },
    product: [
      ["A", "B"],
      ["A_L", "B_L"],
      ["A_M", "B_M"],
    ],
    lowRank: ({ A, B, A_L, B_L, A_M, B_M }) => ({ A: concat([A, A_L, A_M], 0), B: concat([B, B_L, B_M], 1) }),
  });
}
