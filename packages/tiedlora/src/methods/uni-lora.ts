/**
 * Uni-LoRA (Li et al. 2025, arXiv 2506.00799): all elements of A and B in the whole model are elements of one vector θ, chosen by a random
 * index for each, and divided by the root of how often each is chosen. The adapted model starts near the base model, not equal to it.
 * Here the choice is balanced (the numbers of choices differ by at most one), so that the projection is exactly an isometry.
 */
import { iota, permutation, product, type Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init, type Init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface UniLoraOptions extends CommonOptions {
  /** The length of θ, which is all that is trained. Default: 1024. */
  readonly length?: number;
}

export function uniLora(options: UniLoraOptions, named: Named): PlainMethod<"theta" | "index"> {
  const { length = 1024, ...common } = options;
  checkWhole("uni-lora: length", length, 1);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      theta: { shape: [length], init: init.uniform(0.02), tie: "model" },
      index: {
        shape: [(d) => d.rank * (d.in + d.out)],
        init: balanced(length),
        trained: false,
        bySeed: true,
      },
    },
    product: [],
    lowRank: ({ theta, index }, { dims: { in: width, out, rank }, sizes }) => {
      const chosen = normalized(theta, sizes["index"]!).take(index);
      return {
        A: chosen.narrow(0, 0, rank * width).reshape([rank, width]),
        B: chosen.narrow(0, rank * width, out * rank).reshape([out, rank]),
      };
    },
  });
}

/** Indices below `length`, shuffled within each parameter, such that over all parameters each occurs equally often. */
function balanced(length: number): Init {
  return {
    zero: false,
    label: `balanced(${length})`,
    dtype: "i32",
    fill: (shape, key, { offset } = { offset: 0, total: 0 }) =>
      Int32Array.from(permutation(key, product(shape)), (i) => (offset + i) % length),
  };
}

/** θ with each element divided by the root of the number of times that it is chosen. */
function normalized(theta: Tensor, choices: number): Tensor {
  const [often, more] = [Math.floor(choices / theta.size), choices % theta.size];
  const rare = 1 / Math.sqrt(Math.max(often, 1));
  const frequent = iota(theta.shape, 0).lt(more).cast("f32");
  return theta.mul(frequent.mul(1 / Math.sqrt(often + 1) - rare).add(rare));
}
