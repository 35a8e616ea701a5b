/** Devices: what users hold of a backend. Everything that is computed there is computed through one. */
import { type DType, encode, ReferenceBackend, type TypedArray } from "@tiedlora/kernels";
import { checkDType, checkNumbers, checkOptions } from "@tiedlora/kernels/arguments";
import { describeArgument, nestedNumbers } from "@tiedlora/kernels/arguments";
import * as build from "./build.ts";
import type { Node, Shape } from "./graph.ts";
import { Runtime, type RuntimeOptions } from "./runtime.ts";
import { checkShape } from "./shape.ts";
import { Tensor } from "./tensor.ts";

/** Numbers, nested as deep as there are axes. */
export type NestedArray = readonly (number | NestedArray)[];
/** How values become a tensor; see {@link Device.tensor}. */
export interface TensorOptions {
  /** Default: that of nested arrays, or one axis. */
  readonly shape?: Shape;
  /** Default: that of a typed array, or f32. */
  readonly dtype?: DType;
  /** Default true; false lends the typed array. */
  readonly copy?: boolean;
}
/** Settings of a device, whatever its backend. */
export type DeviceOptions = RuntimeOptions;

/** A backend with its compiled programs: where tensors live. Made by `cpu()`, `webgpu()` and `reference()`. */
export class Device extends Runtime {
  /**
   * A tensor of given values. Numbers become f32 unless `dtype` says otherwise; typed arrays keep their type (a
   * Uint16Array needs one: f16 or bf16 bit patterns). `shape` defaults to that of nested arrays, or one axis.
   * With `copy: false` a typed array that already is as it is stored is not copied, which spares the garbage collector
   * large batches: do not change it while a tensor made of it, or a result that was not computed yet, is in use.
   */
  tensor(values: TypedArray | number | NestedArray, options: TensorOptions = {}): Tensor {
    return new Tensor(dataNode(values, options), this);
  }
}

/** The reference: an interpreter in float64, exact and slow. */
export function reference(options: DeviceOptions = {}): Device {
  return new Device(new ReferenceBackend(), options);
}

function dataNode(values: TypedArray | number | NestedArray, options: TensorOptions): Node {
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
  if (values instanceof Float32Array) return "f32";
  if (values instanceof Float64Array) return "f64";
  if (values instanceof Int32Array) return "i32";
  if (values instanceof Uint32Array) return "u32";
  const given: unknown = values;
  throw new TypeError(
    given instanceof Uint16Array
      ? `tensor: a Uint16Array holds f16 or bf16 patterns; say which by { dtype: "f16" } or { dtype: "bf16" }`
      : `tensor: ${describeArgument(values)} is of no element type; say what its numbers become, e.g. { dtype: "i32" } or { dtype: "f32" }`,
  );
}

/** A copy in the storage format of `dtype`; 16-bit patterns of half precision are taken as they are. */
function toStorage(values: ArrayLike<number>, dtype: DType): TypedArray {
  if (values instanceof Uint16Array && (dtype === "f16" || dtype === "bf16")) return values.slice();
  return encode(dtype === "bool" ? Array.from(values, (x) => (x ? 1 : 0)) : values, dtype);
}
