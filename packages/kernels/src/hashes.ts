/**
 * Hashes of the numbers that keys consist of.
 * @module
 */

/** Sizes as pairs of 32-bit words, which tell apart -0 and 0, and are equal for NaN. */
export const wordsOf = ({ buffer, byteOffset, length }: Float64Array): Int32Array =>
  new Int32Array(buffer, byteOffset, 2 * length);

/** The hash of some words and `word`, from the hash `h` of the words before: a step of FNV-1a. */
export const hashed = (h: number, word: number): number => Math.imul(h ^ word, 0x01000193);

/** FNV-1a over 32-bit words. */
export function hashOf(ints: Int32Array): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < ints.length; i++) h = hashed(h, ints[i]!);
  return h;
}

/** The same over pairs of words, from the hash `h` of those before. */
function hashOfSizes(words: Int32Array, h: number): number {
  for (let i = 0; i < words.length; i += 2) h = hashed(h, words[i]! ^ (words[i + 1]! << 1));
  return h;
}

const float = new Float64Array(1);
const halves = new Int32Array(float.buffer);

/** A larger array, with the numbers of the one that is full. */
function grown<A extends Int32Array | Float64Array>(full: A, larger: A): A {
  larger.set(full);
  return larger;
}

/** Writes keys, one after another into the same memory: integers, and apart from them sizes. */
export class KeyWriter {
  #ints: Int32Array = new Int32Array(1 << 16);
  #length = 0;
  #sizes: Float64Array = new Float64Array(1 << 12);
  #count = 0;

  /** Begins a new key. */
  reset(): void {
    this.#length = 0;
    this.#count = 0;
  }

  /** Writes a 32-bit integer. */
  int(value: number): void {
    if (this.#length === this.#ints.length) this.#ints = grown(this.#ints, new Int32Array(2 * this.#length));
    this.#ints[this.#length++] = value;
  }

  /** Writes a number that is apart from the integers. */
  size(value: number): void {
    if (this.#count === this.#sizes.length)
      this.#sizes = grown(this.#sizes, new Float64Array(2 * this.#count));
    this.#sizes[this.#count++] = value;
  }

  /** Writes the number of axes as an integer, and their lengths as sizes. */
  shape(lengths: readonly number[]): void {
    this.int(lengths.length);
    for (let i = 0; i < lengths.length; i++) this.size(lengths[i]!);
  }

  /** Writes a number, a boolean, a word, or nested arrays of these as integers. */
  attribute(value: unknown): void {
    if (Array.isArray(value)) {
      this.int(value.length);
      for (const item of value) this.attribute(item);
    } else if (typeof value === "string") {
      this.int(value.length);
      for (let i = 0; i < value.length; i++) this.int(value.charCodeAt(i));
    } else {
      float[0] = Number(value);
      this.int(halves[0]!);
      this.int(halves[1]!);
    }
  }

  /** The key and its hash. Both arrays are valid until the next key; copy them to keep them. */
  key(): { readonly hash: number; readonly structure: Int32Array; readonly sizes: Float64Array } {
    const structure = this.#ints.subarray(0, this.#length);
    const sizes = this.#sizes.subarray(0, this.#count);
    return { hash: hashOfSizes(wordsOf(sizes), hashOf(structure)), structure, sizes };
  }
}
