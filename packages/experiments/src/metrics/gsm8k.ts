/**
 * GSM8K: the final number of a worked solution (Cobbe et al. 2021, arXiv 2110.14168). Strict and flexible extraction and
 * the comparison are those of the Language Model Evaluation Harness.
 */

/** The number after "####", with which the solutions of the data set end; null if there is none. */
export function strictNumber(text: string): string | null {
  return /#### (-?[0-9.,]+)/.exec(text)?.[1] ?? null;
}

/** The last number anywhere in the text; null if there is none. */
export function flexibleNumber(text: string): string | null {
  return text.match(/-?[$0-9.,]{2,}|-?[0-9]+/g)?.at(-1) ?? null;
}

/** 1 if the number is the one that the reference solution ends with, else 0. Commas, "$" and a final "." do not count. */
export function sameNumber(number: string | null, reference: string): number {
  return number !== null && plain(number) === plain(reference) ? 1 : 0;
}

const plain = (text: string): string =>
  text
    .replace(/,|\$/g, "")
    .replace(/.*#### /s, "")
    .replace(/\.$/, "")
    .toLowerCase();
