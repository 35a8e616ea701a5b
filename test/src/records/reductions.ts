/** Records of reductions, and of operations that are composed of them. */
import type { Tensor } from "@tiedlora/core";
import fc from "fast-check";
import { type Domain, FLOATS, INTEGERS, NUMBERS, type OpRecord } from "./record.ts";
import { axesOf, shapes } from "./shapes.ts";

type Reduce = (x: Tensor, axes: number[] | undefined, options: { keepdims: boolean }) => Tensor;

/** A reduction over any axes; `empty`: whether an axis of length 0 can be reduced. */
function reduction(
  name: string,
  f: Reduce,
  {
    domain = "any",
    dtypes = FLOATS,
    empty = true,
    most,
  }: {
    domain?: Domain;
    dtypes?: typeof FLOATS;
    empty?: boolean;
    /** The maximum number of elements, where more would overflow or take long. */
    most?: number;
  } = {},
): OpRecord {
  return {
    name,
    gradient: dtypes === INTEGERS ? { none: "integers have no derivative" } : "yes",
    cases: ({ limit, zeros }) => {
      const shape = shapes({ limit: Math.min(limit, most ?? limit), zeros: zeros && empty });
      const options = fc.tuple(shape, fc.nat({ max: 15 }), fc.boolean(), fc.boolean());
      return options.map(([dims, mask, all, keepdims]) => {
        const axes = all || dims.length === 0 ? undefined : axesOf(mask, dims.length);
        return {
          call: `x.${name}(${axes ? `[${axes.join(", ")}]` : "undefined"}, { keepdims: ${keepdims} })`,
          inputs: [{ shape: dims, domain, dtypes }],
          build: ([x]) => f(x!, axes, { keepdims }),
        };
      });
    },
  };
}

/** An operation along one axis. */
function alongAxis(
  name: string,
  f: (x: Tensor, axis: number) => Tensor,
  {
    domain = "any",
    dtypes = FLOATS,
    gradient = "yes",
    most,
  }: {
    domain?: Domain;
    dtypes?: typeof FLOATS;
    gradient?: OpRecord["gradient"];
    most?: number;
  } = {},
): OpRecord {
  return {
    name,
    gradient,
    cases: ({ limit }) => {
      const shape = shapes({ limit: Math.min(limit, most ?? limit), zeros: false, minRank: 1 });
      return fc.tuple(shape, fc.nat({ max: 3 }), fc.boolean()).map(([dims, n, fromEnd]) => {
        const axis = (n % dims.length) - (fromEnd ? dims.length : 0);
        return {
          call: `x.${name}(${axis})`,
          inputs: [{ shape: dims, domain, dtypes }],
          build: ([x]) => f(x!, axis),
        };
      });
    },
  };
}

const POSITION = { none: "a position is constant between jumps" };

export const REDUCTIONS: readonly OpRecord[] = [
  reduction("sum", (x, axes, options) => x.sum(axes, options)),
  reduction("sum", (x, axes, options) => x.sum(axes, options), { domain: [0, 50], dtypes: INTEGERS }),
  reduction("mean", (x, axes, options) => x.mean(axes, options), { empty: false }),
  reduction("prod", (x, axes, options) => x.prod(axes, options), { domain: "away", most: 60 }),
  reduction("prod", (x, axes, options) => x.prod(axes, options), { domain: [0, 3], dtypes: INTEGERS }),
  reduction("max", (x, axes, options) => x.max(axes, options), { domain: "distinct", empty: false }),
  reduction("max", (x, axes, options) => x.max(axes, options), {
    domain: [0, 50],
    dtypes: INTEGERS,
    empty: false,
  }),
  reduction("min", (x, axes, options) => x.min(axes, options), { domain: "distinct", empty: false }),
  reduction("variance", (x, axes, options) => x.variance(axes, options), { empty: false }),
  reduction("logSumExp", (x, axes, options) => x.logSumExp(axes, options), { empty: false }),
  alongAxis("argmax", (x, axis) => x.argmax(axis), { domain: [0, 9], dtypes: NUMBERS, gradient: POSITION }),
  alongAxis("argmin", (x, axis) => x.argmin(axis), { domain: [0, 9], dtypes: NUMBERS, gradient: POSITION }),
  alongAxis("softmax", (x, axis) => x.softmax(axis)),
  alongAxis("logSoftmax", (x, axis) => x.logSoftmax(axis)),
  alongAxis("cumsum", (x, axis) => x.cumsum(axis), { most: 300 }),
];
