/**
 * Text as Python's `str` treats it. The reference implementations of the metrics are Python programs, and JavaScript's \s,
 * \b and \w use other sets of characters.
 */

/** The characters that `str.split()` splits at, inside of a character class: unlike \s, with U+001C–1F and U+0085, not U+FEFF. */
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES: RegExp = new RegExp(`[${SPACE}]+`, "u");
const TRAILING: RegExp = new RegExp(`[${SPACE}]+$`, "u");

/** `text.split()`: the pieces between runs of white space, none of them empty. */
export function splitWords(text: string): string[] {
  return text.split(SPACES).filter((word) => word !== "");
}

/** `text.rstrip()` */
export function trimEnd(text: string): string {
  return text.replace(TRAILING, "");
}

/** The characters that Python's \w matches, and \b separates from others, as the inside of a character class. */
export const WORD_CHARACTER = "\\p{L}\\p{N}_";

/** How often each value occurs. */
export function counted(values: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** The size of the intersection of two multisets. */
export function overlap(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const [value, count] of a) sum += Math.min(count, b.get(value) ?? 0);
  return sum;
}

/** Joins the words of an n-gram: no word of any tokenizer here contains a space. */
const JOINT = " ";

/** The n-grams of a list of words, with repetitions. */
export function ngrams(words: readonly string[], n: number): string[] {
  return Array.from({ length: Math.max(0, words.length - n + 1) }, (_, i) =>
    words.slice(i, i + n).join(JOINT),
  );
}

/** 2pr / (p + r); 0 where both are 0. */
export function harmonicMean(precision: number, recall: number): number {
  return precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0;
}
