/** A device on the yardstick backend, from which results are read together with their error bounds. */
import { Device, type Tensor, type TypedArray } from "@tiedlora/core";
import { BoundsBackend } from "./bounds/backend.ts";
import type { Precision } from "./bounds/precision.ts";

export class Yardstick {
  readonly device: Device;
  readonly #backend: BoundsBackend;

  /** Without fusion: every node is computed by itself, and its rounding is part of the bound. */
  constructor(precision?: Precision) {
    this.#backend = new BoundsBackend(precision ? { precision } : {});
    this.device = new Device(this.#backend, { fusion: "off" });
  }

  /** Values and bounds of a tensor that has been realized and not been read before. */
  async read(tensor: Tensor): Promise<{ values: TypedArray; errors: Float64Array }> {
    this.#backend.lastErrors = null;
    const values = await tensor.data();
    return { values, errors: this.#backend.lastErrors ?? new Float64Array(values.length) };
  }
}
