/**
 * Corpus BLEU (Papineni et al. 2002) as sacreBLEU computes it (Post 2018, arXiv 1804.08771): signature
 * `case:mixed|eff:no|tok:13a|smooth:exp`.
 */
import { counted, ngrams, splitWords, trimEnd } from "./text.ts";

const MAX_ORDER = 4;

/** The options of sacreBLEU that are supported. */
export interface BleuOptions {
  /** "13a" is the tokenizer of mteval-v13a; "none" splits at white space. Default: "13a". */
  readonly tokenize?: "13a" | "none";
  /** "exp" halves the precision of each further order without a match, "none" does not. Default: "exp". */
  readonly smooth?: "exp" | "none";
  /** Leave out orders that no hypothesis is long enough for; for single sentences. Default: false. */
  readonly effectiveOrder?: boolean;
}

/** BLEU and the statistics that it is computed from. */
export interface BleuScore {
  /** 0 to 100. */
  readonly score: number;
  /** Matched n-grams for n = 1 to 4. */
  readonly counts: readonly number[];
  /** All n-grams of the hypotheses for n = 1 to 4. */
  readonly totals: readonly number[];
  /** The precision for n = 1 to 4, in percent, smoothed. */
  readonly precisions: readonly number[];
  readonly brevityPenalty: number;
  readonly length: number;
  /** The sum, over the segments, of the reference length nearest to the hypothesis's; of two equally near, the shorter. */
  readonly referenceLength: number;
}

/** BLEU of a list of texts. `references[i]` are those of text i: one or more. */
export function corpusBleu(
  hypotheses: readonly string[],
  references: readonly (readonly string[])[],
  options: BleuOptions = {},
): BleuScore {
  if (references.length !== hypotheses.length || references.some((list) => list.length === 0)) {
    throw new RangeError(
      `corpusBleu: ${hypotheses.length} texts and ${references.length} lists of references; each text needs a list with at least one`,
    );
  }
  const split = options.tokenize === "none" ? splitWords : tokenize13a;
  const counts = Array<number>(MAX_ORDER).fill(0);
  const totals = Array<number>(MAX_ORDER).fill(0);
  let [length, referenceLength] = [0, 0];
  for (const [i, hypothesis] of hypotheses.entries()) {
    const words = split(trimEnd(hypothesis));
    const wanted = references[i]!.map((reference) => split(trimEnd(reference)));
    length += words.length;
    referenceLength += nearestLength(
      words.length,
      wanted.map((reference) => reference.length),
    );
    for (let n = 1; n <= MAX_ORDER; n++) {
      counts[n - 1]! += clippedMatches(words, wanted, n);
      totals[n - 1]! += Math.max(0, words.length - n + 1);
    }
  }
  return bleuOf({ counts, totals, length, referenceLength }, options);
}

/** BLEU from its statistics. */
export function bleuOf(
  statistics: Pick<BleuScore, "counts" | "totals" | "length" | "referenceLength">,
  { smooth = "exp", effectiveOrder = false }: BleuOptions = {},
): BleuScore {
  const { counts, totals, length, referenceLength } = statistics;
  const brevityPenalty =
    length >= referenceLength ? 1 : length > 0 ? Math.exp(1 - referenceLength / length) : 0;
  const precisions = Array<number>(MAX_ORDER).fill(0);
  let order = MAX_ORDER;
  let halving = 1;
  if (counts.every((count) => count === 0)) return { ...statistics, score: 0, precisions, brevityPenalty };
  for (let n = 1; n <= MAX_ORDER && totals[n - 1] !== 0; n++) {
    if (effectiveOrder) order = n;
    const [count, total] = [counts[n - 1]!, totals[n - 1]!];
    if (count > 0) precisions[n - 1] = (100 * count) / total;
    else if (smooth === "exp") precisions[n - 1] = 100 / ((halving *= 2) * total);
  }
  const used = precisions.slice(0, order);
  const meanLog = used.reduce((sum, p) => sum + Math.log(p), 0) / order; // -∞ where a precision is 0
  return { ...statistics, score: brevityPenalty * Math.exp(meanLog), precisions, brevityPenalty };
}

/** Words of a segment as mteval-v13a.pl cuts it (Western scripts: punctuation beyond ASCII stays attached). */
export function tokenize13a(segment: string): string[] {
  const plain = segment
    .replaceAll("<skipped>", "")
    .replaceAll("-\n", "")
    .replaceAll("\n", " ")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
  const spaced = ` ${plain} `
    .replace(/[{-~[-` -&(-+:-@/]/g, " $& ")
    .replace(/([^0-9])([.,])/gsu, "$1 $2 ") // a period or comma, unless a digit is before it
    .replace(/([.,])([^0-9])/gsu, " $1 $2") // … unless a digit is after it
    .replace(/([0-9])(-)/g, "$1 $2 ");
  return splitWords(spaced);
}

/** The number of n-grams of the words that are in a reference, each counted at most as often as any one reference has it. */
function clippedMatches(words: readonly string[], references: readonly string[][], n: number): number {
  const wanted = references.map((reference) => counted(ngrams(reference, n)));
  let matches = 0;
  for (const [gram, count] of counted(ngrams(words, n))) {
    matches += Math.min(count, Math.max(...wanted.map((counts) => counts.get(gram) ?? 0)));
  }
  return matches;
}

function nearestLength(length: number, lengths: readonly number[]): number {
  return lengths.reduce((best, one) => {
    const [d, e] = [Math.abs(one - length), Math.abs(best - length)];
    return d < e || (d === e && one < best) ? one : best;
  });
}
