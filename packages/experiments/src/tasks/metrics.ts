/** The metrics as tasks use them: over a whole data set, in percent. */
import { bleuOf, corpusBleu } from "../metrics/bleu.ts";
import { choiceAccuracy, normalizedChoiceAccuracy } from "../metrics/choice.ts";
import { flexibleNumber, sameNumber, strictNumber } from "../metrics/gsm8k.ts";
import { bestRouge, type RougeType } from "../metrics/rouge.ts";
import { exactMatch, wordF1 } from "../metrics/squad.ts";
import type { ChoiceMetric, Parts, TextMetric } from "./task.ts";

/** A mean in percent, of one number for each example. */
export const meanOfParts: Parts["score"] = ([sum = 0], count) => (100 * sum) / Math.max(1, count);

/** A loss per token in nats, of a sum of -log p and a number of tokens for each example. */
export const lossOfParts = ([sum = 0, tokens = 0]: readonly number[]): number => sum / tokens;

/** A metric that is the mean of a score of each text. */
export function meanMetric(
  name: string,
  score: (text: string, references: readonly string[]) => number,
): TextMetric {
  return {
    kind: "text",
    name,
    score: (texts, references) =>
      (100 * texts.reduce((sum, text, i) => sum + score(text, references[i]!), 0)) /
      Math.max(1, texts.length),
    parts: { of: (text, references) => [score(text, references)], score: meanOfParts },
  };
}

const rouge = (name: string, type: RougeType): TextMetric =>
  meanMetric(name, (text, references) => bestRouge(type, text, references).f);

const words = (text: string): string => text.trim().split(/\s+/).join(" ");

/** SQuAD's: whether the words are those of a reference, apart from case, punctuation and articles. */
export const EXACT_MATCH: TextMetric = meanMetric("exact match", exactMatch);
/** SQuAD's: the words shared with the nearest reference. */
export const F1: TextMetric = meanMetric("F1", wordF1);
/** Single words shared with the nearest reference, as F1. */
export const ROUGE_1: TextMetric = rouge("ROUGE-1", "rouge1");
/** Pairs of words shared with the nearest reference, as F1. */
export const ROUGE_2: TextMetric = rouge("ROUGE-2", "rouge2");
/** The longest common subsequence of words with the nearest reference, as F1. */
export const ROUGE_L: TextMetric = rouge("ROUGE-L", "rougeL");
/** BLEU of the whole data set, as sacrebleu computes it. */
export const BLEU: TextMetric = {
  kind: "text",
  name: "BLEU",
  score: (texts, references) => corpusBleu(texts, references).score,
  parts: {
    of(text, references) {
      const { counts, totals, length, referenceLength } = corpusBleu([text], [references]);
      return [...counts, ...totals, length, referenceLength];
    },
    score(sums) {
      const [length, referenceLength] = sums.slice(8) as [number, number];
      return bleuOf({ counts: sums.slice(0, 4), totals: sums.slice(4, 8), length, referenceLength }).score;
    },
  },
};
/** Whether the text is an accepted answer, apart from white space. */
export const SAME_TEXT: TextMetric = meanMetric("accuracy", (text, references) =>
  references.some((reference) => words(reference) === words(text)) ? 1 : 0,
);
/** Whether the first number of the text is the answer's. */
export const SAME_CHOICE: TextMetric = meanMetric("accuracy", (text, references) => {
  const number = /\d+/.exec(text)?.[0];
  return number !== undefined && references.includes(number) ? 1 : 0;
});
/** GSM8K's: whether the number after "####" is the reference's. */
export const NUMBER_STRICT: TextMetric = meanMetric("strict match", (text, references) =>
  sameNumber(strictNumber(text), references[0]!),
);
/** GSM8K's: whether the last number of the text is the reference's. */
export const NUMBER_FLEXIBLE: TextMetric = meanMetric("flexible match", (text, references) =>
  sameNumber(flexibleNumber(text), references[0]!),
);
/** Whether the last numbers of text and answer are equal. */
export const SAME_RESULT: TextMetric = meanMetric("result", (text, references) =>
  sameNumber(flexibleNumber(text), flexibleNumber(references[0]!) ?? references[0]!),
);

/** Whether the right ending is the likeliest. */
export const LIKELIEST: ChoiceMetric = {
  kind: "choice",
  name: "acc",
  score: (values, { right }) => choiceAccuracy(values, right),
};
/** Whether the right ending has the highest log-likelihood per character. */
export const LIKELIEST_NORMALIZED: ChoiceMetric = {
  kind: "choice",
  name: "acc_norm",
  score: (values, { endings, right }) => normalizedChoiceAccuracy(values, endings, right),
};
