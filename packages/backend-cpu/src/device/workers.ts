/**
 * The JavaScript thread's side of the workers: a queue in shared memory, tickets, and waiting without blocking. Workers
 * are started by the first submission.
 */
import type { Heap } from "./heap.ts";
import type { WorkerHandle } from "./platform.ts";
import { startWorker } from "./platform.ts";
import { CONTROL, CONTROL_BYTES, workerSource } from "./worker-source.ts";

/** Iterations a worker spins before it sleeps: some tens of microseconds. */
const SPIN = 20_000;
/**
 * How long a submission waits for room in the queue while no worker makes progress; after that, the entry stays in `#later`.
 * A worker may have died, which this thread learns only when it returns to its event loop.
 */
const PATIENCE_MS = 500;

interface WaitAsync {
  waitAsync?(array: Int32Array, index: number, value: number): { readonly value: Promise<string> | string };
}

export class Workers {
  readonly #heap: Heap;
  readonly #gemm: WebAssembly.Module;
  readonly #threads: number;
  readonly #control = new SharedArrayBuffer(CONTROL_BYTES);
  readonly #words = new Int32Array(this.#control);
  #handles: WorkerHandle[] = [];
  #submitted = 0;
  /** The number of entries in the queue or done; the other submitted entries are in `#later`. */
  #posted = 0;
  #later: (readonly [kind: number, a: number, b: number, c: number])[] = [];
  #finished = 0;
  /** The state of the workers when `advance` last gave up waiting for them. */
  #stuck: string | null = null;
  #waiting = 0;
  #failure: Error | null = null;

  constructor(heap: Heap, gemm: WebAssembly.Module, threads: number) {
    this.#heap = heap;
    this.#gemm = gemm;
    this.#threads = threads;
  }

  /** The workers; there are none before the first entry is submitted. */
  get started(): readonly WorkerHandle[] {
    return this.#handles;
  }

  /** Whether the workers can no longer do anything: one has died, or they were closed. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /** The ticket of the last entry submitted. */
  get last(): number {
    return this.#submitted;
  }

  /** The ticket of the last entry done. */
  get done(): number {
    this.#finished += (Atomics.load(this.#words, CONTROL.done) - this.#finished) | 0; // the counter wraps
    return this.#finished;
  }

  get idle(): boolean {
    return this.done === this.#submitted;
  }

  /** Appends an entry to the queue and returns its ticket. Waits for room while the workers make progress. */
  submit(kind: number, a: number, b: number, c: number): number {
    if (this.#failure !== null) throw this.#failure;
    if (this.#handles.length === 0) this.#start();
    this.#later.push([kind, a, b, c]);
    this.#submitted++;
    do this.#post();
    while (this.#later.length > 0 && this.advance(PATIENCE_MS));
    return this.#submitted;
  }

  /** Blocks until another entry is done. False if all are, or if no worker has made progress for `patience` milliseconds. */
  advance(patience: number): boolean {
    if (this.#failure !== null) throw this.#failure;
    const before = this.done;
    let [seen, since] = [this.#state(), performance.now()];
    if (before === this.#submitted || seen === this.#stuck) return false;
    while (this.done === before) {
      this.#block();
      const now = this.#state();
      if (now !== seen) [seen, since] = [now, performance.now()];
      else if (performance.now() - since > patience) {
        this.#stuck = seen;
        return false;
      }
    }
    this.#post();
    return true;
  }

  /** A string that changes whenever any worker makes progress. */
  #state(): string {
    const { done, generation, next, ready } = CONTROL;
    return [done, generation, next, ready].map((at) => Atomics.load(this.#words, at)).join();
  }

  /** Moves entries from `#later` into the queue, as far as there is room. */
  #post(): void {
    const words = this.#words;
    const room = CONTROL.queueLength - 1 - (this.#posted - this.done);
    for (const entry of this.#later.splice(0, room)) {
      words.set(entry, CONTROL.queue + (this.#posted & (CONTROL.queueLength - 1)) * CONTROL.entryWords);
      this.#posted++;
    }
    words[CONTROL.pages] = this.#heap.memory.buffer.byteLength / 65536;
    Atomics.store(words, CONTROL.submitted, this.#posted | 0);
    if (Atomics.load(words, CONTROL.sleepers) > 0) Atomics.notify(words, CONTROL.submitted);
  }

  /**
   * Resolves when the entry with this ticket is done; meanwhile the process stays alive. Rejects if a worker dies or the
   * workers are closed.
   */
  async whenDone(ticket: number): Promise<void> {
    if (this.done >= ticket) return;
    if (this.#waiting++ === 0) this.#handles[0]?.keepAlive(true);
    try {
      for (let seen = this.done; seen < ticket; seen = this.done) {
        if (this.#failure !== null) throw this.#failure;
        this.#post();
        await this.#change(seen);
      }
    } finally {
      if (--this.#waiting === 0) this.#handles[0]?.keepAlive(false);
    }
  }

  /** The first failure since the last call, or null. */
  takeFailure(): Error | null {
    const words = this.#words;
    if (this.#failure !== null) return this.#failure;
    if (Atomics.load(words, CONTROL.failed) === 0) return null;
    const length = Atomics.load(words, CONTROL.message);
    const text = String.fromCharCode(...words.subarray(CONTROL.message + 1, CONTROL.message + 1 + length));
    Atomics.store(words, CONTROL.failed, 0);
    return new Error(`a program failed on the CPU backend: ${text}`);
  }

  close(): void {
    this.#fail(new Error("this CPU device is closed; make a new one with cpu()"));
    for (const handle of this.#handles) handle.terminate();
    this.#handles = [];
  }

  #start(): void {
    const source = workerSource();
    for (let id = 0; id < this.#threads; id++) {
      const handle = startWorker(source);
      handle.onFailure((reason) => this.#fail(new Error(`a worker of the CPU backend died: ${reason}`)));
      const { memory } = this.#heap;
      handle.post({
        memory,
        control: this.#control,
        gemm: this.#gemm,
        id,
        threads: this.#threads,
        spin: SPIN,
      });
      this.#handles.push(handle);
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    Atomics.notify(this.#words, CONTROL.done);
  }

  /** Resolves when `done` may differ from `seen`, the count that the caller last read. */
  async #change(seen: number): Promise<void> {
    const answer = (Atomics as WaitAsync).waitAsync?.(this.#words, CONTROL.done, seen | 0);
    await (answer === undefined ? new Promise((resolve) => setTimeout(resolve, 1)) : answer.value);
  }

  /** Waits, at most 100 ms, until another entry is done, if this thread may block; otherwise returns immediately. */
  #block(): void {
    try {
      Atomics.wait(this.#words, CONTROL.done, this.#finished | 0, 100);
    } catch {
      // a browser's main thread may not wait: the caller's loop spins
    }
  }
}
