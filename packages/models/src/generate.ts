/** Generation: a prompt is read once, and each further token costs one position; rows of a batch may differ in length. */
import { key } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/arguments";
import type { AdapterOptions } from "./adapter-choice.ts";
import type { KvCache } from "./cache.ts";
import { cacheFor, leftPadded, nextLogits } from "./decode.ts";
import type { Decoder } from "./decoder.ts";
import { checkSampling, sampleToken, type SamplingOptions } from "./sampling.ts";
import { TextStream } from "./stream.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options of generating tokens and of ending a row. */
export interface GenerateOptions extends SamplingOptions, AdapterOptions {
  /** The most new tokens of a row. Default 128. */
  readonly maxTokens?: number;
  /** Tokens that end a row; they are not yielded. Default: the end-of-text tokens of the model's config. */
  readonly stopTokens?: readonly number[];
  /** The seed of sampling; the same seed gives the same tokens. Default 0. */
  readonly seed?: number;
  /** Ends the generation early. */
  readonly signal?: AbortSignal;
}

/** As GenerateOptions, for text. */
export interface TextOptions extends GenerateOptions {
  /** Strings that end a text; they are not part of it. */
  readonly stop?: readonly string[];
}

export const DEFAULT_TOKENS = 128;

/**
 * Generates token by token: yields, at each step, the new token of each row; null for rows that have ended. Throws RangeError
 * for an empty prompt, an option that is out of range, or more positions than the model has learned.
 * @param prompts token ids; at least one each, lengths may differ
 */
export async function* generateTokens(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions = {},
): AsyncGenerator<(number | null)[], void, undefined> {
  if (!Array.isArray(prompts) || !prompts.every((prompt) => Array.isArray(prompt)))
    refuse("generateTokens", prompts, "list of prompts", "an array of arrays of token ids, one for each row");
  const { maxTokens = DEFAULT_TOKENS, seed = 0, signal } = checkOptions("generateTokens", options, "{ maxTokens: 20 }"); // prettier-ignore
  checkSampling(options);
  checkPrompts(model, prompts, maxTokens);
  const stops = new Set(options.stopTokens ?? model.config.eos);
  const seen = prompts.map((prompt) => [...prompt]);
  const done = prompts.map(() => false);
  const root = key(seed).fold("generate");
  let cache: KvCache | null = null;
  try {
    for (let step = 0; step < maxTokens && done.includes(false); step++) {
      signal?.throwIfAborted();
      if (cache?.stale) {
        cache.free();
        cache = null;
      }
      const input = cache ? seen.map((ids) => [ids.at(-1)!]) : leftPadded(seen);
      cache ??= cacheFor(model, input, seen);
      const logits = await nextLogits(model, input, cache, options);
      const vocab = model.config.vocab;
      const tokens = done.map((ended, row): number | null => {
        if (ended) return null;
        const scores = logits.subarray(row * vocab, (row + 1) * vocab);
        const token = sampleToken(scores, options, seen[row]!, root.fold(row).fold(step), prompts[row]!.length); // prettier-ignore
        seen[row]!.push(token);
        done[row] = stops.has(token);
        return done[row] ? null : token;
      });
      if (tokens.some((token) => token !== null)) yield tokens;
    }
  } finally {
    cache?.free();
  }
}

export function checkPrompts(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  maxTokens: number,
): void {
  if (prompts.length === 0 || prompts.some((prompt) => prompt.length === 0)) {
    throw new RangeError(
      "generate: a prompt is empty; give at least one token, e.g. the beginning-of-text token",
    );
  }
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new RangeError(`maxTokens: ${maxTokens} was given; need a whole number from 1 on`);
  }
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  const { rope, maxPositions } = model.config;
  const front = rope === null ? model.positionsInFront : 0;
  if (rope === null && front + longest + maxTokens - 1 > maxPositions) {
    const behind = front === 0 ? "" : ` behind ${front} positions of an adapter`;
    throw new RangeError(
      `generate: a prompt of ${longest} tokens${behind} and ${maxTokens} new ones exceed the ${maxPositions} positions that the ` +
        `model has learned; shorten the prompt or lower maxTokens`,
    );
  }
}

/** A text, or token ids if it must not be encoded as plain text is: a chat template, for example, writes special tokens itself. */
export type Prompt = string | readonly number[];

/** Continues texts. A stop string or an end-of-text token ends a text; neither is part of the result. */
export async function generateText(
  model: Decoder,
  tokenizer: Tokenizer,
  prompts: readonly Prompt[],
  options: TextOptions = {},
): Promise<string[]> {
  const texts = prompts.map(() => "");
  for await (const { row, text } of streamTexts(model, tokenizer, prompts, options)) texts[row] += text;
  return texts;
}

/** Continues one text, piece by piece: yields whole characters, and holds back text that may be the start of a stop string. */
export async function* streamText(
  model: Decoder,
  tokenizer: Tokenizer,
  prompt: Prompt,
  options: TextOptions = {},
): AsyncGenerator<string, void, undefined> {
  for await (const { text } of streamTexts(model, tokenizer, [prompt], options)) yield text;
}

/** Continues texts; yields their pieces as they are generated, each with the row that it belongs to. */
export async function* streamTexts(
  model: Decoder,
  tokenizer: Tokenizer,
  prompts: readonly Prompt[],
  options: TextOptions = {},
): AsyncGenerator<{ row: number; text: string }, void, undefined> {
  const ids = prompts.map((prompt) => (typeof prompt === "string" ? tokenizer.encode(prompt) : prompt));
  const stops = options.stopTokens ?? stopTokensOf(model, tokenizer);
  const streams = ids.map((prompt) => new TextStream(tokenizer, prompt, options.stop ?? []));
  for await (const tokens of generateTokens(model, ids, { ...options, stopTokens: stops })) {
    for (const [row, token] of tokens.entries()) {
      const text = token === null ? "" : streams[row]!.push(token);
      if (text !== "") yield { row, text };
    }
    if (streams.every((stream, row) => stream.stopped || tokens[row] === null)) break;
  }
  for (const [row, stream] of streams.entries()) {
    const text = stream.end();
    if (text !== "") yield { row, text };
  }
}

/** The tokens that end a text: the model's own, and the tokenizer's. */
export function stopTokensOf(model: Decoder, tokenizer: Tokenizer): number[] {
  const { eosId } = tokenizer;
  return [...new Set([...model.config.eos, ...(eosId === null ? [] : [eosId])])];
}
