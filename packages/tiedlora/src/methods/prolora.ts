/**
 * PRoLoRA (Wang et al. 2024, arXiv 2402.16902): A has a private part, and a part made of copies of a smaller matrix side by side, each
 * rotated a little further along the rank; so has B. At equal size the rank is higher than LoRA's.
 */
import { concat, normalArray, product, type Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init, type Init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export interface ProloraOptions extends CommonOptions {
  /** The rank of the private part; less than the rank. Default: half of the rank, rounded down. */
  readonly own?: number;
  /** The number of copies, a divisor of the sizes of adapted modules. Default: 2. */
  readonly copies?: number;
}

type Factors = "A" | "B" | "A0" | "B0";

export function prolora(options: ProloraOptions, named: Named): PlainMethod<Factors> {
  const { own, copies = 2, ...common } = options;
  const { rank = 8 } = common;
  checkWhole("prolora: copies", copies, 1);
  if (own !== undefined) checkWhole("prolora: own", own, 1);
  if ((own ?? 1) >= rank)
    throw new RangeError(
      `prolora: rank ${rank} given with ${own ?? 1} of it private; expected a rank above that, since copies need a part too`,
    );
  const kept = ({ rank: r }: Dims): number => own ?? Math.floor(r / 2);
  const rotated = (dims: Dims): number => dims.rank - kept(dims);
  // the copies together start as one matrix of LoRA does: variance 1/in
  const spread: Init = {
    zero: false,
    label: "normal(1/√in)",
    fill: (shape, key) => normalArray(key, product(shape), 0, 1 / Math.sqrt(copies * shape[1]!)),
  };
  return defineMethod({
    ...common,
    ...named,
    factors: {
      A: { shape: [kept, "in"], init: init.normal() },
      B: { shape: ["out", kept], init: init.zeros() },
      A0: { shape: [rotated, (d) => d.in / copies], init: spread },
      B0: { shape: [(d) => d.out / copies, rotated], init: init.zeros() },
    },
    product: [
      ["A", "B"],
      ["A0", "B0"],
    ],
    lowRank: ({ A, B, A0, B0 }) => ({
      A: concat([A, rotations(A0, 0, copies)], 0),
      B: concat([B, rotations(B0, 1, copies)], 1),
    }),
  });
}

/** Copies of a matrix side by side along one axis, each rotated by a further step along the other, which is `axis`, the rank. */
function rotations(t: Tensor, axis: 0 | 1, copies: number): Tensor {
  const length = t.shape[axis]!;
  const step = Math.max(1, Math.floor(length / copies));
  const turned = Array.from({ length: copies }, (_, i) => {
    const by = (i * step) % length;
    return by === 0 ? t : concat([t.narrow(axis, length - by, by), t.narrow(axis, 0, length - by)], axis);
  });
  return concat(turned, 1 - axis);
}
