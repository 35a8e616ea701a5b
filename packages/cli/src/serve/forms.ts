/** The two forms of answers: completions and chats, whole and in chunks. */
import type { readCalls } from "./tool-calls.ts";
import type { Finish, NamedToken, Piece } from "./choices.ts";

/** The counts of tokens that an answer ends with. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

/** What has been generated of one choice. */
export interface Choice {
  readonly index: number;
  readonly text: string;
  readonly tokens: readonly NamedToken[];
  readonly finish: Finish | null;
}

/** How answers of one endpoint look. */
export interface Form {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** The start of each choice in a stream; null: none. */
  readonly opening: ((index: number) => object) | null;
  /** Whether a choice is streamed as a single chunk, when it is complete. */
  readonly atOnce?: true;
  /** A choice of a whole answer; `logprobs`: whether they are wanted. */
  readonly whole: (choice: Choice, logprobs: boolean) => object;
  /** A piece of a choice in a stream. `offset`: the characters of the tokens before it. */
  readonly chunk: (index: number, piece: Piece, logprobs: boolean, offset: number) => object;
}

/** log p of a token of another distribution than finite logits have is not JSON. */
const LEAST = -9999;
const finite = (logprob: number): number => Math.max(logprob, LEAST);

function completionLogprobs(tokens: readonly NamedToken[], offset: number): object {
  let at = offset;
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logprob }) => finite(logprob!)),
    top_logprobs: tokens.map(({ alternatives }) =>
      Object.fromEntries(alternatives.map(({ text, logprob }) => [text, finite(logprob)])),
    ),
    text_offset: tokens.map(({ text }) => (at += text.length) - text.length),
  };
}

function chatLogprobs(tokens: readonly NamedToken[]): object {
  const entry = (text: string, logprob: number): object => ({
    token: text,
    logprob: finite(logprob),
    bytes: [...Buffer.from(text)],
  });
  return {
    content: tokens.map(({ text, logprob, alternatives }) => ({
      ...entry(text, logprob!),
      top_logprobs: alternatives.map((one) => entry(one.text, one.logprob)),
    })),
    refusal: null,
  };
}

export const COMPLETION_FORM: Form = {
  idPrefix: "cmpl-",
  object: "text_completion",
  chunkObject: "text_completion",
  opening: null,
  whole: ({ index, text, tokens, finish }, logprobs) => ({
    index,
    text,
    logprobs: logprobs ? completionLogprobs(tokens, 0) : null,
    finish_reason: finish,
  }),
  chunk: (index, { text, tokens, finish }, logprobs, offset) => ({
    index,
    text,
    logprobs: logprobs ? completionLogprobs(tokens, offset) : null,
    finish_reason: finish,
  }),
};

export const CHAT_FORM: Form = {
  idPrefix: "chatcmpl-",
  object: "chat.completion",
  chunkObject: "chat.completion.chunk",
  opening: (index) => ({ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }), // prettier-ignore
  whole: ({ index, text, tokens, finish }, logprobs) => ({
    index,
    message: { role: "assistant", content: text, refusal: null },
    logprobs: logprobs ? chatLogprobs(tokens) : null,
    finish_reason: finish,
  }),
  chunk: (index, { text, tokens, finish }, logprobs) => ({
    index,
    delta: text === "" && finish !== null ? {} : { content: text },
    logprobs: logprobs ? chatLogprobs(tokens) : null,
    finish_reason: finish,
  }),
};

/** As CHAT_FORM, for requests with tools: calls in the answer's text, as `read` finds them, become `tool_calls`. */
export const callingForm = (read: typeof readCalls): Form => ({
  ...CHAT_FORM,
  atOnce: true,
  whole: (choice, logprobs) => {
    const { content, calls } = read(choice.text);
    const plain = CHAT_FORM.whole(choice, logprobs);
    if (calls.length === 0) return plain;
    const message = { role: "assistant", content, refusal: null, tool_calls: calls };
    return { ...plain, message, finish_reason: "tool_calls" };
  },
  chunk: (index, piece, logprobs, offset) => {
    const { content, calls } = read(piece.text);
    const plain = CHAT_FORM.chunk(index, piece, logprobs, offset);
    if (calls.length === 0) return plain;
    const numbered = calls.map((call, i) => ({ index: i, ...call }));
    const delta = { ...(content !== null && { content }), tool_calls: numbered };
    return { ...plain, delta, finish_reason: "tool_calls" };
  },
});
