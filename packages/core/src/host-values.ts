/** Turns values on the host into leaves of a graph: determines shape and type, and converts to the storage format. */
import { type DType, encode, type TypedArray } from "@tiedlora/kernels";
import { checkDType, checkNumbers, checkOptions } from "@tiedlora/kernels/arguments";
import { describeArgument, nestedNumbers } from "@tiedlora/kernels/arguments";
import * as build from "./build.ts";
import type { Node, Shape } from "./graph.ts";
import { checkShape } from "./shape.ts";

/** Numbers in arrays, nested one level per axis. */
export type NestedArray = readonly (number | NestedArray)[];
/** How values become a tensor; see `Device.tensor`. */
export interface TensorOptions {
  /** Default: the shape of the nested arrays, or one axis. */
  readonly shape?: Shape;
  /** Default: the type of a typed array, or f32. */
  readonly dtype?: DType;
  /** Whether a typed array is copied. Default true; false uses it in place, if it is in storage format. */
  readonly copy?: boolean;
}
/** The leaf that holds given values. */
export function dataNode(values: TypedArray | number | NestedArray, options: TensorOptions): Node {
  const { shape, dtype, copy = true } = checkOptions("tensor", options, '{ shape: [2, 3], dtype: "i32" }');
  if (shape !== undefined) checkShape("tensor", shape);
  if (dtype !== undefined) checkDType("tensor", dtype);
  if (ArrayBuffer.isView(values)) {
    checkNumbers("tensor", values);
    const type = dtype ?? typeOf(values);
    const isTaken = !copy && type !== "bool" && build.isStorage(values, type);
    return build.data(isTaken ? values : toStorage(values, type), shape ?? [values.length], type);
  }
  const nested = nestedNumbers("tensor", values);
  return build.data(toStorage(nested.numbers, dtype ?? "f32"), shape ?? nested.shape, dtype ?? "f32");
}

function typeOf(values: TypedArray): DType {
  const type = (["f32", "f64", "i32", "u32"] as const).find((dtype) => build.isStorage(values, dtype));
  if (type) return type;
  const given: unknown = values;
  throw new TypeError(
    given instanceof Uint16Array
      ? `tensor: a Uint16Array holds f16 or bf16 patterns; say which by { dtype: "f16" } or { dtype: "bf16" }`
      : `tensor: ${describeArgument(values)} is of no element type; say what its numbers become, e.g. { dtype: "i32" } or { dtype: "f32" }`,
  );
}

/** A copy in the storage format of `dtype`; 16-bit patterns of half precision are copied unchanged. */
function toStorage(values: ArrayLike<number>, dtype: DType): TypedArray {
  if (values instanceof Uint16Array && (dtype === "f16" || dtype === "bf16")) return values.slice();
  return encode(dtype === "bool" ? Array.from(values, (x) => (x ? 1 : 0)) : values, dtype);
}
