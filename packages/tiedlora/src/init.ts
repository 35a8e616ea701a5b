/** Start values of factors. A counter-based generator draws them on the host in float64: the same bits on every backend. */
import { checkFinite, checkWhole } from "@tiedlora/core/arguments";
import { normalArray, product, type Key, type Shape, uniformArray } from "@tiedlora/core";

/** The part of a factor that one parameter is: the number of elements in the factor's earlier parameters, and in all. */
export interface Span {
  readonly offset: number;
  readonly total: number;
}

/** How a factor starts. */
export interface Init {
  /** Whether all values are zero, for the zero-start rule (see `defineMethod`). */
  readonly zero: boolean;
  /** A short description, for people. */
  readonly label: string;
  /** The type of the elements: integers are for indices, and are never trained. Default: "f32". */
  readonly dtype?: "f32" | "i32";
  /** Returns the elements, row-major. Each parameter has its own key. */
  fill(shape: Shape, key: Key, span?: Span): Float32Array | Int32Array;
}

/** The label of start values that `prepare` computes from the frozen weight. */
export const FROM_WEIGHT = "from the weight";

/** The number of inputs that are summed into one output: the size of the last axis. */
function fanIn(shape: Shape): number {
  return shape[shape.length - 1] ?? 1;
}

function checkLength(length: number, shape: Shape): void {
  if (length !== product(shape))
    throw new RangeError(
      `${length} start values were given for a factor of shape [${shape.join(", ")}]; give one for each element`,
    );
}

/** The start values that a factor can be declared with. */
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
  /** N(mean, std²). Defaults: mean 0, std = 1/√(last axis), with which a product has about the magnitude of its input. */
  normal: (std?: number, mean: number = 0): Init => ({
    zero:
      checkFinite("init.normal: mean", mean) === 0 &&
      std !== undefined &&
      checkFinite("init.normal", std) === 0,
    label: `normal(${std ?? "1/√in"}${mean === 0 ? "" : ` around ${mean}`})`,
    fill: (shape, key) => normalArray(key, product(shape), mean, std ?? 1 / Math.sqrt(fanIn(shape))),
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
  /** Given values, row-major, for each parameter of the factor. Throws RangeError if a parameter has another number of elements. */
  values: (values: Float32Array): Init => ({
    zero: values.every((value) => value === 0),
    label: "given",
    fill: (shape) => {
      checkLength(values.length, shape);
      return values.slice();
    },
  }),
  /** Given whole numbers, for indices, which are one parameter's elements, row-major. The factor must be frozen. */
  indices: (values: readonly number[]): Init => ({
    zero: false,
    label: "given",
    dtype: "i32",
    fill: (shape) => {
      checkLength(values.length, shape);
      return Int32Array.from(values);
    },
  }),
  /** Whole numbers from 0 on and below `below`, each equally likely: for indices. The factor must be frozen. */
  integers: (below: number): Init => ({
    zero: false,
    label: `integers(${checkWhole("init.integers", below, 1)})`,
    dtype: "i32",
    fill: (shape, key) => Int32Array.from(uniformArray(key, product(shape)), (share) => share * below),
  }),
  /** Zeros until the method sets values from the frozen weight (see `Method.prepare`). */
  fromWeight: (): Init => ({
    zero: false,
    label: FROM_WEIGHT,
    fill: (shape) => new Float32Array(product(shape)),
  }),
} as const;
