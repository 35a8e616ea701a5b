/** Reads mixtures of experts from a config.json. */
import type { Architecture } from "./architectures.ts";
import type { Mixture } from "./experts.ts";
import type { Fields } from "./fields.ts";

/** Every expert is expanded into modules, even to count parameters: an absurd number must not exhaust the memory. */
const MAX_EXPERTS = 200_000;

export function mixtureOf(
  f: Fields,
  layers: number,
  { width, defaults, someLayers }: NonNullable<Architecture["experts"]>,
): Mixture {
  const names = ["num_experts", "num_local_experts"];
  const count = f.size(names, defaults.count, 1, Math.floor(MAX_EXPERTS / layers));
  return {
    count,
    perToken: f.size(["num_experts_per_tok"], Math.min(defaults.perToken, count), 1, count),
    width: f.size([width], defaults.width ?? undefined),
    normalized: f.flag("norm_topk_prob", false),
    layers: someLayers ? sparseLayers(f, layers) : Array<boolean>(layers).fill(true),
  };
}

/** Every `decoder_sparse_step`th layer has experts, except those that are listed. */
function sparseLayers(f: Fields, layers: number): boolean[] {
  const step = f.size(["decoder_sparse_step"], 1);
  const dense = f.raw["mlp_only_layers"] ?? [];
  if (!Array.isArray(dense) || !dense.every((layer) => Number.isInteger(layer)))
    f.fail("mlp_only_layers", "a list of layers");
  return Array.from({ length: layers }, (_, i) => (i + 1) % step === 0 && !dense.includes(i));
}
