/**
 * Values that the program of one layer hands on to that of another. They have memory of their own, which the next value of the
 * same name takes over: results of programs would wait for the garbage collector, which does not know how large they are.
 */
import { BYTES, type Device, type DType, product, sameShape, type Shape } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

export class Registers {
  readonly #device: Device;
  readonly #kept: Map<string, nn.Parameter> = new Map<string, nn.Parameter>();

  constructor(device: Device) {
    this.#device = device;
  }

  /** A handle of the register's present value: a leaf of graphs. One of another shape replaces an earlier register of that name. */
  of(name: string, shape: Shape, dtype: DType = "f32"): nn.Parameter {
    let known = this.#kept.get(name);
    if (!known || !sameShape(known.shape, shape)) {
      known?.storage.buffer.free();
      const storage = this.#device.allocate(product(shape) * BYTES[dtype], name);
      this.#kept.set(name, (known = new nn.Parameter(storage, shape, dtype, this.#device)));
    }
    return new nn.Parameter(known.storage, shape, dtype, this.#device);
  }

  free(): void {
    for (const { storage } of this.#kept.values()) storage.buffer.free();
    this.#kept.clear();
  }
}
