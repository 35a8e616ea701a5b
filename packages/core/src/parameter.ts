/** Parameters: tensors that own their memory, can be updated in place, and are trained by optimizers. */
import { type DType, encode, isFloat, type TypedArray } from "@tiedlora/kernels";
import { checkDType, checkNumbers, refuse } from "@tiedlora/kernels/arguments";
import * as build from "./build.ts";
import type { Node, Shape } from "./graph.ts";
import { execute } from "./realize.ts";
import { checkShape, product, sameShape, show } from "./shape.ts";
import { type Storage, touch } from "./storage.ts";
import { checkTensors, Device, deviceOf, Tensor } from "./tensor.ts";

/**
 * A weight. To tie weights, use one Parameter in several places: its gradient is the sum over all of them, and it is
 * counted, updated and stored once.
 */
export class Parameter extends Tensor {
  /** Its memory, which updates change in place. */
  readonly storage: Storage;
  /** False: neither differentiated nor updated; the backward graph toward it is never built. */
  requiresGrad: boolean;
  /** Per element (broadcasting): 1 trains it, 0 keeps it unchanged, even under weight decay and momentum. Null trains all. */
  updateMask: Tensor | null = null;
  #leaf: Node<"buffer">;

  constructor(storage: Storage, shape: Shape, dtype: DType, device: Device) {
    const leaf = build.buffer(storage, shape, dtype);
    super(leaf, device);
    this.storage = storage;
    this.requiresGrad = isFloat(dtype);
    this.#leaf = leaf;
  }

  /** A parameter with the given values, row-major; f16 and bf16 may be given as numbers or as 16-bit patterns. */
  static from(
    device: Device,
    values: TypedArray | readonly number[],
    shape: Shape,
    dtype: DType = "f32",
    name = "parameter",
  ): Parameter {
    if (!(device instanceof Device))
      refuse(name, device, "device", "one made by cpu(), webgpu() or reference()");
    const raw = toStorage(values, checkShape(name, shape), checkDType(name, dtype), name);
    const storage = device.allocate(raw.byteLength, name);
    storage.buffer.write(raw);
    return new Parameter(storage, shape, dtype, device);
  }

  /** The path in the model, used in messages and files. */
  get name(): string {
    return this.storage.name;
  }
  /** Renames it; modules do so when their parameters are listed. */
  set name(name: string) {
    this.storage.name = name;
  }

  override get node(): Node {
    if (this.#leaf.attrs.version !== this.storage.version) {
      this.#leaf = build.buffer(this.storage, this.#leaf.shape, this.#leaf.dtype);
    }
    return this.#leaf;
  }

  /** Replaces the values. Computing a graph built on the old values then throws. Throws if the number of values is wrong. */
  set(values: TypedArray | readonly number[]): void {
    const raw = toStorage(values, this.shape, this.dtype, this.name);
    touch(this.storage);
    this.storage.buffer.write(raw);
  }
}

function toStorage(
  values: TypedArray | readonly number[],
  shape: Shape,
  dtype: DType,
  name: string,
): TypedArray {
  if (checkNumbers(name, values).length !== product(shape)) {
    throw new RangeError(
      `${name}: ${values.length} values were given for shape ${show(shape)}, which takes ${product(shape)}`,
    );
  }
  return build.isStorage(values, dtype) ? values : encode(values, dtype);
}

/** Gives parameters new values, computed from the old ones, in one program that also computes `outputs`. */
export function assign(
  updates: readonly (readonly [Parameter, Tensor])[],
  outputs: readonly Tensor[] = [],
): void {
  checkTensors("assign: outputs", outputs);
  const isPair = (pair: unknown): boolean => Array.isArray(pair) && pair[0] instanceof Parameter;
  if (!Array.isArray(updates) || !updates.every(isPair))
    refuse("assign", updates, "list of updates", "an array of pairs [parameter, its new value]");
  for (const [p, value] of updates) {
    checkTensors(`assign: the value of ${p.name}`, [value]);
    if (!sameShape(p.shape, value.shape) || p.dtype !== value.dtype) {
      throw new TypeError(
        `assign: ${p.name} is ${show(p.shape)} ${p.dtype}, the value ${show(value.shape)} ${value.dtype}; they must be equal`,
      );
    }
  }
  const device = deviceOf([...updates.map(([p]) => p), ...outputs]);
  const nodes = outputs.map((t) => t.node);
  const stored = updates.map(([p, value]) => ({ storage: p.storage, value: value.node }));
  if (device) execute(device, nodes, stored);
}
