/**
 * Metrics that give the same results as the reference implementations of their fields; test/metrics.test.ts has fixed cases.
 * @module
 */
export { bleuOf, type BleuOptions, type BleuScore, corpusBleu, tokenize13a } from "./bleu.ts";
export { type BootstrapOptions, type Difference, type Pairing, pairedBootstrap } from "./bootstrap.ts";
export { argmax, choiceAccuracy, normalizedChoiceAccuracy } from "./choice.ts";
export { flexibleNumber, sameNumber, strictNumber } from "./gsm8k.ts";
export { bestRouge, rouge, type RougeScore, type RougeType, rougeWords } from "./rouge.ts";
export { exactMatch, normalizeAnswer, wordF1 } from "./squad.ts";
