/**
 * The queue of a device: all tasks run in the order of submission, even while a program is still being compiled.
 * @module
 */
import type { DeviceBuffer } from "./backend.ts";

/** Device memory whose uses are queued behind earlier tasks. An update may replace the backend's memory behind it. */
export class QueuedBuffer implements DeviceBuffer {
  readonly bytes: number;
  /** The backend's memory, as of the end of the queue's executed part. */
  memory: DeviceBuffer;
  freed = false;
  /** Why the memory lacks its content: the failure of the task that should have filled it. */
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

  /** Whether no task waits. */
  get idle(): boolean {
    return this.#tail === null;
  }

  /** Runs `task` in its turn. Throws if it fails at once; if later, the next `ask` and each `ask` about what it `makes` reject. */
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

  /** Asks after all earlier tasks. Rejects with the failure of the buffer it is about, or with the first unreported failure. */
  async ask<T>(question: () => Promise<T>, about?: QueuedBuffer): Promise<T> {
    if (this.#tail) await this.#tail;
    const failure = about?.failure ?? this.#unreported;
    if (!failure) return question();
    if (failure === this.#unreported) this.#unreported = null;
    throw failure;
  }
}
