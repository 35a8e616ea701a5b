/** SQuAD v1.1: exact match and F1 of words, as evaluate-v1.1.py computes them (Rajpurkar et al. 2016, arXiv 1606.05250). */
import { counted, harmonicMean, overlap, splitWords, WORD_CHARACTER } from "./text.ts";

/** Python's string.punctuation: ASCII alone, so that quotes and dashes of other scripts stay. */
const PUNCTUATION = /[!-/:-@[-`{-~]/g;
const ARTICLES: RegExp = new RegExp(`(?<![${WORD_CHARACTER}])(?:a|an|the)(?![${WORD_CHARACTER}])`, "gu");

/** Lower case, without punctuation and articles, words separated by single spaces. */
export function normalizeAnswer(text: string): string {
  const plain = text.toLowerCase().replace(PUNCTUATION, "").replace(ARTICLES, " ");
  return splitWords(plain).join(" ");
}

/** 1 if the answer equals one of the references after normalization, else 0. */
export function exactMatch(answer: string, references: readonly string[]): number {
  const normal = normalizeAnswer(answer);
  return references.some((reference) => normalizeAnswer(reference) === normal) ? 1 : 0;
}

/** The best F1 of the answer's words against a reference's, in [0, 1]. 0 without a common word, also if both are empty. */
export function wordF1(answer: string, references: readonly string[]): number {
  return Math.max(0, ...references.map((reference) => f1(answer, reference)));
}

function f1(answer: string, reference: string): number {
  const [given, wanted] = [answer, reference].map((text) => splitWords(normalizeAnswer(text))) as [
    string[],
    string[],
  ];
  const same = overlap(counted(given), counted(wanted));
  return same === 0 ? 0 : harmonicMean(same / given.length, same / wanted.length);
}
