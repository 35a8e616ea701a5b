/**
 * HRA (Yuan et al. 2024, arXiv 2405.17484): z = W H x, where H is a product of `rank` Householder reflections I - 2 u uᵀ/‖u‖². It is
 * orthogonal. The vectors start in equal pairs, whose reflections cancel up to rounding.
 */
import { normalArray, type Tensor } from "@tiedlora/core";
import type { Init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

/** Rows in equal pairs. */
const pairs: Init = {
  zero: false,
  label: "equal pairs",
  fill: ([rows = 2, width = 1], key) => {
    const half = normalArray(key, (rows / 2) * width);
    return Float32Array.from(
      { length: rows * width },
      (_, i) => half[Math.floor(i / (2 * width)) * width + (i % width)]!,
    );
  },
};

export function hra(options: CommonOptions, named: Named): PlainMethod<"U"> {
  const { rank = 8 } = options;
  const odd = [rank, ...Object.values(options.rankPattern ?? {})].find((one) => one % 2 === 1);
  if (odd !== undefined)
    throw new RangeError(
      `hra: rank ${odd} given; expected an even number: reflections start in pairs that cancel`,
    );
  return defineMethod({
    ...options,
    ...named,
    factors: { U: { shape: ["rank", "in"], init: pairs } },
    product: [],
    forward: ({ U }, { x, y, weight, shared, place }) => {
      const turned = shared(() => reflected(x, U, place.dims.rank).sub(x));
      return y.add(turned.matmul(weight.transpose()));
    },
  });
}

/** H x for the rows of `x`: the reflections by the rows of U, the last one first. */
function reflected(x: Tensor, U: Tensor, rank: number): Tensor {
  const units = U.mul(U.square().sum(1, { keepdims: true }).rsqrt());
  let turned = x;
  for (let i = rank - 1; i >= 0; i--) {
    const u = units.narrow(0, i, 1); // [1, in]
    turned = turned.sub(turned.matmul(u.transpose()).mul(2).mul(u));
  }
  return turned;
}
