/**
 * LoKr (Hyeon-Woo et al. 2022, arXiv 2108.06098, in the form of LyCORIS, arXiv 2309.14859): ΔW = s W1 ⊗ W2, a Kronecker product, whose W2 is a product of rank r
 * where that has fewer numbers. With o = l·k and d = m·n, W1 is [l, m] and W2 [k, n]. Sizes are divided, and start values chosen, as in PEFT.
 */
import { arange, type Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Site } from "../adapter/sites.ts";
import type { Named } from "./recipe.ts";

export interface LokrOptions extends CommonOptions {
  /** The number by which both sizes of a weight are divided, where it does divide them. Default: the divisor nearest to the root. */
  readonly factor?: number;
  /** Whether W1 is a product of rank r too, where that has fewer numbers. Default: false. */
  readonly both?: boolean;
}

/** A size as a product of two, the first of which is at most `factor`; -1: as near to each other as can be. As PEFT's `factorization`. */
export function dividedSize(size: number, factor: number): readonly [number, number] {
  if (factor > 0 && size % factor === 0) return [factor, size / factor];
  const most = factor === -1 ? size : factor;
  let [m, n] = [1, size];
  const length = m + n;
  while (m < n) {
    let next = m + 1;
    while (size % next !== 0) next++;
    if (next + size / next > length || next > most) break;
    [m, n] = [next, size / next];
  }
  return m > n ? [n, m] : [m, n];
}

type Size = (dims: Pick<Dims, "in" | "out">) => number;

type Factors = "w1" | "w1a" | "w1b" | "w2" | "w2a" | "w2b";

export function lokr(options: LokrOptions, named: Named): PlainMethod<Factors> {
  const { factor = -1, both = false, ...common } = options;
  if (factor !== -1) checkWhole("lokr: factor", factor, 1);
  const { rank = 8, rankPattern = {} } = options;
  if (Object.keys(rankPattern).length > 0)
    throw new Error(
      "lokr: rankPattern is given, and which factors a module has depends on one rank for all; leave it out",
    );
  const l: Size = (d) => dividedSize(d.out, factor)[0];
  const k: Size = (d) => dividedSize(d.out, factor)[1];
  const m: Size = (d) => dividedSize(d.in, factor)[0];
  const n: Size = (d) => dividedSize(d.in, factor)[1];
  const whole1 = (site: Site): boolean => !(both && rank < Math.max(l(site), m(site)) / 2);
  const whole2 = (site: Site): boolean => rank >= Math.max(k(site), n(site)) / 2;
  const not =
    (holds: (site: Site) => boolean) =>
    (site: Site): boolean =>
      !holds(site);
  return defineMethod({
    ...common,
    ...named,
    factors: {
      w1: { shape: [l, m], init: init.zeros(), on: whole1 },
      w1a: { shape: [l, "rank"], init: init.zeros(), on: not(whole1) },
      w1b: { shape: ["rank", m], init: init.uniform(), on: not(whole1) },
      w2: { shape: [k, n], init: init.uniform(), on: whole2 },
      w2a: { shape: [k, "rank"], init: init.uniform(), on: not(whole2) },
      w2b: { shape: ["rank", n], init: init.uniform(), on: not(whole2) },
    },
    product: [
      ["w1", "w2"],
      ["w1a", "w1b", "w2a", "w2b"],
    ],
    // W1 ⊗ (W2a W2b) = (W1 ⊗ W2a)(1 ⊗ W2b)
    lowRank: (factors, { site }) => {
      const { w1, w1a, w1b, w2, w2a, w2b } = factors as Readonly<Partial<Record<Factors, Tensor>>>;
      const first = w1 ?? w1a!.matmul(w1b!);
      const [left, right] = w2 === undefined ? [w2a!, w2b!] : [identity(k(site)), w2];
      return { A: kronecker(identity(m(site)), right), B: kronecker(first, left) };
    },
  });
}

const identity = (n: number): Tensor => arange(n).oneHot(n);

/** [a, b] ⊗ [c, d] = [ac, bd] */
function kronecker(x: Tensor, y: Tensor): Tensor {
  const [a = 0, b = 0] = x.shape;
  const [c = 0, d = 0] = y.shape;
  return x
    .reshape([a, 1, b, 1])
    .mul(y.reshape([1, c, 1, d]))
    .reshape([a * c, b * d]);
}
