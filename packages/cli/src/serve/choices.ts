/** The text of one choice as it is generated, with the tokens that it comes from. */
import {
  type ContinuousBatch,
  type GeneratedToken,
  type SequenceRequest,
  TextStream,
  type Tokenizer,
} from "@tiedlora/models";

/** Why a choice has ended. */
export type Finish = "stop" | "length";

/** A piece of a choice: text that is certain, and the tokens since the last piece. */
export interface Piece {
  readonly text: string;
  readonly tokens: readonly NamedToken[];
  /** Null: there is more to come. */
  readonly finish: Finish | null;
}

/** A token with the text that it adds. */
export interface NamedToken extends GeneratedToken {
  readonly text: string;
  readonly alternatives: readonly { readonly text: string; readonly logprob: number }[];
}

export interface ChoiceRequest {
  readonly prompt: readonly number[];
  readonly options: SequenceRequest & { readonly maxTokens: number };
  readonly stop: readonly string[];
}

/** The pieces of a choice; the last one says why it has ended. A signal ends it early, and gives its place in the batch to another. */
export async function* piecesOf(
  batch: ContinuousBatch,
  tokenizer: Tokenizer,
  { prompt, options, stop }: ChoiceRequest,
  signal: AbortSignal,
): AsyncGenerator<Piece, void, undefined> {
  signal.throwIfAborted();
  const generated = batch.generate(prompt, options);
  const leave = (): void => void generated.return();
  signal.addEventListener("abort", leave);
  try {
    const text = new TextStream(tokenizer, prompt, stop);
    let last = prompt.at(-1)!;
    let count = 0;
    let tokens: NamedToken[] = [];
    for await (const token of generated) {
      tokens.push(named(tokenizer, last, token));
      last = token.token;
      count++;
      const piece = text.push(token.token);
      if (text.stopped) return yield { text: piece, tokens, finish: "stop" };
      if (piece === "") continue;
      yield { text: piece, tokens, finish: null };
      tokens = [];
    }
    signal.throwIfAborted();
    yield { text: text.end(), tokens, finish: count === options.maxTokens && !text.stopped ? "length" : "stop" }; // prettier-ignore
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

function named(tokenizer: Tokenizer, last: number, token: GeneratedToken): NamedToken {
  if (token.logprob === undefined) return { ...token, text: "", alternatives: [] };
  const before = tokenizer.decode([last]);
  // decoded after another token, since a tokenizer may drop the space at the start of a text
  const textOf = (id: number): string => tokenizer.decode([last, id]).slice(before.length);
  const alternatives = token.top!.map((one) => ({ text: textOf(one.token), logprob: one.logprob }));
  return { ...token, text: textOf(token.token), alternatives };
}
