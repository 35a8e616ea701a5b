/**
 * Metrics against their reference implementations. The expected values were recorded from sacreBLEU 2.6 (the first ones are in
 * its README and its own tests), the official evaluate-v1.1.py of SQuAD, rouge_score and the filters of the Language Model
 * Evaluation Harness; values that a line of arithmetic gives are written as that line.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  argmax,
  bestRouge,
  bleuOf,
  type BleuOptions,
  choiceAccuracy,
  corpusBleu,
  exactMatch,
  flexibleNumber,
  normalizeAnswer,
  normalizedChoiceAccuracy,
  rouge,
  sameNumber,
  strictNumber,
  tokenize13a,
  wordF1,
} from "../src/metrics/index.ts";

const close = (actual: number, expected: number, what: string, epsilon = 1e-9): void =>
  assert.ok(Math.abs(actual - expected) <= epsilon, `${what}: ${actual}, expected ${expected}`);

// prettier-ignore
const SQUAD: readonly (readonly [answer: string, references: string[], normal: string, match: 0 | 1, f1: number])[] = [
  ["The Denver Broncos!", ["Denver Broncos"], "denver broncos", 1, 1],
  ["  an  apple a day ", ["apple day"], "apple day", 1, 1],
  ["24–10", ["24-10"], "24–10", 0, 0], // an en dash is not ASCII punctuation
  ["24-10", ["2410"], "2410", 1, 1],
  ["l'Équipe", ["Léquipe"], "léquipe", 1, 1],
  ["A é", ["é"], "é", 1, 1],
  ["aé the", ["aé"], "aé", 1, 1], // "a" is no word here: é is a letter to Python's \b, not to JavaScript's
  ["İstanbul", ["istanbul"], "i\u0307stanbul", 0, 0],
  ["", [""], "", 1, 0], // equal, yet nothing in common
  ["the", ["a"], "", 1, 0],
  ["", ["x"], "", 0, 0],
  ["in Santa Clara, California", ["Santa Clara", "Levi's Stadium in Santa Clara"], "in santa clara california", 0, 2 / 3],
  ["red red blue", ["red blue blue"], "red red blue", 0, 2 / 3],
  ["東京 the tower", ["東京 tower"], "東京 tower", 1, 1],
  ["a\u00a0b\u2003c", ["b c"], "b c", 1, 1],
  ["x\u001cy", ["x y"], "x y", 1, 1], // a separator to Python's split, not to JavaScript's \s
  ["theatre", ["the atre"], "theatre", 0, 0],
  ["the_end", ["the end"], "theend", 0, 0],
  ["straße", ["STRASSE"], "straße", 0, 0],
  ["“quoted”", ["quoted"], "“quoted”", 0, 0],
];

test("SQuAD: normalisation, exact match and F1 are the official script's", () => {
  for (const [answer, references, normal, match, f1] of SQUAD) {
    assert.equal(normalizeAnswer(answer), normal);
    assert.equal(exactMatch(answer, references), match, answer);
    close(wordF1(answer, references), f1, answer);
  }
});

type Triple = readonly [precision: number, recall: number, f: number];
const same = (x: number): Triple => [x, x, x];
// prettier-ignore
const ROUGE: readonly (readonly [reference: string, text: string, one: Triple, two: Triple, l: Triple])[] = [
  ["testing one two", "testing", [1, 1 / 3, 1 / 2], same(0), [1, 1 / 3, 1 / 2]],
  ["testing one two", "testing one", [1, 2 / 3, 4 / 5], [1, 1 / 2, 2 / 3], [1, 2 / 3, 4 / 5]],
  ["testing one two", "testing two", [1, 2 / 3, 4 / 5], same(0), [1, 2 / 3, 4 / 5]],
  ["testing one two", "", same(0), same(0), same(0)],
  ["", "testing", same(0), same(0), same(0)],
  ["/", "///", same(0), same(0), same(0)],
  ["the cat sat on the mat", "the the the cat", [3 / 4, 1 / 2, 3 / 5], [1 / 3, 1 / 5, 1 / 4], [1 / 2, 1 / 3, 2 / 5]],
  ["Größe naïve café", "grosse naive cafe", same(0), same(0), same(0)],
  ["Größe ist gut", "die Größe ist gut", [4 / 5, 1, 8 / 9], [3 / 4, 1, 6 / 7], [4 / 5, 1, 8 / 9]], // "gr", "e", "ist", "gut"
  ["Mr. Smith's 3.5 apples", "mr smith s 3 5 apples", same(1), same(1), same(1)],
  ["police killed the gunman", "police kill the gunman", same(3 / 4), same(1 / 3), same(3 / 4)], // Lin 2004, section 3.1
  ["police killed the gunman", "the gunman kill police", same(3 / 4), same(1 / 3), same(1 / 2)],
  ["police killed the gunman", "the gunman police killed", same(1), same(2 / 3), same(1 / 2)],
  ["one", "one", same(1), same(0), same(1)], // no bigram at all
];

test("ROUGE-1, -2 and -L are rouge_score's", () => {
  for (const [reference, text, one, two, l] of ROUGE) {
    for (const [type, [precision, recall, f]] of [
      ["rouge1", one],
      ["rouge2", two],
      ["rougeL", l],
    ] as const) {
      // prettier-ignore
      const score = rouge(type, text, reference);
      close(score.precision, precision, `${type} precision of "${text}"`);
      close(score.recall, recall, `${type} recall of "${text}"`);
      close(score.f, f, `${type} F of "${text}"`);
    }
  }
});

test("ROUGE against several references takes the one with the best F, of equal ones the first", () => {
  assert.deepEqual(bestRouge("rouge1", "a b", ["c", "a b c d", "a b c"]), rouge("rouge1", "a b", "a b c"));
  assert.deepEqual(bestRouge("rouge1", "a b c d", ["a b x y", "c d x y"]), {
    precision: 0.5,
    recall: 0.5,
    f: 0.5,
  });
  const [short, long] = ["a b", "a b c d e f a b"];
  // Both F are 2·(2/4)·1 / 1.5 and 2·1·(4/8) / 1.5; the first is kept.
  assert.deepEqual(bestRouge("rouge1", "a b c d", [short, long]), { precision: 0.5, recall: 1, f: 2 / 3 });
  assert.equal(bestRouge("rougeL", "", ["", "a"]).f, 0);
});

const README_TEXTS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."];
const README_REFERENCES = [
  ["The dog bit the man.", "The dog had bit the man."],
  ["It was not unexpected.", "No one was surprised."],
  ["The man bit him first.", "The man had bitten the dog."],
];
const ZUCKER = "Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;";
// prettier-ignore
const BLEU: readonly (readonly [texts: string[], references: string[][], expected: number, options?: BleuOptions])[] = [
  [README_TEXTS, README_REFERENCES, 48.530827009929865], // published in sacreBLEU's README as 48.53
  [README_TEXTS, README_REFERENCES, 49.1919566, { tokenize: "none" }], // this and the next four: from its own tests
  [README_TEXTS, README_REFERENCES, 48.530827009929865, { smooth: "none" }],
  [["", "", ""], README_REFERENCES, 0],
  [[ZUCKER], [["producţia de zahăr brut se exprimă în zahăr alb;"]], 8.493098745313148, { effectiveOrder: true }],
  [[ZUCKER], [["producţia de zahăr brut se exprimă în zahăr alb;"]], 7.347053125977879, { effectiveOrder: true, tokenize: "none" }],
  [["this is a cat"], [["okay thanks"]], 0],
  [["Das ist ein Haus ."], [["Das ist ein Haus ."]], 100],
  [["Zwei Männer grüßen sich an der Straße.", "Ein Hund läuft über die Wiese."],
   [["Zwei Männer begrüßen sich auf der Straße."], ["Ein Hund rennt über die grüne Wiese."]], 19.4404005211694],
  [["a test"], [["a test"]], 0], // too short for 3-grams
  [["a test"], [["a test"]], 100, { effectiveOrder: true }],
  [["the cat sat here"], [["the cat sat", "the cat sat down right"]], 59.460355750136046], // of lengths 3 and 5 the shorter
  [["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]], 7.809849842300637],
  [["the cat is on the mat today again"], [["the cat is on the mat"]], 68.037493331712],
  [["", "the cat is on the mat"], [["hello there"], ["the cat is on the mat"]], 71.65313105737896],
  [["我 喜欢 😀 猫 们"], [["我 喜欢 😀 狗 们"]], 42.72870063962342],
  [["The Cat sat on the mat"], [["the cat sat on the mat"]], 50.81327481546149],
  [["this is a fest"], [["this is a test"]], 0, { smooth: "none" }],
  [["this is a fest"], [["this is a test"]], 59.460355750136046],
];

test("corpus BLEU is sacreBLEU's", () => {
  for (const [texts, references, expected, options] of BLEU) {
    close(corpusBleu(texts, references, options).score, expected, texts.join(" | "), 1e-6);
  }
  const { counts, totals, precisions, brevityPenalty, length, referenceLength } = corpusBleu(
    README_TEXTS,
    README_REFERENCES,
  );
  assert.deepEqual([counts, totals, length, referenceLength], [[14, 7, 5, 3], [17, 14, 11, 8], 17, 18]);
  close(brevityPenalty, 0.9428731438548749, "brevity penalty");
  close(precisions[2]!, 45.45454545454545, "3-gram precision");
});

test("BLEU from statistics, and the counts of repeated words", () => {
  const statistics = { counts: [9, 7, 5, 3], totals: [10, 8, 6, 4], length: 11, referenceLength: 11 };
  close(bleuOf(statistics).score, 83.75922397, "published", 1e-8);
  const { counts, totals } = corpusBleu(
    ["am I am a character sequence"],
    [["I am a symbol string sequence a a"]],
  );
  assert.deepEqual([counts, totals], [[4, 2, 1, 0], [6, 5, 4, 3]]); // prettier-ignore
});

// prettier-ignore
const TOKENS: readonly (readonly [text: string, words: string])[] = [
  ["Hello, world! It costs $1,234.56.", "Hello , world ! It costs $ 1,234.56 ."],
  ['He said: "3.5 - 2" (or 1-2)...', 'He said : " 3.5 - 2 " ( or 1 - 2 ) . . .'],
  ["a &amp; b &lt;c&gt; &quot;d&quot;", 'a & b < c > " d "'],
  ["“Größe” – 100%–ig, naïve.", "“Größe” – 100 % –ig , naïve ."],
  ["well-known e-mail 5-year", "well-known e-mail 5 - year"],
  ["line-\nbreak\nnext <skipped>end", "linebreak next end"],
  ["日本語。テスト、12,5", "日本語。テスト、12,5"],
  ["x.y .5 5. ,a a,b", "x . y . 5 5 . , a a , b"],
  ["\u2028a\u00a0b\u3000c", "a b c"],
  ["[a]{b}~`^_|\\@#", "[ a ] { b } ~ ` ^ _ | \\ @ #"],
  ["", ""],
];

test("the 13a tokenizer is mteval-v13a's", () => {
  for (const [text, words] of TOKENS) assert.equal(tokenize13a(text).join(" "), words);
});

// prettier-ignore
const GSM8K: readonly (readonly [text: string, strict: string | null, flexible: string | null, right: [0 | 1, 0 | 1]])[] = [
  ["so 1234\n#### 1,234", "1,234", "1,234", [1, 1]],
  ["#### 1234.", "1234.", "1234.", [1, 1]],
  ["The answer is $1,234.", null, "$1,234.", [0, 1]],
  ["1234 apples, then 5", null, "5", [0, 0]],
  ["####1234", null, "1234", [0, 1]],
  ["no number", null, null, [0, 0]],
  ["", null, null, [0, 0]],
  ["I think -1234", null, "-1234", [0, 0]],
  ["#### -1,234\n#### 1234", "-1,234", "1234", [0, 1]],
  ["1,234.00", null, "1,234.00", [0, 0]],
  ["#### 1234 dollars, not 99", "1234", "99", [1, 0]],
  ["The total is 1 2 3 4", null, "4", [0, 0]],
  ["= 1234..", null, "1234..", [0, 0]],
  ["１２３４", null, null, [0, 0]], // full-width digits
];

test("GSM8K: the strict and the flexible number are the harness's", () => {
  const reference = "He makes 6*2=12.\n#### 1,234";
  for (const [text, strict, flexible, right] of GSM8K) {
    assert.deepEqual([strictNumber(text), flexibleNumber(text)], [strict, flexible], text);
    assert.deepEqual([sameNumber(strict, reference), sameNumber(flexible, reference)], right, text);
  }
});

test("choices: the likeliest ending, ties to the first; lengths are counted in characters", () => {
  assert.equal(argmax([-3, -1, -1]), 1);
  assert.equal(choiceAccuracy([-2, -2, -5, -9], 0), 1);
  assert.equal(choiceAccuracy([-2, -2, -5, -9], 1), 0);
  // -4 / 2 < -6 / 4: the longer ending wins once its length counts.
  assert.equal(choiceAccuracy([-4, -6], 1), 0);
  assert.equal(normalizedChoiceAccuracy([-4, -6], ["ab", "abcd"], 1), 1);
  // "😀😀" are two characters, though four units of UTF-16: -4 / 2 = -2 loses against -3 / 2.
  assert.equal(normalizedChoiceAccuracy([-4, -3], ["😀😀", "ab"], 1), 1);
  assert.equal(normalizedChoiceAccuracy([-1, -2], ["a", "bc"], 0), 1);
  assert.throws(
    () => normalizedChoiceAccuracy([-1], ["a", "b"], 0),
    /1 log-likelihoods were given for 2 endings; give one for each/,
  );
  assert.throws(() => argmax([]), /no values/);
});

test("a text is its own best answer, whatever it is", () => {
  const text = fc.oneof(fc.string({ unit: "grapheme" }), fc.lorem());
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(exactMatch(a, [b, a]), 1);
      assert.ok(wordF1(a, [a]) === (normalizeAnswer(a) === "" ? 0 : 1));
      for (const type of ["rouge1", "rouge2", "rougeL"] as const) {
        const [ab, ba] = [rouge(type, a, b), rouge(type, b, a)];
        close(ab.f, ba.f, "F is symmetric");
        close(ab.precision, ba.recall, "precision one way is recall the other");
      }
      const { score } = corpusBleu([a], [[b]]);
      assert.ok(score >= 0 && score <= 100 + 1e-9);
    }),
  );
});

test("lists that do not fit are refused", () => {
  assert.throws(() => corpusBleu(["a"], []), /1 texts and 0 lists of references/);
  assert.throws(() => corpusBleu(["a"], [[]]), /each text needs a list with at least one/);
});
