/**
 * Chooses the next token, on the host in float64, with random numbers that are a function of seed, row and step: a seed
 * gives the same text on every backend. Logits of two backends differ by rounding, in the sixth digit; where the two
 * highest scores, or the random number and the border of an interval, are closer than that, the choice may differ.
 * Of equal scores, the first wins; `topK` keeps every token whose score equals the kth largest.
 */
import { type Key, uniformArray } from "@tiedlora/core";
import { checkKey, checkNumbers, checkOptions, describeArgument, refuse } from "@tiedlora/core/arguments";

/** How the next token is chosen from the model's scores. */
export interface SamplingOptions {
  /** 0 (the default) takes the most likely token; 1 samples from the model's own distribution. */
  readonly temperature?: number;
  /** Sample from the k most likely tokens only. */
  readonly topK?: number;
  /** Sample only from the smallest set of most likely tokens whose probabilities add up to at least p. */
  readonly topP?: number;
  /** Divides positive scores of tokens that occurred already, and multiplies negative ones (Keskar et al. 2019); 1: no effect. */
  readonly repetitionPenalty?: number;
  /** Subtracted from the score of each token that was generated already, as in OpenAI's API. Default: 0. */
  readonly presencePenalty?: number;
  /** Subtracted from the score of a token as often as it was generated already, as in OpenAI's API. Default: 0. */
  readonly frequencyPenalty?: number;
  /** Added to the scores of tokens, by id. Default: none. */
  readonly logitBias?: ReadonlyMap<number, number>;
}

/** Throws RangeError, which names the option, if one is out of range. */
export function checkSampling(options: SamplingOptions): void {
  const { temperature = 0, topK = 1, topP = 1, repetitionPenalty = 1 } = options;
  const { presencePenalty = 0, frequencyPenalty = 0, logitBias = new Map() } = options;
  const check = (ok: boolean, name: string, value: number, expected: string): void => {
    if (!ok || typeof value !== "number")
      throw new RangeError(`${name}: ${describeArgument(value)} was given; need ${expected}`);
  };
  check(temperature >= 0 && Number.isFinite(temperature), "temperature", temperature, "a number from 0 on");
  check(Number.isInteger(topK) && topK >= 1, "topK", topK, "a whole number from 1 on");
  check(topP > 0 && topP <= 1, "topP", topP, "a number above 0, up to 1");
  check(
    repetitionPenalty >= 1e-3 && repetitionPenalty <= 1e3,
    "repetitionPenalty",
    repetitionPenalty,
    "a number above 0, from 0.001 to 1000",
  );
  for (const [name, value] of Object.entries({ presencePenalty, frequencyPenalty }))
    check(Number.isFinite(value), name, value, "a finite number");
  if (!(logitBias instanceof Map))
    refuse("logitBias", logitBias, "Map", "biases by token: new Map([[5, -100]])");
  for (const [id, bias] of logitBias as ReadonlyMap<number, number>) {
    check(Number.isInteger(id) && id >= 0, "logitBias", id, "ids of tokens");
    check(Number.isFinite(bias), `logitBias of ${id}`, bias, "a finite number");
  }
}

/**
 * The next token of one row. Throws RangeError if the logits contain NaN or infinity, or if an option is out of range.
 * @param logits [vocab]
 * @param seen tokens of the prompt and those generated so far
 * @param key fresh for each row and step
 * @param prompt how many of `seen`, at its beginning, are of the prompt: presence and frequency penalties are for the others. Default: none
 */
export function sampleToken(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  seen: Iterable<number>,
  key: Key,
  prompt = 0,
): number {
  checkNumbers("sampleToken: logits", logits);
  checkSampling(checkOptions("sampleToken", options, "{ temperature: 0.7 }"));
  if (typeof (seen as Iterable<number> | null | undefined)?.[Symbol.iterator] !== "function")
    refuse("sampleToken: seen", seen, "list of token ids", "those so far, e.g. []");
  checkKey("sampleToken", key);
  const { temperature = 0, topK, topP, repetitionPenalty = 1 } = options;
  checkScores(logits);
  if (temperature === 0 && !changesScores(options)) return argmax(logits);
  const scores = Float64Array.from(logits);
  if (repetitionPenalty !== 1) {
    for (const id of new Set(seen))
      scores[id]! *= scores[id]! > 0 ? 1 / repetitionPenalty : repetitionPenalty;
  }
  penalize(scores, options, seen, prompt);
  if (temperature === 0) return argmax(scores);
  const weights = softmax(scores, temperature);
  if (topK !== undefined && topK < weights.length) keepLargest(weights, topK);
  if (topP !== undefined && topP < 1) keepNucleus(weights, topP);
  return draw(weights, key);
}

/** Throws unless all scores are numbers below infinity, and one is a number. */
function checkScores(scores: ArrayLike<number>): void {
  let most = -Infinity;
  for (let i = 0; i < scores.length && most < Infinity; i++) {
    const score = scores[i]!;
    if (!(score <= most)) most = score < Infinity ? score : Infinity;
  }
  if (!Number.isFinite(most))
    throw new RangeError(
      "the model's logits are not numbers (NaN) or infinite: its weights or an adapter are broken",
    );
}

function changesScores(options: SamplingOptions): boolean {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  return (
    repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0 || logitBias !== undefined
  );
}

/** Applies the biases, and the penalties of tokens that were generated already. */
function penalize(
  scores: Float64Array,
  { presencePenalty = 0, frequencyPenalty = 0, logitBias }: SamplingOptions,
  seen: Iterable<number>,
  prompt: number,
): void {
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    const counts = new Map<number, number>();
    for (const id of [...seen].slice(prompt)) counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const [id, n] of counts) scores[id]! -= presencePenalty + n * frequencyPenalty;
  }
  for (const [id, bias] of logitBias ?? []) {
    if (id >= scores.length)
      throw new RangeError(`logitBias: ${id} was given; need ids below ${scores.length}, the size of the vocabulary`); // prettier-ignore
    scores[id]! += bias;
  }
}

/** The index of the largest value; of equal values, the first. */
function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Probabilities of the scores. The largest score is subtracted first, so that no temperature makes the weights overflow. */
function softmax(scores: Float64Array, temperature: number): Float64Array {
  const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map((score) => Math.exp((score - max) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** Zeroes the weights below the kth largest; weights equal to it stay. */
function keepLargest(weights: Float64Array, k: number): void {
  const least = weights.toSorted()[weights.length - k]!;
  for (const [i, w] of weights.entries()) if (w < least) weights[i] = 0;
}

function keepNucleus(weights: Float64Array, p: number): void {
  const total = weights.reduce((a, b) => a + b, 0);
  const order = Array.from(weights.keys()).sort((a, b) => weights[b]! - weights[a]! || a - b);
  let sum = 0;
  for (const i of order) {
    if (sum >= p * total) weights[i] = 0;
    else sum += weights[i]!;
  }
}

/** Draws an index by inverting the cumulative distribution, with 48 random bits. */
function draw(weights: Float64Array, key: Key): number {
  const [high, low] = uniformArray(key, 2) as Float32Array & { 0: number; 1: number };
  const total = weights.reduce((a, b) => a + b, 0);
  let rest = (high + low * 2 ** -24) * total;
  let last = 0;
  for (const [i, w] of weights.entries()) {
    if (w === 0) continue;
    last = i;
    rest -= w;
    if (rest < 0) return i;
  }
  return last;
}
