/**
 * What a device is to the planner: a backend, the compiled programs, and one queue in which everything happens in the
 * order of submission, also while a program is still being compiled.
 */
import { type Backend, type DeviceBuffer, ReferenceBackend } from "@tiedlora/kernels";
import type { Node, Storage } from "./graph.ts";
import type { Plan } from "./plan.ts";

export interface RuntimeOptions {
  /** "off": one kernel per node, to find out whether fusion is at fault. Default "on". */
  readonly fusion?: "on" | "off";
  /** Compiled programs that are kept; the least recently used goes first. Default 256. */
  readonly cachedPrograms?: number;
  /** Bytes of temporaries that kept programs may hold together, the last one aside. Default 1 GiB. */
  readonly cachedBytes?: number;
}

/** Device memory whose uses are queued behind what was submitted before. An update may exchange what is behind it. */
export class QueuedBuffer implements DeviceBuffer {
  readonly bytes: number;
  /** The backend's memory, as of the end of the queue's executed part. */
  memory: DeviceBuffer;
  freed = false;
  /** Why the memory does not hold what it should: what was to fill it failed. */
  failure: Error | null = null;
  readonly #queue: Queue;

  constructor(memory: DeviceBuffer, bytes: number, queue: Queue) {
    this.memory = memory;
    this.bytes = bytes;
    this.#queue = queue;
  }

  write(data: ArrayBufferView, offset = 0): void {
    const isAll = offset === 0 && data.byteLength === this.bytes;
    const copy = this.#queue.idle
      ? data
      : new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
    this.#queue.run(
      () => {
        this.memory.write(copy, offset);
        if (isAll) this.failure = null;
      },
      { makes: [this] },
    );
  }

  read(offset?: number, bytes?: number): Promise<ArrayBuffer> {
    return this.#queue.ask(() => this.memory.read(offset, bytes), this);
  }

  free(): void {
    if (this.freed) throw new Error("DeviceBuffer.free: this buffer was freed before; free it once");
    this.freed = true;
    this.#queue.run(() => this.memory.free());
  }
}

/**
 * Runs tasks in order: at once while no task is pending, after the pending ones otherwise. A task that fails has no effect:
 * weights keep their values, and reading its results, or anything computed from them, rejects. Other tasks are not affected.
 */
export class Queue {
  #tail: Promise<void> | null = null;
  /** The first failure that nothing has reported. */
  #unreported: Error | null = null;

  get idle(): boolean {
    return this.#tail === null;
  }

  /**
   * Runs `task`, once `ready` and all earlier tasks are done. Throws if it fails at once. A later failure is reported by
   * the next `ask`, and by all that are about what the task `makes`.
   */
  run(
    task: () => void,
    { ready, makes = [] }: { readonly ready?: Promise<void>; readonly makes?: readonly QueuedBuffer[] } = {},
  ): void {
    if (!this.#tail && !ready) return task();
    const before = this.#tail;
    const tail: Promise<void> = Promise.all([before, ready])
      .then(task)
      .catch((cause: unknown) => {
        const failure = cause instanceof Error ? cause : new Error(String(cause));
        for (const buffer of makes) buffer.failure ??= failure;
        this.#unreported ??= failure;
      })
      .finally(() => {
        if (this.#tail === tail) this.#tail = null;
      });
    this.#tail = tail;
  }

  /**
   * The answer to `question`, asked behind all earlier tasks. Rejects with the failure of what it is about; otherwise with
   * the first failure of any task that was not reported yet.
   */
  async ask<T>(question: () => Promise<T>, about?: QueuedBuffer): Promise<T> {
    if (this.#tail) await this.#tail;
    const failure = about?.failure ?? this.#unreported;
    if (!failure) return question();
    if (failure === this.#unreported) this.#unreported = null;
    throw failure;
  }
}

export class Runtime {
  /** What messages call it by, e.g. "cpu". */
  readonly name: string;
  /** What compiles and runs programs. */
  readonly backend: Backend;
  /** Whether kernels are fused. */
  readonly fusion: boolean;
  /** Everything submitted, in order. */
  readonly queue: Queue = new Queue();
  /** Host memory that has been used: null after the first time, afterwards its upload, for as long as the node lives. */
  readonly uploads: WeakMap<Node, Storage | null> = new WeakMap<Node, Storage | null>();
  readonly #plans = new Map<number, Plan>(); // by hash, the least recently used first
  readonly #limits: { readonly programs: number; readonly bytes: number };
  readonly #collected: FinalizationRegistry<QueuedBuffer>;
  #closed = false;

  constructor(backend: Backend, options: RuntimeOptions = {}) {
    this.name = backend.name;
    this.backend = backend;
    this.fusion = options.fusion !== "off";
    this.#limits = { programs: options.cachedPrograms ?? 256, bytes: options.cachedBytes ?? 2 ** 30 };
    this.#collected = new FinalizationRegistry((buffer) => {
      if (!this.#closed && !buffer.freed) buffer.free();
    });
  }

  /** Memory that lives until nobody refers to the storage any more, or until `storage.buffer.free()`. */
  allocate(bytes: number, name: string): Storage {
    if (this.#closed) throw new Error(`${this.name} was closed; open a device anew to allocate "${name}"`);
    const size = Math.max(bytes, 4);
    const { maxBufferBytes } = this.backend.caps;
    if (size > maxBufferBytes) {
      throw new RangeError(
        `${name} takes ${size} bytes, but one buffer of ${this.name} holds at most ${maxBufferBytes}; split it, or store it as f16`,
      );
    }
    const buffer = new QueuedBuffer(this.backend.alloc(size), size, this.queue);
    const storage: Storage = { buffer, version: 0, name };
    this.#collected.register(storage, buffer);
    return storage;
  }

  /** The plan of a graph with this signature, if it was planned before. */
  findPlan(hash: number, signature: Int32Array): Plan | undefined {
    const plan = this.#plans.get(hash);
    if (!plan || !sameInts(plan.signature, signature)) return undefined;
    this.#plans.delete(hash);
    this.#plans.set(hash, plan);
    return plan;
  }

  /** Keeps a plan; the least recently used ones beyond the limits go. Of two graphs with one hash the later is kept. */
  keepPlan(hash: number, plan: Plan): void {
    this.#freePlan(hash);
    this.#plans.set(hash, plan);
    let bytes = [...this.#plans.values()].reduce((sum, { tempBytes }) => sum + tempBytes, 0);
    for (const [oldest, { tempBytes }] of this.#plans) {
      const { size } = this.#plans;
      if (size <= 1 || (size <= this.#limits.programs && bytes <= this.#limits.bytes)) return;
      bytes -= tempBytes;
      this.#freePlan(oldest);
    }
  }

  /** Forgets a plan that could not be compiled: its next use compiles it anew. */
  dropPlan(hash: number, plan: Plan): void {
    if (this.#plans.get(hash) === plan) this.#plans.delete(hash);
  }

  #freePlan(hash: number): void {
    const plan = this.#plans.get(hash);
    if (plan) this.queue.run(() => plan.executable?.free());
    this.#plans.delete(hash);
  }

  /** Bytes on the device now and at most so far, and how many programs are kept compiled. */
  memory(): { liveBytes: number; peakBytes: number; cachedPrograms: number } {
    return { ...this.backend.memory(), cachedPrograms: this.#plans.size };
  }

  /** Resolves when all submitted work is done; rejects with the first error of it that nothing has reported. */
  sync(): Promise<void> {
    return this.queue.ask(() => this.backend.sync());
  }

  /** Frees everything; Node then exits by itself. Calling it twice is harmless. */
  close(): void {
    this.#closed = true;
    this.backend.close();
  }
}

/** Where values are computed that depend on no device: constants. */
export function hostRuntime(): Runtime {
  return new Runtime(new ReferenceBackend());
}

function sameInts(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
