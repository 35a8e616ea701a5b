/** A device on the yardstick backend, from which results are read together with their error bounds. */
import { Device, type Node, type Tensor, type TypedArray } from "@tiedlora/core";
import { BoundsBackend } from "./bounds/backend.ts";
import type { Precision } from "./bounds/precision.ts";

/** Computes exact results in float64, with bounds of what a correct backend may be off by. */
export class Yardstick {
  readonly device: Device;
  readonly #backend: BoundsBackend;
  /** Of nodes that were read: equal results are one node, and come from the host the second time. */
  readonly #errors = new WeakMap<Node, Float64Array>();

  /** Without fusion: every node is computed by itself, and its rounding is part of the bound. */
  constructor(precision?: Precision) {
    this.#backend = new BoundsBackend(precision ? { precision } : {});
    this.device = new Device(this.#backend, { fusion: "off" });
  }

  /** Values and bounds of a tensor that has been realized, and was not read otherwise. */
  async read(tensor: Tensor): Promise<{ values: TypedArray; errors: Float64Array }> {
    this.#backend.lastErrors = null;
    const values = await tensor.data();
    const errors =
      this.#backend.lastErrors ?? this.#errors.get(tensor.node) ?? new Float64Array(values.length);
    this.#errors.set(tensor.node, errors);
    return { values, errors };
  }
}
