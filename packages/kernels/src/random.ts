/**
 * Counter-based random numbers on the host: Threefry-2x32-20 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011). A key is an immutable value; the same key gives the same numbers, bit for bit, on every backend. Derive a new key for
 * each use with `fold`.
 * @module
 */
import { checkFinite, checkKey, checkWhole, refuse } from "./arguments.ts";

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];
const PARITY = 0x1bd11bda;

/** Threefry-2x32 with 20 rounds: two random u32 words from the key (k0, k1) and the counter (x0, x1), all u32. */
export function threefry2x32(k0: number, k1: number, x0: number, x1: number): [number, number] {
  const keys = [k0, k1, k0 ^ k1 ^ PARITY];
  let a = (x0 + k0) | 0;
  let b = (x1 + k1) | 0;
  for (let round = 0; round < 20; round++) {
    const rotation = ROTATIONS[round % 8]!;
    a = (a + b) | 0;
    b = ((b << rotation) | (b >>> (32 - rotation))) ^ a;
    if (round % 4 !== 3) continue;
    const i = (round + 1) / 4;
    a = (a + keys[i % 3]!) | 0;
    b = (b + keys[(i + 1) % 3]! + i) | 0;
  }
  return [a >>> 0, b >>> 0];
}

/** The 32-bit FNV-1a hash of a text's UTF-16 code units, to derive keys from names. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** A random key. Immutable. */
export class Key {
  readonly k0: number;
  readonly k1: number;

  constructor(k0: number, k1: number) {
    this.k0 = k0 >>> 0;
    this.k1 = k1 >>> 0;
  }

  /**
   * A new key derived from this one and `data`, e.g. `key.fold("dropout").fold(step)`; different data give unrelated keys. Throws
   * unless `data` is a string or a whole number.
   */
  fold(data: number | string): Key {
    if (typeof data !== "string" && !Number.isSafeInteger(data))
      refuse("Key.fold", data, "text or whole number", "one of the two");
    const word = typeof data === "number" ? data : hash(data);
    return new Key(...threefry2x32(this.k0, this.k1, word >>> 0, typeof data === "number" ? 0 : 1));
  }

  /** The key's two words, for messages. */
  toString(): string {
    return `Key(${this.k0}, ${this.k1})`;
  }
}

/** The key for a seed, a whole number in 0 … 2^53 - 1; throws for anything else. */
export function key(seed: number): Key {
  checkWhole("key: seed", seed);
  return new Key(Math.floor(seed / 2 ** 32), seed);
}

function words(what: string, k: Key, n: number): Uint32Array {
  const out = new Uint32Array(checkWhole(`${what}: the number of elements`, n));
  checkKey(what, k);
  for (let i = 0; i < n; i++) out[i] = threefry2x32(k.k0, k.k1, i, 0)[0];
  return out;
}

/** `n` random u32 words, generated on the host: word 0 of Threefry for the counters (0, 0) … (n-1, 0). */
export function bitsArray(k: Key, n: number): Uint32Array {
  return words("bitsArray", k, n);
}

/** `n` uniform random numbers in [low, high), generated on the host from 24 random bits each. */
export function uniformArray(k: Key, n: number, low = 0, high = 1): Float32Array {
  for (const bound of [low, high]) checkFinite("uniformArray: a bound", bound);
  return Float32Array.from(
    words("uniformArray", k, n),
    (word) => low + (high - low) * ((word >>> 8) * 2 ** -24),
  );
}

/** `n` normal random numbers, generated on the host in float64 (Box and Muller, 1958) so that every backend gets the same. */
export function normalArray(k: Key, n: number, mean = 0, std = 1): Float32Array {
  const out = new Float32Array(checkWhole("normalArray: the number of elements", n));
  checkFinite("normalArray: mean", mean);
  checkFinite("normalArray: std", std);
  checkKey("normalArray", k);
  for (let i = 0; i < n; i += 2) {
    const [a, b] = threefry2x32(k.k0, k.k1, i, 1);
    const radius = Math.sqrt(-2 * Math.log((a + 1) * 2 ** -32));
    const angle = 2 * Math.PI * (b * 2 ** -32);
    out[i] = mean + std * radius * Math.cos(angle);
    if (i + 1 < n) out[i + 1] = mean + std * radius * Math.sin(angle);
  }
  return out;
}

/** A random permutation of 0 … n-1 (Fisher–Yates shuffle). */
export function permutation(k: Key, n: number): Uint32Array {
  const drawn = words("permutation", k, n);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((drawn[i]! / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
