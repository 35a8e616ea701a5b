/** The uniform buffer of a program: for each set of scalars and sizes that a kernel uses, the header and their values. */
import type { ComputeType } from "@tiedlora/kernels";
import { USAGE } from "./memory.ts";
import { HEADER, type Kernel, type ScalarUse } from "../codegen/target.ts";

const ALIGNMENT = 256; // minUniformBufferOffsetAlignment is at most this

type Words = Pick<Kernel, "scalars" | "sizes">;

const keyOf = ({ scalars, sizes }: Words): string =>
  `${scalars.map((s) => `${s.slot}${s.dtype}`).join()};${sizes.join()}`;

export class UniformBlock {
  readonly #device: GPUDevice;
  readonly #buffer: GPUBuffer;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #floats: Float32Array;
  readonly #regions = new Map<
    string,
    { readonly offset: number; readonly size: number; readonly scalars: readonly ScalarUse[] }
  >();
  /** Words up to the end of the last region with scalars; those after them never change. */
  readonly #changing: number;
  #last: Float64Array | undefined;

  constructor(device: GPUDevice, kernels: readonly Kernel[]) {
    this.#device = device;
    let [end, changing] = [0, 0];
    const sizes: (readonly [word: number, sizes: readonly number[]])[] = [];
    const constant = (kernel: Kernel): number => (kernel.scalars.length === 0 ? 1 : 0);
    for (const kernel of kernels.toSorted((a, b) => constant(a) - constant(b))) {
      const { scalars } = kernel;
      const key = keyOf(kernel);
      if (this.#regions.has(key)) continue;
      const words = HEADER.length + scalars.length;
      const size = Math.ceil((words + kernel.sizes.length) / 4) * 16;
      this.#regions.set(key, { offset: end, size, scalars });
      sizes.push([end / 4 + words, kernel.sizes]);
      end += Math.ceil(size / ALIGNMENT) * ALIGNMENT;
      if (scalars.length > 0) changing = end / 4;
    }
    this.#changing = changing;
    this.#words = new Uint32Array(Math.max(end, ALIGNMENT) / 4);
    this.#floats = new Float32Array(this.#words.buffer);
    this.#buffer = device.createBuffer({
      size: this.#words.byteLength,
      usage: USAGE.UNIFORM | USAGE.COPY_DST,
    });
    for (const { offset } of this.#regions.values()) this.#words.set(HEADER, offset / 4);
    for (const [word, values] of sizes) this.#words.set(values, word);
  }

  resource(kernel: Words): GPUBufferBinding {
    const { offset, size } = this.#regions.get(keyOf(kernel))!;
    return { buffer: this.#buffer, offset, size };
  }

  /** Uploads the values, if they differ from those of the last run. */
  update(scalars: Float64Array): void {
    if (this.#last?.every((x, i) => Object.is(x, scalars[i]))) return;
    const isFirst = this.#last === undefined;
    this.#last = scalars.slice();
    for (const region of this.#regions.values()) {
      region.scalars.forEach(({ slot, dtype }, i) =>
        this.#set(region.offset / 4 + HEADER.length + i, dtype, scalars[slot]!),
      );
    }
    this.#device.queue.writeBuffer(
      this.#buffer,
      0,
      this.#words,
      0,
      isFirst ? this.#words.length : this.#changing,
    );
  }

  #set(word: number, dtype: ComputeType, value: number): void {
    if (dtype === "f32") this.#floats[word] = value;
    else this.#words[word] = dtype === "bool" ? Number(value !== 0) : value;
  }

  free(): void {
    this.#buffer.destroy();
  }
}
