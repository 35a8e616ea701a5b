/** Checks the values that a method's formulas return, at each call: an error names the formula, the method and the module. */
import { isFloat, sameShape, Tensor } from "@tiedlora/core";
import type { LowRank } from "../method.ts";
import type { Site } from "./sites.ts";

/** The name of the method whose formula was called, and the path of the module or site for which it was called. */
interface Origin {
  readonly method: string;
  readonly path: string;
}

/** Returns the result of `forward`. Throws unless it is a tensor of the shape and type of y. */
export function checkForward(value: unknown, y: Tensor, origin: Origin): Tensor {
  const tensor = checkTensor(value, "forward", "the module's output, a tensor", origin);
  if (sameShape(tensor.shape, y.shape) && tensor.dtype === y.dtype) return tensor;
  throw new RangeError(
    `${at("forward", origin)} gave a tensor of ${tensor.dtype} and shape ${show(tensor.shape)}; ` +
      `expected ${y.dtype} and ${show(y.shape)}, as y has`,
  );
}

/** Returns the result of `lowRank`. Throws unless it is A [rank, in] and B [out, rank] for the site. */
export function checkLowRank(value: unknown, site: Pick<Site, "in" | "out">, origin: Origin): LowRank {
  const wanted = "{ A, B }, two tensors";
  if (typeof value !== "object" || value === null || !("A" in value) || !("B" in value))
    throw new TypeError(`${at("lowRank", origin)} gave ${describe(value)}; expected ${wanted}`);
  const A = checkTensor(value.A, "lowRank", "a tensor as A", origin);
  const B = checkTensor(value.B, "lowRank", "a tensor as B", origin);
  const fits = A.rank === 2 && B.rank === 2 && A.shape[0] === B.shape[1];
  if (fits && A.shape[1] === site.in && B.shape[0] === site.out) return { A, B };
  throw new RangeError(
    `${at("lowRank", origin)} gave A of shape ${show(A.shape)} and B of shape ${show(B.shape)}; ` +
      `expected [rank, ${site.in}] and [${site.out}, rank]`,
  );
}

function checkTensor(value: unknown, formula: string, wanted: string, origin: Origin): Tensor {
  if (!(value instanceof Tensor))
    throw new TypeError(`${at(formula, origin)} gave ${describe(value)}; expected ${wanted}`);
  if (isFloat(value.dtype)) return value;
  throw new TypeError(
    `${at(formula, origin)} gave a tensor of ${value.dtype}; expected floats, for example f32`,
  );
}

/** Returns the result of `prepare`. Throws unless it is an object: start values by the names of factors. */
export function checkRecord(value: unknown, origin: Origin): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Readonly<Record<string, unknown>>;
  throw new TypeError(
    `${at("prepare", origin)} gave ${describe(value)}; expected an object with a Float32Array for each factor that it starts`,
  );
}

/** Returns the start values of a factor from `prepare` or an `init`. Throws unless they are an array of the factor's type and size. */
export function checkStart(
  values: unknown,
  source: "prepare" | "init",
  factor: string,
  { shape, dtype = "f32" }: { readonly shape: readonly number[]; readonly dtype?: "f32" | "i32" },
  origin: Origin,
): Float32Array | Int32Array {
  const size = shape.reduce((a, b) => a * b, 1);
  const wanted = dtype === "i32" ? Int32Array : Float32Array;
  if (values instanceof wanted && values.length === size) return values;
  const given = values instanceof wanted ? `${values.length} values` : describe(values);
  throw new TypeError(
    `${at(source, origin)} gave ${given} for factor ${factor} of shape ${show(shape)}; expected a ${wanted.name} of ${size} values`,
  );
}

function at(formula: string, { method, path }: Origin): string {
  return `${formula} of method "${method}" at ${path}`;
}

function describe(value: unknown): string {
  if (value === undefined) return "undefined (does it return its result?)";
  if (value instanceof Promise)
    return "a promise (a formula builds a graph and cannot be asynchronous; read weights in prepare)";
  if (value instanceof Tensor) return `a tensor of shape ${show(value.shape)}`;
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object"
    ? `an object with ${Object.keys(value).join(", ") || "no fields"}`
    : typeof value;
}

function show(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}
