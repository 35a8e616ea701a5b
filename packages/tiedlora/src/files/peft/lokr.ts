/** peft's LOKR. */
import { methods } from "../../methods/index.ts";
import { COUNT, type PeftKind, plain, positive } from "./kind.ts";

const NAMES = {
  w1: "lokr_w1",
  w1a: "lokr_w1_a",
  w1b: "lokr_w1_b",
  w2: "lokr_w2",
  w2a: "lokr_w2_a",
  w2b: "lokr_w2_b",
} as const;

export const LOKR: PeftKind = {
  method: "lokr",
  bias: "none",
  rank: ["r", 8],
  dropout: "rank_dropout",
  declare: (fields, common) => {
    for (const field of ["module_dropout", "rank_dropout"]) fields.only(field, [0, null]);
    const rankPattern = Object.keys((fields.raw["rank_pattern"] as object | null) ?? {});
    if (rankPattern.length > 0)
      throw new Error(`rank_pattern names ${rankPattern[0]}; expected one rank for all modules`);
    const factor = fields.number("decompose_factor", -1, (n) => n === -1 || positive(n), `-1 or ${COUNT}`);
    return methods.lokr({
      ...common,
      dropout: 0,
      alpha: fields.number("alpha", 8, (a) => a !== 0, "a number other than 0"),
      both: fields.flag("decompose_both", false),
      ...(factor !== -1 && { factor }),
    });
  },
  fields: ({ method }) => ({
    r: method.rank,
    alpha: method.alpha,
    decompose_factor: method.recipe.options["factor"] ?? -1,
    decompose_both: method.recipe.options["both"] ?? false,
    use_effective_conv2d: false,
    init_weights: true,
  }),
  tensors: (layer) =>
    layer === null
      ? []
      : Object.entries(NAMES).flatMap(([factor, name]) =>
          layer.parameter(factor) === undefined ? [] : [plain(layer, factor, name)],
        ),
};
