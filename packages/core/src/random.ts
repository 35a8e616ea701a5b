/** Random tensors, from the keys and the generator of `@tiedlora/kernels/random`: devices and the host draw the same numbers. */
import { checkKey, checkNumber } from "@tiedlora/kernels/arguments";
import type { Key } from "@tiedlora/kernels/random";
import * as build from "./build.ts";
import type { Node, Shape } from "./graph.ts";
import { checkShape } from "./shape.ts";
import { Tensor } from "./tensor.ts";

export * from "@tiedlora/kernels/random";

function bitsNode(what: string, k: Key, shape: Shape): Node {
  const { k0, k1 } = checkKey(what, k);
  const words = [k0, k1].map((word) => build.runtimeScalar(word, "u32")) as [Node, Node];
  return build.randomBits(...words, checkShape(what, shape));
}

/** Uniform u32 words of `shape`; element i is `bitsArray(k, size)[i]`. */
export const bits = (k: Key, shape: Shape): Tensor => new Tensor(bitsNode("bits", k, shape), null);

/** Uniform f32 numbers in [0, 1), multiples of 2^-24. */
export function uniform(k: Key, shape: Shape): Tensor {
  const high = build.binary("shr", bitsNode("uniform", k, shape), build.constant(8, "u32"));
  return new Tensor(build.scale(build.cast(high, "f32"), 2 ** -24), null);
}

/** True with probability `p` (to within 2^-32), decided by comparing integers. */
export function bernoulli(k: Key, shape: Shape, p: number): Tensor {
  checkNumber("bernoulli", p, "probability in 0 … 1", p >= 0 && p <= 1);
  const drawn = bitsNode("bernoulli", k, shape);
  if (p === 1) return new Tensor(build.fill(1, shape, "bool"), null);
  const threshold = build.runtimeScalar(Math.floor(p * 2 ** 32), "u32");
  return new Tensor(build.binary("lt", drawn, threshold), null);
}
