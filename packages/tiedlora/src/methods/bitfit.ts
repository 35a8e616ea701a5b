/**
 * BitFit (Ben Zaken et al. 2022, arXiv 2106.10199) trains biases alone: z = W x + b + s · c. An adapted linear without a bias gets one; with
 * `bias: "others"`, the biases of other modules, such as norms, are trained too. The rank has no meaning here.
 */
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function bitfit(options: CommonOptions, named: Named): PlainMethod<"c"> {
  return defineMethod({
    ...options,
    ...named,
    factors: { c: { shape: ["out"], init: init.zeros() } },
    forward: ({ c }, { y, scale }) => y.add(scaled(c, scale)),
  });
}
