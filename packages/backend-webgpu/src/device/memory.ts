/**
 * Device memory: buffers by size class, kept for reuse after they are freed, and counted. Reuse needs no fences:
 * queue operations happen in the order of submission, so a new owner's writes come after the old owner's reads.
 */
import { outOfMemory, tooLarge } from "../errors.ts";
import type { ErrorScopes } from "./error-scopes.ts";

/** One GPU buffer with the identity that bind groups are cached by. */
export interface Block {
  readonly id: number;
  readonly gpu: GPUBuffer;
  /** Bytes of the GPU buffer: the size class. */
  readonly size: number;
  /** The error, if the device turned out to have no memory for the block. */
  refused: Error | undefined;
  /** Whether the device is known to have memory for the block. */
  granted: boolean;
}

/** Free blocks are kept up to this share of the live bytes, or up to KEEP_LEAST bytes if that is more. */
const KEEP_SHARE = 0.5;
const KEEP_LEAST = 64 << 20;

export class MemoryPool {
  readonly #device: GPUDevice;
  readonly #maxBytes: number;
  readonly #scopes: ErrorScopes;
  readonly #onError: (error: Error) => void;
  readonly #free = new Map<number, Block[]>();
  #freeBytes = 0;
  #nextId = 1;
  #held = 0;
  #live = 0;
  #peak = 0;

  /** `onError` gets the errors of allocations that the device later turns out to have refused. */
  constructor(device: GPUDevice, maxBytes: number, scopes: ErrorScopes, onError: (error: Error) => void) {
    this.#device = device;
    this.#scopes = scopes;
    this.#maxBytes = maxBytes;
    this.#onError = onError;
  }

  get liveBytes(): number {
    return this.#live;
  }

  get peakBytes(): number {
    return this.#peak;
  }

  /** Bytes of all GPU buffers, those kept for reuse included. */
  get heldBytes(): number {
    return this.#held;
  }

  /** A block of at least `bytes` bytes, with unspecified content. */
  take(bytes: number): Block {
    const size = this.#classOf(bytes);
    if (size > this.#maxBytes) throw tooLarge(bytes, this.#maxBytes);
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
    const block = this.#free.get(size)?.pop();
    if (!block) return this.#create(size);
    this.#freeBytes -= size;
    return block;
  }

  /** Takes back a block that was taken for `bytes` bytes. */
  give(block: Block, bytes: number): void {
    this.#live -= bytes;
    if (block.refused) return this.#destroy(block);
    this.#freeBytes += block.size;
    const list = this.#free.get(block.size);
    if (list) list.push(block);
    else this.#free.set(block.size, [block]);
    this.#trim(Math.max(KEEP_LEAST, this.#live * KEEP_SHARE));
  }

  /**
   * The size class. Small sizes are rounded up to a power of two, large ones to an eighth of one, so that equal shapes share
   * a class and little memory is wasted.
   */
  #classOf(bytes: number): number {
    if (bytes <= 4096) return Math.max(256, 2 ** Math.ceil(Math.log2(bytes || 1)));
    const step = 2 ** Math.floor(Math.log2(bytes)) / 8;
    return Math.min(Math.ceil(bytes / step) * step, Math.max(this.#maxBytes, Math.ceil(bytes / 16) * 16));
  }

  #create(size: number): Block {
    this.#held += size;
    const live = this.#live;
    const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    const make = (): Block => ({
      id: this.#nextId++,
      gpu: this.#device.createBuffer({ size, usage }),
      size,
      refused: undefined,
      granted: false,
    });
    const block: Block = this.#scopes.of("out-of-memory", make, (error) => {
      block.granted = !error;
      if (!error) return;
      block.refused = outOfMemory(live, error.message);
      this.#trim(0); // room for the next attempt
      this.#onError(block.refused);
    });
    return block;
  }

  #destroy({ gpu, size }: Block): void {
    gpu.destroy(); // submitted work that uses it still completes
    this.#held -= size;
  }

  /** Destroys the largest free blocks while more bytes are kept than `limit`. */
  #trim(limit: number): void {
    if (this.#freeBytes <= limit) return;
    for (const [size, blocks] of [...this.#free].sort((a, b) => b[0] - a[0])) {
      while (this.#freeBytes > limit && blocks.length > 0) {
        this.#destroy(blocks.shift()!);
        this.#freeBytes -= size;
      }
    }
  }
}

/** The WebGPU usage flags, which exist as a global only in browsers. */
export const USAGE: {
  readonly MAP_READ: 1;
  readonly COPY_SRC: 4;
  readonly COPY_DST: 8;
  readonly UNIFORM: 64;
  readonly STORAGE: 128;
  readonly QUERY_RESOLVE: 512;
} = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128, QUERY_RESOLVE: 512 };
