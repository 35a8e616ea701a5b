/** A device as the compiler sees it: a backend, the compiled programs, and one queue that runs all tasks in order. */
import { type Backend, ReferenceBackend } from "@tiedlora/kernels";
import { Families } from "@tiedlora/kernels/families";
import { HandedOn } from "@tiedlora/kernels/segments";
import type { Planned } from "./compile/assemble.ts";
import type { Node } from "./graph.ts";
import { type CacheOptions, PlanCache } from "./plan-cache.ts";
import { Queue, QueuedBuffer } from "@tiedlora/kernels/queue";
import type { Storage } from "./storage.ts";

export interface RuntimeOptions extends CacheOptions {
  /** "off": one kernel per node, to find out whether fusion causes a problem. Default "on". */
  readonly fusion?: "on" | "off";
}

export class Runtime {
  /** The name in messages, e.g. "cpu". */
  readonly name: string;
  /** The backend that compiles and runs programs. */
  readonly backend: Backend;
  /** Whether kernels are fused. */
  readonly fusion: boolean;
  /** All submitted tasks, in order. */
  readonly queue: Queue = new Queue();
  /** Uploads of host memory: null after its first use, from the second use on its upload, for as long as the node lives. */
  readonly uploads: WeakMap<Node, Storage | null> = new WeakMap<Node, Storage | null>();
  /** Compiled programs. */
  readonly plans: PlanCache;
  /** What is known of programs of one structure at several sizes. */
  readonly families: Families<Planned> = new Families<Planned>();
  /** Memory that the parts of programs hand values on in. */
  readonly handedOn: HandedOn;
  readonly #collected: FinalizationRegistry<QueuedBuffer>;
  #closed = false;

  constructor(backend: Backend, options: RuntimeOptions = {}) {
    this.name = backend.name;
    this.backend = backend;
    this.fusion = options.fusion !== "off";
    this.plans = new PlanCache(options, this.queue);
    this.handedOn = new HandedOn(backend);
    this.#collected = new FinalizationRegistry((buffer) => {
      if (!this.#closed && !buffer.freed) buffer.free();
    });
  }

  /** Memory that lives until nothing refers to the storage, or until `storage.buffer.free()`. Throws if too large or closed. */
  allocate(bytes: number, name: string): Storage {
    if (this.#closed) throw new Error(`${this.name} was closed; open a new device to allocate "${name}"`);
    const size = Math.max(bytes, 4);
    const { maxBufferBytes } = this.backend.caps;
    if (size > maxBufferBytes) {
      throw new RangeError(
        `${name} takes ${size} bytes, but one buffer of ${this.name} holds at most ${maxBufferBytes}; split it, or store it as f16`,
      );
    }
    const buffer = new QueuedBuffer(this.backend.alloc(size), size, this.queue);
    const storage: Storage = { buffer, version: 0, name, walk: 0, position: 0 };
    this.#collected.register(storage, buffer);
    return storage;
  }

  /** Bytes on the device now and at their peak, and how many compiled programs are kept. */
  memory(): { liveBytes: number; peakBytes: number; cachedPrograms: number } {
    return { ...this.backend.memory(), cachedPrograms: this.plans.size };
  }

  /** Resolves when all submitted work is done; rejects with its first error that nothing has reported yet. */
  sync(): Promise<void> {
    return this.queue.ask(() => this.backend.sync());
  }

  /** Frees everything; Node then exits by itself. Calling it twice is harmless. */
  close(): void {
    this.#closed = true;
    this.backend.close();
  }
}

/** A runtime for values that depend on no device: constants. */
export function hostRuntime(): Runtime {
  return new Runtime(new ReferenceBackend());
}
