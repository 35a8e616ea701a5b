/**
 * (IA)³ (Liu et al. 2022, arXiv 2205.05638) scales activations: z = l ⊙ (W x + b), and in the last linear of an MLP z = W (l ⊙ x) + b. The
 * paper adapts keys, values and that linear. The scales start at one. The rank has no meaning here.
 */
import { init } from "../init.ts";
import { endsWithName } from "../match.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Site } from "../adapter/sites.ts";
import type { Named } from "./recipe.ts";

/** The last linears of MLPs, by the names of the architectures. */
const FEEDFORWARD: readonly string[] = ["down_proj", "mlp.c_proj"];

export interface Ia3Options extends CommonOptions {
  /** The modules whose input is scaled instead of their output, by names or ends of paths. Default: the last linears of MLPs. */
  readonly feedforward?: readonly string[];
}

export function ia3(
  { feedforward = FEEDFORWARD, ...common }: Ia3Options,
  named: Named,
): PlainMethod<"l_in" | "l_out"> {
  const scalesInput = ({ path }: Site): boolean => feedforward.some((name) => endsWithName(path, name));
  return defineMethod({
    ...common,
    ...named,
    factors: {
      l_out: { shape: ["out"], init: init.ones(), on: (site) => !scalesInput(site) },
      l_in: { shape: ["in"], init: init.ones(), on: scalesInput },
    },
    product: [],
    forward: ({ l_in, l_out }, { x, y, weight, place }) =>
      scalesInput(place.site) ? y.add(x.mul(l_in.sub(1)).matmul(weight.transpose())) : y.mul(l_out),
  });
}
