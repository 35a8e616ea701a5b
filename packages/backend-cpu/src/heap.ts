/** The backend's one WebAssembly memory: views on it, allocation in it, and the account of what is live. */
import { Allocator } from "./allocator.ts";
import { MAX_PAGES } from "./assembler.ts";

const PAGE = 65536;
const GIB = 2 ** 30;
/** Memory grows by at least this much, so that it grows seldom. */
const GROWTH = 16 * 2 ** 20;

export class Heap {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  private readonly allocator: Allocator;
  private live = 0;
  private peak = 0;
  private byteView: Uint8Array;
  private wordView: Int32Array;

  constructor(shared: boolean) {
    this.shared = shared;
    this.memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES, shared });
    // address 0 stays unused; the last page too, so that addresses just past the end do not wrap around
    this.allocator = new Allocator(64, (MAX_PAGES - 1) * PAGE, (end) => this.growTo(end));
    this.byteView = new Uint8Array(this.memory.buffer);
    this.wordView = new Int32Array(this.memory.buffer);
  }

  /** All of memory; not to be kept across an allocation. */
  get bytes(): Uint8Array {
    return this.byteView;
  }

  get words(): Int32Array {
    return this.wordView;
  }

  get liveBytes(): number {
    return this.live;
  }

  get peakBytes(): number {
    return this.peak;
  }

  /** Memory for data of users and programs; counted. */
  allocate(bytes: number, what: string): number {
    const address = this.take(bytes, Infinity, what);
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    return address;
  }

  /** Gives back what `allocate` returned; work up to `ticket` may still use it. */
  release(address: number, bytes: number, ticket: number): void {
    this.allocator.release(address, ticket);
    this.live -= bytes;
  }

  /** Memory for the backend's own use that the host writes right away, `done` being the last finished work. */
  allocateOwn(bytes: number, done: number): number {
    return this.take(bytes, done, "the backend");
  }

  releaseOwn(address: number, ticket: number): void {
    this.allocator.release(address, ticket);
  }

  private take(bytes: number, done: number, what: string): number {
    const address = this.allocator.allocate(bytes, done);
    if (address !== null) return address;
    const gib = (x: number): string => `${(x / GIB).toFixed(2)} GiB`;
    throw new Error(
      `out of memory: ${bytes} bytes for ${what}, with ${gib(this.live)} live; WebAssembly memory ends at 4 GiB. ` +
        "Use a smaller batch, half-precision weights or checkpointing, or free what is no longer needed",
    );
  }

  private growTo(end: number): boolean {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return true;
    const limit = MAX_PAGES * PAGE;
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
    this.byteView = new Uint8Array(this.memory.buffer);
    this.wordView = new Int32Array(this.memory.buffer);
    return grown;
  }
}
