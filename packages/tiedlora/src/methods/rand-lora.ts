/**
 * RandLoRA (Albert et al. 2025, arXiv 2502.00987): a full-rank update as a sum of low-rank random products, ΔW = s Σⱼ Bⱼ Λⱼ A Γⱼ. The bases A
 * and B are random, frozen and shared by all modules, which use their leading parts; the diagonals Λ and Γ are trained. A is on the
 * smaller side of the weight, as in PEFT.
 */
import { init, type Init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

const smaller = (d: Dims): number => Math.min(d.in, d.out);
const larger = (d: Dims): number => Math.max(d.in, d.out);
const bases = (d: Dims): number => Math.ceil(smaller(d) / d.rank);

/** 1 / the longer axis, PEFT's start of Γ. */
const small: Init = {
  zero: false,
  label: "1/longer axis",
  fill: ([n = 1, width = 1]) => new Float32Array(n * width).fill(1 / Math.max(n, width)),
};

export function randLora(options: CommonOptions, named: Named): PlainMethod<"A" | "B" | "lambda" | "gamma"> {
  const basis = { init: init.uniform(Math.sqrt(3)), tie: "model", trained: false, bySeed: true } as const;
  return defineMethod({
    ...options,
    ...named,
    factors: {
      A: { ...basis, shape: ["rank", smaller] },
      B: { ...basis, shape: [larger, (d) => d.rank * bases(d)] },
      lambda: { shape: ["rank", bases], init: init.zeros() },
      gamma: { shape: [bases, smaller], init: small },
    },
    lowRank: ({ A, B, lambda, gamma }, { dims }) => {
      const scaledBases = A.unsqueeze(1).mul(lambda.unsqueeze(2)).mul(gamma.unsqueeze(0));
      const rows = scaledBases.reshape([dims.rank * bases(dims), smaller(dims)]);
      return smaller(dims) === dims.in ? { A: rows, B } : { A: B.transpose(), B: rows.transpose() };
    },
  });
}
