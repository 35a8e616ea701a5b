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

interface WaitAsync {
  waitAsync?(array: Int32Array, index: number, value: number): { readonly value: Promise<string> | string };
}

export class Workers {
  private readonly heap: Heap;
  private readonly gemm: WebAssembly.Module;
  private readonly threads: number;
  private readonly control = new SharedArrayBuffer(CONTROL_BYTES);
  private readonly words = new Int32Array(this.control);
  private handles: WorkerHandle[] = [];
  private submitted = 0;
  private finished = 0;
  private waiting = 0;
  private failure: Error | null = null;

  constructor(heap: Heap, gemm: WebAssembly.Module, threads: number) {
    this.heap = heap;
    this.gemm = gemm;
    this.threads = threads;
  }

  /** The workers, once the first entry was submitted. */
  get started(): readonly WorkerHandle[] {
    return this.handles;
  }

  /** The ticket of the last entry submitted. */
  get last(): number {
    return this.submitted;
  }

  /** The ticket of the last entry done. */
  get done(): number {
    this.finished += (Atomics.load(this.words, CONTROL.done) - this.finished) | 0; // the counter wraps
    return this.finished;
  }

  get idle(): boolean {
    return this.done === this.submitted;
  }

  /** Appends an entry to the queue; its ticket. */
  submit(kind: number, a: number, b: number, c: number): number {
    if (this.failure !== null) throw this.failure;
    if (this.handles.length === 0) this.start();
    while (this.submitted - this.done >= CONTROL.queueLength - 1) this.block();
    const { words } = this;
    const at = CONTROL.queue + (this.submitted & (CONTROL.queueLength - 1)) * CONTROL.entryWords;
    words.set([kind, a, b, c], at);
    words[CONTROL.pages] = this.heap.memory.buffer.byteLength / 65536;
    this.submitted++;
    Atomics.store(words, CONTROL.submitted, this.submitted | 0);
    if (Atomics.load(words, CONTROL.sleepers) > 0) Atomics.notify(words, CONTROL.submitted);
    return this.submitted;
  }

  /** Resolves when the entry with this ticket is done; meanwhile the process stays alive. */
  async whenDone(ticket: number): Promise<void> {
    if (this.done >= ticket) return;
    if (this.waiting++ === 0) this.handles[0]?.keepAlive(true);
    try {
      while (this.done < ticket) {
        if (this.failure !== null) throw this.failure;
        await this.change();
      }
    } finally {
      if (--this.waiting === 0) this.handles[0]?.keepAlive(false);
    }
  }

  /** The first failure since the last call, or null. */
  takeFailure(): Error | null {
    const { words } = this;
    if (this.failure !== null) return this.failure;
    if (Atomics.load(words, CONTROL.failed) === 0) return null;
    const length = Atomics.load(words, CONTROL.message);
    const text = String.fromCharCode(...words.subarray(CONTROL.message + 1, CONTROL.message + 1 + length));
    Atomics.store(words, CONTROL.failed, 0);
    return new Error(`a program failed on the CPU backend: ${text}`);
  }

  close(): void {
    this.fail(new Error("this CPU device is closed; make a new one with cpu()"));
    for (const handle of this.handles) handle.terminate();
    this.handles = [];
  }

  private start(): void {
    const source = workerSource();
    for (let id = 0; id < this.threads; id++) {
      const handle = startWorker(source);
      handle.onFailure((reason) => this.fail(new Error(`a worker of the CPU backend died: ${reason}`)));
      const { memory } = this.heap;
      handle.post({ memory, control: this.control, gemm: this.gemm, id, threads: this.threads, spin: SPIN });
      this.handles.push(handle);
    }
  }

  private fail(error: Error): void {
    this.failure ??= error;
    Atomics.notify(this.words, CONTROL.done);
  }

  /** Resolves when `done` may have changed. */
  private async change(): Promise<void> {
    const seen = this.finished | 0;
    const answer = (Atomics as WaitAsync).waitAsync?.(this.words, CONTROL.done, seen);
    await (answer === undefined ? new Promise((resolve) => setTimeout(resolve, 1)) : answer.value);
  }

  /** Waits for the queue to move, where waiting is allowed; elsewhere returns at once. */
  private block(): void {
    if (this.failure !== null) throw this.failure;
    try {
      Atomics.wait(this.words, CONTROL.done, this.finished | 0, 100);
    } catch {
      // a browser's main thread may not wait: the caller's loop spins
    }
  }
}
