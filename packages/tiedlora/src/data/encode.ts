/** Encodes examples as token sequences for training, and marks the tokens that count in the loss. */
import { nearest } from "../nearest.ts";
import { isChat, type ChatExample, type Example, type TextExample } from "./examples.ts";
import type { Message } from "./messages.ts";

/** The part of a tokenizer that encoding examples needs. */
export interface TextEncoderLike {
  /**
   * Returns the tokens of a text, including the special tokens that begin a sequence, if the model has any, unless `specialTokens`
   * is false.
   */
  encode(text: string, options?: { readonly specialTokens?: boolean }): readonly number[];
  /** The token that ends a completion; null: the model has none. */
  readonly eosId: number | null;
  /** The token for text that the vocabulary cannot represent; null or undefined: there is none. */
  readonly unkId?: number | null;
  /** The text of a token in the vocabulary, for messages. */
  token?(id: number): string | undefined;
  /** Whether the model has a chat template. Default: true if `chat` is defined. */
  readonly hasChatTemplate?: boolean;
  /** Whether the chat template mentions a role. */
  namesRole?(role: string): boolean;
  /** Writes a chat as text, special tokens included, by the model's own template. Only chats need it. */
  chat?(
    messages: readonly { readonly role: string; readonly content: string }[],
    options?: {
      readonly addGenerationPrompt?: boolean;
      readonly variables?: Readonly<Record<string, unknown>>;
    },
  ): string;
}

/** The tokens from `start` up to, but not including, `end`. */
export type Span = readonly [start: number, end: number];

/** An example as tokens, with the spans of them that are learned. */
export interface EncodedExample {
  readonly tokens: Int32Array;
  /** The tokens that count in the loss: ranges in ascending order, none of them empty. The first token never counts. */
  readonly spans: readonly Span[];
  /** The start of each example that was packed into this sequence; packed examples do not attend to each other. */
  readonly starts?: readonly number[];
  readonly line: number;
  readonly truncated: boolean;
  /** The second row of an example that has two: the rejected answer of a pair; for KTO, the answer to another prompt. */
  readonly beside?: EncodedExample;
  /** Whether a labeled answer is a desirable one. */
  readonly label?: boolean;
}

/** How an example becomes tokens. */
export interface EncodeOptions {
  /** The largest number of tokens in a sequence; further tokens are cut off at the end. */
  readonly maxLength: number;
  /**
   * The text between every prompt and its completion, which is not learned; at generation it must follow the prompt (see
   * `promptTokens`). Default: one space, which is learned as part of the completion, or nothing if the prompt ends or the
   * completion begins with white space.
   */
  readonly separator?: string;
}

/**
 * Encodes an example. Returns null if nothing of it can be learned within `maxLength`: its prompt leaves no room, or its completion
 * is empty. Prompt and completion are tokenized together; a token that spans both counts as part of the completion. In a chat, the
 * assistant's turns count. Throws if a chat cannot be written by the template.
 */
export function encodeExample(
  example: Example,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  if (isChat(example)) return encodeChatFrom(example.from ?? 0, example, tokenizer, options);
  if (example.completion === "") return null;
  return kept(example, encodeText(example, tokenizer, options.separator), options);
}

/** As `encodeExample` for a chat of which only the messages from `first` on are learned, those of the assistant. */
export function encodeChatFrom(
  first: number,
  example: ChatExample,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  try {
    return kept(example, encodeChat(example, tokenizer, first), options);
  } catch (cause) {
    throw new ChatError((cause as Error).message, { cause });
  }
}

/** A chat cannot be written by the template. */
export class ChatError extends Error {}

/** What of an example fits into `maxLength`; null if nothing that is learned does. */
function kept(example: Example, { all, spans }: Encoded, options: EncodeOptions): EncodedExample | null {
  const tokens = Int32Array.from(all.slice(0, options.maxLength));
  const inside = spans
    .map(([start, end]): Span => [Math.max(start, 1), Math.min(end, tokens.length)])
    .filter(([start, end]) => end > start);
  if (inside.length === 0) return null;
  return { tokens, spans: inside, line: example.line, truncated: all.length > options.maxLength };
}

interface Encoded {
  readonly all: readonly number[];
  readonly spans: readonly Span[];
}

function encodeText(
  { prompt, completion }: TextExample,
  tokenizer: TextEncoderLike,
  separator: string | undefined,
): Encoded {
  const spaced = prompt === "" || /\s$/.test(prompt) || /^\s/.test(completion);
  const joint = prompt === "" ? "" : (separator ?? (spaced ? "" : " "));
  const all = [...tokenizer.encode(prompt + joint + completion)];
  if (tokenizer.eosId !== null && all.at(-1) !== tokenizer.eosId) all.push(tokenizer.eosId);
  const given =
    separator === undefined ? tokenizer.encode(prompt) : promptTokens(tokenizer, prompt, separator);
  return { all, spans: [[prompt === "" ? 1 : commonPrefix(given, all), all.length]] };
}

/**
 * The tokens of a prompt for a model that was trained with `separator`. White space at the end of prompt and separator is left out
 * if the tokenizer would join it with a following word: the model has learned it as the beginning of the answer.
 */
export function promptTokens(
  tokenizer: Pick<TextEncoderLike, "encode">,
  prompt: string,
  separator: string,
): readonly number[] {
  const text = prompt + separator;
  const tokens = tokenizer.encode(text);
  if (!/\s$/.test(text)) return tokens;
  const followed = tokenizer.encode(`${text}x`);
  return tokens.slice(0, Math.max(1, commonPrefix(tokens, followed)));
}

/**
 * Encodes a chat. A template may write a turn differently if other turns follow it (for example, leave out an assistant's
 * reasoning). If the text of the chat up to such a turn is not a prefix of the whole text, the turn is context and not learned.
 */
function encodeChat({ messages, tools }: ChatExample, tokenizer: TextEncoderLike, first: number): Encoded {
  if (tokenizer.chat === undefined || tokenizer.hasChatTemplate === false)
    throw new Error(
      "the model has no chat template, and was not trained on chats. Take a model that was (an instruct model), put the " +
        "template of one as chat_template.jinja beside the model's tokenizer.json, or give prompt and completion instead of messages",
    );
  checkRoles(messages, tokenizer);
  const tokensOf = (text: string): readonly number[] => tokenizer.encode(text, { specialTokens: false });
  const write = (some: readonly Message[], addGenerationPrompt: boolean): string =>
    tokenizer.chat!(some, { addGenerationPrompt, ...(tools && { variables: { tools } }) });
  const whole = write(messages, false);
  checkWhole(messages, whole);
  const all = tokensOf(whole);
  const spans: Span[] = [];
  for (const [i, { role }] of messages.entries()) {
    if (role !== "assistant" || i < first) continue;
    const before = write(messages.slice(0, i), true);
    const after = write(messages.slice(0, i + 1), false);
    if (!whole.startsWith(before) || !whole.startsWith(after)) continue;
    const end = after.length === whole.length ? all.length : commonPrefix(tokensOf(after), all);
    spans.push([commonPrefix(tokensOf(before), all), end]);
  }
  return { all, spans };
}

/** The roles in chats, by their names in Hugging Face's templates. */
const ROLES: readonly string[] = ["system", "developer", "user", "assistant", "tool", "function"];
/** Names of roles in other formats -> roles in `ROLES`, for suggestions in errors. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  human: "user",
  prompter: "user",
  gpt: "assistant",
  bot: "assistant",
  chatbot: "assistant",
  model: "assistant",
  ai: "assistant",
};

/** Throws for an unknown role. Most templates write any role, so the model would be trained on a role that it has never seen. */
function checkRoles(messages: readonly Message[], tokenizer: TextEncoderLike): void {
  const i = messages.findIndex(({ role }) => !ROLES.includes(role) && tokenizer.namesRole?.(role) !== true);
  if (i < 0) return;
  const { role } = messages[i]!;
  const meant = OTHER_NAMES[role.toLowerCase()] ?? nearest(role.toLowerCase(), ROLES);
  throw new Error(
    `messages[${i}] has the role ${JSON.stringify(role)}, which the chat template does not name; expected ` +
      `${ROLES.join(", ")}${meant === null ? "" : ` (did you mean "${meant}"?)`}`,
  );
}

/** Throws if the template has left out a system or user message, as some do with messages that they do not expect. */
function checkWhole(messages: readonly Message[], whole: string): void {
  const i = messages.findIndex(
    ({ role, content }) => (role === "system" || role === "user") && !whole.includes(content.trim()),
  );
  if (i >= 0)
    throw new Error(
      `the chat template leaves out messages[${i}], of the role "${messages[i]!.role}": the model would not see it; put ` +
        "its text into a message that the template writes, such as the first of the user",
    );
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
}
