/** The uniform buffer of a program: for each set of scalars and sizes that a kernel uses, the header and their values. */
import type { ComputeType } from "@tiedlora/kernels";
import { USAGE } from "./memory.ts";
import { HEADER, type Kernel, type ScalarUse } from "../codegen/target.ts";

const ALIGNMENT = 256; // minUniformBufferOffsetAlignment is at most this

type Words = Pick<Kernel, "scalars" | "sizes">;

const keyOf = ({ scalars, sizes }: Words): string =>
  `${scalars.map((s) => `${s.slot}${s.dtype}`).join()};${sizes.join()}`;

interface Region {
  readonly offset: number;
  readonly size: number;
  readonly scalars: readonly ScalarUse[];
}

export class UniformBlock {
  readonly #device: GPUDevice;
  readonly #buffer: GPUBuffer;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #floats: Float32Array;
  readonly #regions: Region[] = [];
  /** By the sizes of a kernel, which equal layers share. */
  readonly #regionOf = new Map<Words["sizes"], Region>();
  /** Words up to the end of the last region with scalars; those after them never change. */
  readonly #changing: number;
  #last: Float64Array | undefined;

  constructor(device: GPUDevice, kernels: readonly Kernel[]) {
    this.#device = device;
    let [end, changing] = [0, 0];
    const sizes: (readonly [word: number, sizes: readonly number[]])[] = [];
    const byKey = new Map<string, Region>();
    const hasScalars = ({ scalars }: Kernel): boolean => scalars.length > 0;
    const constant = kernels.filter((kernel) => !hasScalars(kernel));
    for (const kernel of [...kernels.filter(hasScalars), ...constant]) {
      if (this.#regionOf.has(kernel.sizes)) continue;
      const { scalars } = kernel;
      const key = keyOf(kernel);
      const known = byKey.get(key);
      if (known) {
        this.#regionOf.set(kernel.sizes, known);
        continue;
      }
      const words = HEADER.length + scalars.length;
      const size = Math.ceil((words + kernel.sizes.length) / 4) * 16;
      const region = { offset: end, size, scalars };
      byKey.set(key, region);
      this.#regionOf.set(kernel.sizes, region);
      this.#regions.push(region);
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
    for (const { offset } of this.#regions) this.#words.set(HEADER, offset / 4);
    for (const [word, values] of sizes) this.#words.set(values, word);
  }

  resource(kernel: Words): GPUBufferBinding {
    const { offset, size } = this.#regionOf.get(kernel.sizes)!;
    return { buffer: this.#buffer, offset, size };
  }

  /** Uploads the values, if they differ from those of the last run. */
  update(scalars: Float64Array): void {
    if (this.#last?.every((x, i) => Object.is(x, scalars[i]))) return;
    const isFirst = this.#last === undefined;
    this.#last = scalars.slice();
    for (const region of this.#regions) {
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
