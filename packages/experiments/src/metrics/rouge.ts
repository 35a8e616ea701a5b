/**
 * ROUGE (Lin 2004) as the rouge_score package computes it, without stemming: words are runs of a-z and 0-9, so letters beyond
 * ASCII separate words, as they do there.
 */
import { counted, harmonicMean, ngrams, overlap } from "./text.ts";

/** ROUGE of single words, of pairs of words, or of the longest common subsequence. */
export type RougeType = "rouge1" | "rouge2" | "rougeL";

/** The share of a text that is in the reference, the share of the reference in the text, and their harmonic mean; in [0, 1]. */
export interface RougeScore {
  readonly precision: number;
  readonly recall: number;
  readonly f: number;
}

/** The words that ROUGE compares: runs of a-z and 0-9, in lower case. */
export function rougeWords(text: string): string[] {
  return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
}

/** ROUGE of one text against one reference; all in [0, 1]. */
export function rouge(type: RougeType, text: string, reference: string): RougeScore {
  const [given, wanted] = [rougeWords(text), rougeWords(reference)];
  switch (type) {
    case "rouge1":
      return ofNgrams(given, wanted, 1);
    case "rouge2":
      return ofNgrams(given, wanted, 2);
    case "rougeL":
      return score(commonSubsequence(given, wanted), given.length, wanted.length);
  }
}

/** ROUGE against several references: the score with the highest F; of equal ones, the first (`score_multi`). */
export function bestRouge(type: RougeType, text: string, references: readonly string[]): RougeScore {
  const scores = references.map((reference) => rouge(type, text, reference));
  return scores.reduce((best, one) => (one.f > best.f ? one : best), { precision: 0, recall: 0, f: 0 });
}

function ofNgrams(given: readonly string[], wanted: readonly string[], n: number): RougeScore {
  const [a, b] = [ngrams(given, n), ngrams(wanted, n)];
  return score(overlap(counted(a), counted(b)), a.length, b.length);
}

function score(hits: number, given: number, wanted: number): RougeScore {
  const [precision, recall] = [hits / Math.max(given, 1), hits / Math.max(wanted, 1)];
  return { precision, recall, f: harmonicMean(precision, recall) };
}

/** The length of the longest common subsequence. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let above = Array<number>(b.length + 1).fill(0);
  for (const word of a) {
    const row = [0];
    for (const [j, other] of b.entries()) {
      row.push(word === other ? above[j]! + 1 : Math.max(above[j + 1]!, row[j]!));
    }
    above = row;
  }
  return above[b.length]!;
}
