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
export function hashOfSizes(words: Int32Array, h: number): number {
  for (let i = 0; i < words.length; i += 2) h = hashed(h, words[i]! ^ (words[i + 1]! << 1));
  return h;
}
