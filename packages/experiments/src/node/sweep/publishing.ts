/**
 * Results of one process on their way to where they are kept, which takes as long as a disk or a network does. Meanwhile the process is at
 * its next runs; a disk that is waited for several times at once takes hardly longer than once.
 */

/** The most results on their way if their source does not say another number. */
export const PUBLISHED_AT_ONCE = 16;

export class Publishing {
  readonly #pending = new Set<Promise<void>>();
  readonly #atOnce: number;
  readonly #onError: () => void;
  #failure: { readonly error: unknown } | null = null;

  /** `atOnce`: the most on its way; a process that is faster waits. `onError` is called as soon as something cannot be published. */
  constructor(atOnce: number, onError: () => void) {
    this.#atOnce = atOnce;
    this.#onError = onError;
  }

  /** Starts to publish something. Rejects if that, or something before, failed. */
  async add(work: () => Promise<void>): Promise<void> {
    const done = work()
      .catch((error: unknown) => {
        this.#failure ??= { error };
        this.#onError();
      })
      .finally(() => this.#pending.delete(done));
    this.#pending.add(done);
    while (this.#pending.size >= this.#atOnce) await Promise.race(this.#pending);
    this.#check();
  }

  /** Waits until all is published. Rejects if something was not. */
  async end(): Promise<void> {
    await this.settled();
    this.#check();
  }

  /** Waits until nothing is on its way. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}
