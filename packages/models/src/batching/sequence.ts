/** One sequence of a continuous batch: its tokens, how the next one is chosen, and the queue of those that nobody has read yet. */
import { key, type Key } from "@tiedlora/core";
import { DEFAULT_TOKENS, type GenerateOptions } from "../generate.ts";
import { logprobsOf, type TokenLogprob } from "../logprobs.ts";
import { sampleToken } from "../sampling.ts";
import { NO_ADAPTER } from "./arrangement.ts";

/** Options of one sequence of a `ContinuousBatch`. */
export interface SequenceRequest extends Omit<GenerateOptions, "adapters" | "signal"> {
  /** The name of the adapter that the sequence goes through, active or not. Default: none. */
  readonly adapter?: string;
  /** Give the log-probability of each token, and this many of the likeliest tokens in its place. Default: none of both. */
  readonly logprobs?: number;
}

/** A token of a sequence. */
export interface GeneratedToken {
  readonly token: number;
  /** log p of the token in the model's own distribution; only if log-probabilities were asked for. */
  readonly logprob?: number;
  /** The likeliest tokens in its place, as many as were asked for. */
  readonly top?: readonly TokenLogprob[];
}

/** The tokens of a sequence as they are generated. Leaving the loop over it early gives its place in the batch to another. */
export class TokenStream implements AsyncIterableIterator<GeneratedToken> {
  readonly #ready: GeneratedToken[] = [];
  readonly #onLeft: () => void;
  #ended = false;
  #error: unknown = null;
  #wake: (() => void) | null = null;

  /** @param onLeft called when the reader leaves before the end */
  constructor(onLeft: () => void) {
    this.#onLeft = onLeft;
  }

  /** Adds a token. */
  push(token: GeneratedToken): void {
    this.#ready.push(token);
    this.#wake?.();
  }

  /** Ends the stream after the tokens so far; with an error, that is thrown there. */
  end(error: unknown = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  /** The next token, as soon as it is there. Throws if the batch has failed. */
  async next(): Promise<IteratorResult<GeneratedToken, undefined>> {
    while (this.#ready.length === 0 && !this.#ended)
      await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#wake = null;
    const value = this.#ready.shift();
    if (value !== undefined) return { done: false, value };
    if (this.#error !== null) throw this.#error;
    return { done: true, value: undefined };
  }

  /** Ends the sequence early, and frees its place in the batch. */
  return(): Promise<IteratorResult<GeneratedToken, undefined>> {
    if (!this.#ended) this.#onLeft();
    this.#ready.length = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** The stream itself, for `for await`. */
  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** A sequence that waits for a place, or has one. */
export class Sequence {
  /** The prompt and the tokens so far. */
  readonly ids: number[];
  readonly adapter: string;
  readonly stream: TokenStream;
  readonly #request: SequenceRequest;
  readonly #stops: ReadonlySet<number>;
  readonly #most: number;
  readonly #root: Key;
  /** The number of tokens of the prompt. */
  readonly #prompt: number;
  #step = 0;
  #done = false;

  constructor(prompt: readonly number[], request: SequenceRequest, stops: ReadonlySet<number>) {
    this.ids = [...prompt];
    this.#prompt = prompt.length;
    this.adapter = request.adapter ?? NO_ADAPTER;
    this.#request = request;
    this.#stops = stops;
    this.#most = request.maxTokens ?? DEFAULT_TOKENS;
    this.#root = key(request.seed ?? 0)
      .fold("generate")
      .fold(0);
    this.stream = new TokenStream(() => (this.#done = true));
  }

  /** Whether the sequence needs no more tokens: it has ended or failed, or its reader has left. */
  get done(): boolean {
    return this.#done;
  }

  /** Takes the next token, from the model's scores [vocab]. Scores that are not numbers end the sequence with an error. */
  take(scores: ArrayLike<number>): void {
    if (this.#done) return;
    try {
      const token = sampleToken(scores, this.#request, this.ids, this.#root.fold(this.#step++), this.#prompt); // prettier-ignore
      this.ids.push(token);
      if (this.#stops.has(token)) return this.#end();
      const { logprobs } = this.#request;
      this.stream.push({ token, ...(logprobs !== undefined && logprobsOf(scores, token, logprobs)) });
      if (this.#step === this.#most) this.#end();
    } catch (error) {
      this.fail(error);
    }
  }

  #end(): void {
    this.#done = true;
    this.stream.end();
  }

  /** Ends the sequence with an error. */
  fail(error: unknown): void {
    this.#done = true;
    this.stream.end(error);
  }
}
