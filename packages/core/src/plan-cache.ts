/** Plans by the key of their graph, within limits: the least recently used ones go first. */
import type { Executable } from "@tiedlora/kernels";
import type { Assembly } from "./compile/assemble.ts";
import type { Queue } from "./queue.ts";
import type { Trace } from "./trace.ts";

/** A program, and how to put a graph's leaves into it. */
export interface Plan extends Assembly {
  readonly signature: Int32Array;
  /** `starts` of its graph, and which of them have varied: these are given at run time, as differences. */
  readonly starts: readonly number[];
  readonly moving: ReadonlySet<number>;
  /** Null when there is nothing to compute. */
  executable: Executable | null;
  /** Settled once the executable is there. */
  ready: Promise<void> | null;
  tempBytes: number;
}

export interface CacheOptions {
  /** Compiled programs that are kept; the least recently used goes first. Default 256. */
  readonly cachedPrograms?: number;
  /** Bytes of temporaries that kept programs may hold together, the last one aside. Default 1 GiB. */
  readonly cachedBytes?: number;
}

export class PlanCache {
  readonly #plans = new Map<number, Plan>(); // by hash, the least recently used first
  readonly #limits: Required<CacheOptions>;
  readonly #queue: Queue;

  constructor({ cachedPrograms = 256, cachedBytes = 2 ** 30 }: CacheOptions, queue: Queue) {
    this.#limits = { cachedPrograms, cachedBytes };
    this.#queue = queue;
  }

  get size(): number {
    return this.#plans.size;
  }

  /** The plan of a graph with this key, if there is one. */
  find({ hash, signature }: Trace): Plan | undefined {
    const plan = this.#plans.get(hash);
    if (!plan || !sameInts(plan.signature, signature)) return undefined;
    this.#plans.delete(hash);
    this.#plans.set(hash, plan);
    return plan;
  }

  /** Keeps a plan, and frees what is beyond the limits. Of two graphs with one hash the later is kept. */
  keep({ hash }: Trace, plan: Plan): void {
    this.#remove(hash);
    this.#plans.set(hash, plan);
    let bytes = [...this.#plans.values()].reduce((sum, { tempBytes }) => sum + tempBytes, 0);
    for (const [oldest, { tempBytes }] of this.#plans) {
      const fits = this.size <= this.#limits.cachedPrograms && bytes <= this.#limits.cachedBytes;
      if (fits || this.size <= 1) return;
      bytes -= tempBytes;
      this.#remove(oldest);
    }
  }

  /** Forgets a plan that could not be compiled: its next use compiles it anew. */
  drop({ hash }: Trace, plan: Plan): void {
    if (this.#plans.get(hash) === plan) this.#plans.delete(hash);
  }

  #remove(hash: number): void {
    const plan = this.#plans.get(hash);
    if (plan) this.#queue.run(() => plan.executable?.free());
    this.#plans.delete(hash);
  }
}

function sameInts(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
