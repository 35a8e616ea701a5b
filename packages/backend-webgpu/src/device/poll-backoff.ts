/**
 * Waiting for a GPU that shares the CPU's cores. Dawn's Node binding polls in a busy loop while a promise is pending,
 * which takes a core away from a software adapter; sleeping in each turn of the event loop gives it back.
 */

interface NodeGlobals {
  readonly setImmediate?: (callback: () => void) => void;
  readonly process?: { readonly versions?: { readonly node?: string } };
}
const host = globalThis as NodeGlobals;

/** Whether this is Node (or a runtime that calls itself so). */
export const isNode: boolean = host.process?.versions?.node !== undefined;

/** Waits shorter than this are not worth a sleep. */
const POLL_MS = 0.1;
const SLEEP_MS = 0.2;

/** Sleeps between polls while a promise is pending. One for each device. */
export class PollBackoff {
  readonly #cell: Int32Array | undefined;
  #pending = 0;
  #ticking = false;
  #since = 0;

  /** `enabled`: whether the adapter computes on this machine's CPU and promises are settled by polling. */
  constructor(enabled: boolean) {
    if (enabled && host.setImmediate) this.#cell = new Int32Array(new SharedArrayBuffer(4));
  }

  /** The same promise; sleeps between polls until it is settled. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    if (!this.#cell) return promise;
    if (this.#pending++ === 0) this.#since = performance.now();
    this.#tick();
    try {
      return await promise;
    } finally {
      this.#pending--;
    }
  }

  #tick(): void {
    if (this.#ticking || this.#pending === 0) return;
    this.#ticking = true;
    host.setImmediate!(() => {
      this.#ticking = false;
      if (this.#pending > 0 && performance.now() - this.#since > POLL_MS)
        Atomics.wait(this.#cell!, 0, 0, SLEEP_MS);
      this.#tick();
    });
  }
}
