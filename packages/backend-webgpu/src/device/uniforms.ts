/** The uniform buffer of a program: for each set of scalars that a kernel uses, the header and their values. */
import type { ComputeType } from "@tiedlora/kernels";
import { USAGE } from "./memory.ts";
import { HEADER, type Kernel, type ScalarUse } from "../codegen/target.ts";

const ALIGNMENT = 256; // minUniformBufferOffsetAlignment is at most this

const keyOf = (scalars: readonly ScalarUse[]): string => scalars.map((s) => `${s.slot}${s.dtype}`).join(",");

export class UniformBlock {
  readonly #device: GPUDevice;
  readonly #buffer: GPUBuffer;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #floats: Float32Array;
  readonly #regions = new Map<
    string,
    { readonly offset: number; readonly size: number; readonly scalars: readonly ScalarUse[] }
  >();
  #last: Float64Array | undefined;

  constructor(device: GPUDevice, kernels: readonly Kernel[]) {
    this.#device = device;
    let end = 0;
    for (const { scalars } of kernels) {
      const key = keyOf(scalars);
      if (this.#regions.has(key)) continue;
      const size = 16 + Math.ceil(scalars.length / 4) * 16;
      this.#regions.set(key, { offset: end, size, scalars });
      end += Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    }
    this.#words = new Uint32Array(Math.max(end, ALIGNMENT) / 4);
    this.#floats = new Float32Array(this.#words.buffer);
    this.#buffer = device.createBuffer({
      size: this.#words.byteLength,
      usage: USAGE.UNIFORM | USAGE.COPY_DST,
    });
    for (const { offset } of this.#regions.values()) this.#words.set(HEADER, offset / 4);
  }

  resource({ scalars }: Kernel): GPUBufferBinding {
    const { offset, size } = this.#regions.get(keyOf(scalars))!;
    return { buffer: this.#buffer, offset, size };
  }

  /** Uploads the values, if they differ from those of the last run. */
  update(scalars: Float64Array): void {
    if (this.#last?.every((x, i) => Object.is(x, scalars[i]))) return;
    this.#last = scalars.slice();
    for (const region of this.#regions.values()) {
      region.scalars.forEach(({ slot, dtype }, i) =>
        this.#set(region.offset / 4 + HEADER.length + i, dtype, scalars[slot]!),
      );
    }
    this.#device.queue.writeBuffer(this.#buffer, 0, this.#words);
  }

  #set(word: number, dtype: ComputeType, value: number): void {
    if (dtype === "f32") this.#floats[word] = value;
    else this.#words[word] = dtype === "bool" ? Number(value !== 0) : value;
  }

  free(): void {
    this.#buffer.destroy();
  }
}
