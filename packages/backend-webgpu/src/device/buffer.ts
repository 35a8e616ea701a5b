/** Device memory as the core sees it, and the copies between it and the host. */
import type { DeviceBuffer } from "@tiedlora/kernels";
import { type Block, type MemoryPool, USAGE } from "./memory.ts";

/** What buffers need of their backend. */
export interface Transfers {
  readonly pool: MemoryPool;
  write(buffer: GpuBuffer, data: ArrayBufferView, offset: number): void;
  read(buffer: GpuBuffer, offset: number, bytes: number): Promise<ArrayBuffer>;
}

export class GpuBuffer implements DeviceBuffer {
  readonly bytes: number;
  /** Whether programs are run with the buffer again and again. */
  readonly lasts: boolean;
  #block: Block;
  readonly #transfers: Transfers;
  #freed = false;
  #spoiled: Error | undefined;

  constructor(bytes: number, transfers: Transfers, lasts = false) {
    this.bytes = bytes;
    this.lasts = lasts;
    this.#transfers = transfers;
    this.#block = transfers.pool.take(bytes);
  }

  /** The memory itself. Throws after `free`. */
  get block(): Block {
    if (this.#freed) throw new Error("DeviceBuffer: this buffer was freed; do not use it afterwards");
    return this.#block;
  }

  /** Why the buffer does not hold what it should: there was no memory for it, or the operation that was to fill it failed. */
  get failure(): Error | undefined {
    return this.#block.refused ?? this.#spoiled;
  }

  /**
   * Records the failure of the operation that was to fill the buffer; with undefined, records that the buffer has been filled
   * since.
   */
  spoil(failure: Error | undefined): void {
    this.#spoiled = failure;
  }

  /** A program is about to fill the buffer: forgets earlier failures, and asks again for memory that the device refused. */
  refill(): void {
    this.#spoiled = undefined;
    if (!this.#block.refused) return;
    const { pool } = this.#transfers;
    const block = pool.take(this.bytes);
    pool.give(this.#block, this.bytes);
    this.#block = block;
  }

  write(data: ArrayBufferView, offset = 0): void {
    this.#check("write", offset, data.byteLength);
    this.#transfers.write(this, data, offset);
  }

  read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    this.#check("read", offset, bytes);
    return this.#transfers.read(this, offset, bytes);
  }

  free(): void {
    if (this.#freed) throw new Error("DeviceBuffer.free: this buffer was freed before; free it once");
    this.#freed = true;
    this.#transfers.pool.give(this.#block, this.bytes);
  }

  #check(what: string, offset: number, bytes: number): void {
    if (offset >= 0 && bytes >= 0 && offset + bytes <= this.bytes) return;
    throw new RangeError(
      `DeviceBuffer.${what}: bytes ${offset} to ${offset + bytes} of a buffer of ${this.bytes} bytes; stay within it`,
    );
  }
}

/** The most bytes of host-visible buffers that are kept for reuse. */
const KEPT_STAGING = 64 << 20;

/** Host-visible buffers for reading back, kept for reuse. */
export class StagingPool {
  readonly #device: GPUDevice;
  readonly #free: GPUBuffer[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A mappable buffer of at least `bytes` bytes. */
  take(bytes: number): GPUBuffer {
    const fits = this.#free.findIndex((b) => b.size >= bytes && b.size <= 4 * Math.max(bytes, 1024));
    if (fits >= 0) return this.#free.splice(fits, 1)[0]!;
    const largest = Math.floor(this.#device.limits.maxBufferSize / 4) * 4;
    const size = Math.min(2 ** Math.ceil(Math.log2(Math.max(bytes, 256))), Math.max(bytes, largest));
    return this.#device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
  }

  give(buffer: GPUBuffer): void {
    this.#free.push(buffer);
    const kept = (): number => this.#free.reduce((sum, { size }) => sum + size, 0);
    while (this.#free.length > 8 || kept() > KEPT_STAGING) this.#free.shift()!.destroy();
  }
}

/**
 * The kernel for writes that are not whole 4-byte words, which WebGPU cannot copy: it merges the words at either end with the
 * content of the buffer. Because it is a kernel, the order of operations is kept.
 */
export const MERGE_CODE = `@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> P: array<vec4<u32>, 1>;
@compute @workgroup_size(1)
fn main() {
  words[P[0].x] = (words[P[0].x] & ~P[0].y) | (P[0].z & P[0].y);
}`;
