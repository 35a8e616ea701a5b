/**
 * A small seeded generator of host random numbers for making text: sfc32, integer arithmetic only, so the same
 * seed writes the same text on every machine. Not for tensors: those use core's counter-based generator.
 */

/** Hashes a string to 32 bits (FNV-1a with a final avalanche). */
export function hash32(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A seeded stream of random numbers, the same on every machine. */
export class Rng {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** Generators of one seed but different paths are independent of each other. */
  constructor(seed: number, ...path: (string | number)[]) {
    const name = [seed, ...path].join("/");
    this.#a = hash32(`a:${name}`);
    this.#b = hash32(`b:${name}`);
    this.#c = hash32(`c:${name}`);
    for (let i = 0; i < 12; i++) this.next();
  }

  /** The next 32 random bits, as an unsigned integer. */
  next(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out >>> 0;
  }

  /** An integer in [0, n). */
  int(n: number): number {
    if (!(Number.isSafeInteger(n) && n > 0))
      throw new RangeError(`Rng.int(${n}): expected a positive integer`);
    return Math.floor((this.next() / 0x1_0000_0000) * n);
  }

  /** An integer in [low, high], both included. */
  range(low: number, high: number): number {
    return low + this.int(high - low + 1);
  }

  /** True with probability p. */
  chance(p: number): boolean {
    return this.next() < p * 0x1_0000_0000;
  }

  /** An element of `list`, each as likely. */
  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T;
  }

  /** `count` different elements, in random order. */
  sample<T>(list: readonly T[], count: number): T[] {
    if (count > list.length)
      throw new RangeError(
        `Rng.sample: ${count} elements of a list of ${list.length}; give at most its length`,
      );
    const pool = [...list];
    for (let i = 0; i < count; i++) {
      const j = i + this.int(pool.length - i);
      [pool[i], pool[j]] = [pool[j] as T, pool[i] as T];
    }
    return pool.slice(0, count);
  }

  /** A copy of `list` in a random order. */
  shuffle<T>(list: readonly T[]): T[] {
    return this.sample(list, list.length);
  }

  /** An element of a table of [weight, value]. */
  weighted<T>(table: readonly (readonly [weight: number, value: T])[]): T {
    let left = this.int(table.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, value] of table) {
      if (left < weight) return value;
      left -= weight;
    }
    throw new RangeError("Rng.weighted: the table is empty");
  }
}
