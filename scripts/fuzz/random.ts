/** Seeded choices: a case is the same wherever, and in whatever order, it is made. */
import { prng } from "../../test/src/prng.ts";

/** The generator of one case. */
export class Random {
  readonly #next: () => number;

  /** @param parts what the case is known by, e.g. target, seed and number */
  constructor(...parts: readonly (string | number)[]) {
    this.#next = prng(hash(parts.join("/")));
  }

  /** From 0 up to, not including, 1. */
  number(): number {
    return this.#next();
  }

  /** A whole number from 0 up to, not including, `count`. */
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
