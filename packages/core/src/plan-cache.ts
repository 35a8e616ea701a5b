/** Plans by the key of their graph. Beyond the limits, the least recently used plans are freed. */
import type { Executable } from "@tiedlora/kernels";
import { wordsOf } from "@tiedlora/kernels/hashes";
import type { Assembly } from "./compile/assemble.ts";
import type { Queue } from "@tiedlora/kernels/queue";
import type { Trace } from "./trace.ts";

/** A program, and how the leaves of a graph become its inputs. */
export interface Plan extends Assembly {
  readonly structure: Int32Array;
  readonly sizes: Float64Array;
  /** `starts` of its graph, and the indices of starts that have varied: a program is given their differences from `starts`. */
  readonly starts: readonly number[];
  readonly moving: ReadonlySet<number>;
  /** Null when there is nothing to compute. */
  executable: Executable | null;
  /** Settles when the executable has been compiled; null unless compilation is pending. */
  ready: Promise<void> | null;
  tempBytes: number;
  /** The cache, while it keeps the plan, and the plans that run it as a part of theirs. */
  users: number;
}

/** Frees the program of a plan that nobody uses any more. */
export function release(plan: Plan): void {
  if (--plan.users === 0) plan.executable?.free();
}

export interface CacheOptions {
  /** How many compiled programs are kept; beyond that, the least recently used is freed. Default 256. */
  readonly cachedPrograms?: number;
  /** Bytes of temporaries that the kept programs may hold in total; the latest program is kept whatever its size. Default 1 GiB. */
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
  find({ hash, structure, sizes }: Trace): Plan | undefined {
    const plan = this.#plans.get(hash);
    const isIn = ({ structure: ints, sizes: own }: Plan): boolean =>
      (ints === structure || sameInts(ints, structure)) &&
      (own === sizes || sameInts(wordsOf(own), wordsOf(sizes)));
    if (!plan || !isIn(plan)) return;
    this.#plans.delete(hash);
    this.#plans.set(hash, plan);
    return plan;
  }

  /** Keeps a plan, and frees the plans beyond the limits. Of two graphs with the same hash, the later is kept. */
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

  /** Forgets a plan that could not be compiled: its next use compiles it again. */
  drop({ hash }: Trace, plan: Plan): void {
    if (this.#plans.get(hash) === plan) this.#plans.delete(hash);
  }

  #remove(hash: number): void {
    const plan = this.#plans.get(hash);
    if (plan) this.#queue.run(() => release(plan));
    this.#plans.delete(hash);
  }
}

function sameInts(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
