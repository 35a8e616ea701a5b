/** A device on the yardstick backend, from which results are read together with their error bounds. */
import { Device, type Node, type Tensor, type TypedArray } from "@tiedlora/core";
import { BoundsBackend } from "./bounds/backend.ts";
import type { Precision } from "./bounds/precision.ts";

/** Computes exact results in float64, with bounds on how far a correct backend may be from them. */
export class Yardstick {
  readonly device: Device;
  readonly #backend: BoundsBackend;
  /** The bounds of nodes that were read. Equal results are one node; a second read takes its values from the host. */
  readonly #errors = new WeakMap<Node, Float64Array>();

  /** Fusion is off, so that every node is computed by itself and its rounding is part of the bound. */
  constructor(precision?: Precision) {
    this.#backend = new BoundsBackend(precision ? { precision } : {});
    this.device = new Device(this.#backend, { fusion: "off" });
  }

  /** The values and bounds of a tensor, which must have been realized, and must be read only through this method. */
  async read(tensor: Tensor): Promise<{ values: TypedArray; errors: Float64Array }> {
    this.#backend.lastErrors = null;
    const values = await tensor.data();
    const errors =
      this.#backend.lastErrors ?? this.#errors.get(tensor.node) ?? new Float64Array(values.length);
    this.#errors.set(tensor.node, errors);
    return { values, errors };
  }
}
