/** Seeded random choices: a case is the same on every machine, and in whatever order cases are made. */
import { prng } from "../../test/src/prng.ts";

/** The generator of one case. */
export class Random {
  readonly #next: () => number;

  /** @param parts the identity of the case, e.g. target, seed and number */
  constructor(...parts: readonly (string | number)[]) {
    this.#next = prng(hash(parts.join("/")));
  }

  /** A number in [0, 1). */
  number(): number {
    return this.#next();
  }

  /** An integer in [0, `count`). */
  below(count: number): number {
    return Math.floor(this.#next() * count);
  }

  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error("nothing to pick from");
    return items[this.below(items.length)]!;
  }
}

/** FNV-1a */
function hash(text: string): number {
  let state = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193);
  return state >>> 0;
}
