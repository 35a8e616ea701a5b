/** A buffer of the CPU backend: a range of its memory, checked before anything is read or written. */
import type { DeviceBuffer } from "@tiedlora/kernels";

/** The owner of a buffer's memory: reads, writes and frees ranges of it, in order with submitted work. */
export interface BufferOwner {
  assertOpen(): void;
  writeBytes(address: number, data: Uint8Array): void;
  readBytes(address: number, bytes: number): Promise<ArrayBuffer>;
  freeBytes(address: number, bytes: number): void;
  /** The memory itself; null if it is not shared, because its buffer is replaced when it grows. */
  viewBytes(address: number, bytes: number): Uint8Array | null;
}

export class CpuBuffer implements DeviceBuffer {
  readonly bytes: number;
  readonly address: number;
  readonly owner: BufferOwner;
  freed = false;

  constructor(owner: BufferOwner, address: number, bytes: number) {
    this.owner = owner;
    this.address = address;
    this.bytes = bytes;
  }

  write(data: ArrayBufferView, offset = 0): void {
    this.#check("write", offset, data.byteLength);
    this.owner.writeBytes(
      this.address + offset,
      new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    );
  }

  async read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    this.#check("read", offset, bytes);
    return this.owner.readBytes(this.address + offset, bytes);
  }

  hostView(): Uint8Array | null {
    this.#check("hostView", 0, this.bytes);
    return this.owner.viewBytes(this.address, this.bytes);
  }

  free(): void {
    if (this.freed) throw new Error("DeviceBuffer.free: this buffer was freed before; free it once");
    this.freed = true;
    this.owner.freeBytes(this.address, this.bytes);
  }

  #check(what: string, offset: number, bytes: number): void {
    this.owner.assertOpen();
    if (this.freed) throw new Error(`DeviceBuffer.${what}: this buffer was freed`);
    if (offset < 0 || bytes < 0 || offset + bytes > this.bytes) {
      throw new RangeError(
        `DeviceBuffer.${what}: bytes ${offset} to ${offset + bytes} of a buffer of ${this.bytes} bytes`,
      );
    }
  }
}
