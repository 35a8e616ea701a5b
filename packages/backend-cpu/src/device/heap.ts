/** The backend's one WebAssembly memory: views of it, allocation in it, and counts of live bytes. */
import { Allocator } from "./allocator.ts";
import { MAX_PAGES } from "../codegen/assembler.ts";

const PAGE = 65536;
/** The largest memory of WebAssembly, in bytes. */
export const MAX_BYTES: number = MAX_PAGES * PAGE;
const GIB = 2 ** 30;
/** Memory grows by at least this many bytes, so that it grows rarely. */
const GROWTH = 16 * 2 ** 20;

export interface HeapOptions {
  readonly shared: boolean;
  /** Bytes that the memory may grow to. */
  readonly maxBytes: number;
  /** The ticket of the last work that is finished. */
  readonly done: () => number;
  /** Blocks until more work is finished; returns false if no work is pending, or if the workers make no progress. */
  readonly advance: () => boolean;
}

export class Heap {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  readonly #options: HeapOptions;
  readonly #maxPages: number;
  readonly #allocator: Allocator;
  #live = 0;
  #peak = 0;
  #byteView: Uint8Array;
  #wordView: Int32Array;

  constructor(options: HeapOptions) {
    this.#options = options;
    this.shared = options.shared;
    this.#maxPages = Math.floor(options.maxBytes / PAGE);
    this.memory = new WebAssembly.Memory({ initial: 1, maximum: this.#maxPages, shared: this.shared });
    // address 0 stays unused; the last page too, so that addresses just past the end do not wrap around
    this.#allocator = new Allocator(64, (this.#maxPages - 1) * PAGE, (end) => this.#growTo(end));
    this.#byteView = new Uint8Array(this.memory.buffer);
    this.#wordView = new Int32Array(this.memory.buffer);
  }

  /** A view of all memory; it must not be kept across an allocation, which may replace it. */
  get bytes(): Uint8Array {
    return this.#byteView;
  }

  get words(): Int32Array {
    return this.#wordView;
  }

  get liveBytes(): number {
    return this.#live;
  }

  get peakBytes(): number {
    return this.#peak;
  }

  /** Allocates memory for data of users and programs, which counts as live. Returns null if there is no room. */
  tryAllocate(bytes: number): number | null {
    const address = this.#allocator.allocate(bytes);
    if (address === null) return null;
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
    return address;
  }

  /** Like `tryAllocate`, but throws if there is no room. */
  allocate(bytes: number, what: string): number {
    return this.tryAllocate(bytes) ?? this.#refuse(bytes, what);
  }

  /** Gives back what `allocate` returned; work up to `ticket` may still use it. */
  release(address: number, bytes: number, ticket: number): void {
    this.releaseOwn(address, ticket);
    this.#live -= bytes;
  }

  /**
   * Allocates memory for the backend's own use that the host writes immediately: waits for work that uses it. Returns null if
   * there is no room.
   */
  tryAllocateOwn(bytes: number): number | null {
    for (;;) {
      const address = this.#allocator.allocate(bytes, this.#options.done());
      if (address !== null || !this.#options.advance()) return address;
    }
  }

  /** Like `tryAllocateOwn`, but throws if there is no room. */
  allocateOwn(bytes: number): number {
    return this.tryAllocateOwn(bytes) ?? this.#refuse(bytes, "the backend");
  }

  /** Allocates memory for the backend's own use that only submitted work writes. Throws if there is no room. */
  allocateForWork(bytes: number): number {
    return this.#allocator.allocate(bytes) ?? this.#refuse(bytes, "the backend");
  }

  releaseOwn(address: number, ticket: number): void {
    this.#allocator.release(address, ticket, this.#options.done());
  }

  #refuse(bytes: number, what: string): never {
    const size = (x: number): string =>
      x >= GIB / 16 ? `${(x / GIB).toFixed(2)} GiB` : `${(x / 2 ** 20).toFixed(2)} MiB`;
    const most = this.#maxPages * PAGE;
    const why =
      most === MAX_BYTES ? "WebAssembly memory ends at 4 GiB" : `this device's memory ends at ${size(most)}`;
    throw new Error(
      `out of memory: ${bytes} bytes for ${what}, with ${size(this.#live)} live; ${why}. ` +
        "Use a smaller batch, half-precision weights or checkpointing, or free what is no longer needed",
    );
  }

  #growTo(end: number): boolean {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return true;
    const limit = this.#maxPages * PAGE;
    const generous = Math.min(limit, Math.max(end, have + GROWTH, Math.floor(have * 1.25)));
    const grow = (to: number): boolean => {
      try {
        this.memory.grow(Math.ceil((to - have) / PAGE));
        return true;
      } catch {
        return false;
      }
    };
    const grown = grow(generous) || grow(end);
    this.#byteView = new Uint8Array(this.memory.buffer);
    this.#wordView = new Int32Array(this.memory.buffer);
    return grown;
  }
}
