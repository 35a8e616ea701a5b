/** Start values of factors. Drawn on the host in float64 by counter, so that they are the same bits on every backend. */
import { checkFinite } from "@tiedlora/core/arguments";
import { normalArray, product, type Key, type Shape, uniformArray } from "@tiedlora/core";

/** How a factor starts. */
export interface Init {
  /** Whether all values are zero: what the zero-start rule looks at. */
  readonly zero: boolean;
  /** For a reader. */
  readonly label: string;
  /** The elements, row-major. The key is the factor's own. */
  fill(shape: Shape, key: Key): Float32Array;
}

/** How many numbers are summed to one output: the last axis of a matrix. */
function fanIn(shape: Shape): number {
  return shape[shape.length - 1] ?? 1;
}

/** Where factors start. */
export const init = {
  /** 0 everywhere. */
  zeros: (): Init => ({ zero: true, label: "0", fill: (shape) => new Float32Array(product(shape)) }),
  /** 1 everywhere. */
  ones: (): Init => init.constant(1),
  /** `value` everywhere. */
  constant: (value: number): Init => ({
    zero: checkFinite("init.constant", value) === 0,
    label: String(value),
    fill: (shape) => new Float32Array(product(shape)).fill(value),
  }),
  /** N(0, std²). Default: std = 1/√(last axis), which keeps the size of what it multiplies. */
  normal: (std?: number): Init => ({
    zero: std !== undefined && checkFinite("init.normal", std) === 0,
    label: `normal(${std ?? "1/√in"})`,
    fill: (shape, key) => normalArray(key, product(shape), 0, std ?? 1 / Math.sqrt(fanIn(shape))),
  }),
  /** U(−bound, bound). Default: bound = 1/√(last axis), PEFT's start for LoRA's A. */
  uniform: (bound?: number): Init => ({
    zero: bound !== undefined && checkFinite("init.uniform", bound) === 0,
    label: `uniform(${bound ?? "1/√in"})`,
    fill: (shape, key) => {
      const limit = bound ?? 1 / Math.sqrt(fanIn(shape));
      return uniformArray(key, product(shape), -limit, limit);
    },
  }),
  /** Given values: of one factor that is tied over everything, or of each that has this many elements. */
  values: (values: Float32Array): Init => ({
    zero: values.every((value) => value === 0),
    label: "given",
    fill: (shape) => {
      if (values.length !== product(shape))
        throw new RangeError(
          `${values.length} start values given for a factor of shape [${shape.join(", ")}]`,
        );
      return values.slice();
    },
  }),
  /** Set by the method from the frozen weight (see Method.prepare). */
  fromWeight: (): Init => ({
    zero: false,
    label: "from the weight",
    fill: (shape) => new Float32Array(product(shape)),
  }),
} as const;
