/** Token sequences for training: what the model sees of an example, and which of its tokens count in the loss. */
import { nearest } from "../nearest.ts";
import { isChat, type ChatExample, type Example, type Message, type TextExample } from "./examples.ts";

/** The part of a tokenizer that is needed here. */
export interface TextEncoderLike {
  /**
   * Tokens of a text; with those that begin a sequence, where the model has such, unless `specialTokens` is false.
   */
  encode(text: string, options?: { readonly specialTokens?: boolean }): readonly number[];
  /** Ends a completion; null: the model has no such token. */
  readonly eosId: number | null;
  /** Stands for text that the vocabulary cannot write; null, or not given: there is none. */
  readonly unkId?: number | null;
  /** How the vocabulary writes a token: for messages. */
  token?(id: number): string | undefined;
  /** Whether the model says how to write a chat. Default: it does if there is `chat`. */
  readonly hasChatTemplate?: boolean;
  /** Whether the chat template names a role. */
  namesRole?(role: string): boolean;
  /** A chat as text, special tokens included, by the model's own template. Needed for chats alone. */
  chat?(
    messages: readonly { readonly role: string; readonly content: string }[],
    options?: { readonly addGenerationPrompt?: boolean },
  ): string;
}

/** Tokens from `start` up to `end`. */
export type Span = readonly [start: number, end: number];

/** An example as tokens, and which of them are learned. */
export interface EncodedExample {
  readonly tokens: Int32Array;
  /** The tokens that count in the loss: ranges in ascending order, none of them empty. The first token never counts. */
  readonly spans: readonly Span[];
  /** Where each of several examples begins that were packed into this one; they do not see each other. */
  readonly starts?: readonly number[];
  readonly line: number;
  readonly truncated: boolean;
}

/** How an example becomes tokens. */
export interface EncodeOptions {
  /** The most tokens of a sequence; more are cut off at the end. */
  readonly maxLength: number;
  /**
   * Put between every prompt and its completion, and not learned: a model that is trained so is given it after a prompt, see
   * `promptTokens`. Default: one space, which is learned as part of the answer, unless one of the two has white space there.
   */
  readonly separator?: string;
}

/**
 * Encodes an example; null if nothing to learn is left of it within `maxLength`: its prompt leaves no room, or its
 * completion is empty. Prompt and completion are tokenized together, as they will be seen at generation; a token that
 * spans the joint counts as part of the completion. Of a chat the assistant's turns count.
 */
export function encodeExample(
  example: Example,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  if (!isChat(example) && example.completion === "") return null;
  const { all, spans } = isChat(example)
    ? encodeChat(example, tokenizer)
    : encodeText(example, tokenizer, options.separator);
  const tokens = Int32Array.from(all.slice(0, options.maxLength));
  const kept = spans
    .map(([start, end]): Span => [Math.max(start, 1), Math.min(end, tokens.length)])
    .filter(([start, end]) => end > start);
  if (kept.length === 0) return null;
  return { tokens, spans: kept, line: example.line, truncated: all.length > options.maxLength };
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
 * The tokens that a model which was trained with `separator` is given of a prompt. White space at the end of both that
 * tokenizers join with a word that follows is left to the model: it has learned it as the beginning of the answer.
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
 * A template may write a turn differently when others follow it (it may leave out what an assistant thought). Turns whose
 * beginning is not found in the whole chat then count as context.
 */
function encodeChat({ messages }: ChatExample, tokenizer: TextEncoderLike): Encoded {
  if (tokenizer.chat === undefined || tokenizer.hasChatTemplate === false)
    throw new Error(
      "the model has no chat template, and was not trained on chats. Take a model that was (an instruct model), put the " +
        "template of one as chat_template.jinja beside the model's tokenizer.json, or give prompt and completion instead of messages",
    );
  checkRoles(messages, tokenizer);
  const tokensOf = (text: string): readonly number[] => tokenizer.encode(text, { specialTokens: false });
  const whole = tokenizer.chat(messages, { addGenerationPrompt: false });
  checkWhole(messages, whole);
  const all = tokensOf(whole);
  const spans: Span[] = [];
  for (const [i, { role }] of messages.entries()) {
    if (role !== "assistant") continue;
    const before = tokenizer.chat(messages.slice(0, i), { addGenerationPrompt: true });
    const after = tokenizer.chat(messages.slice(0, i + 1), { addGenerationPrompt: false });
    if (!whole.startsWith(before) || !whole.startsWith(after)) continue;
    const end = after.length === whole.length ? all.length : commonPrefix(tokensOf(after), all);
    spans.push([commonPrefix(tokensOf(before), all), end]);
  }
  return { all, spans };
}

/** Roles of chats, as Hugging Face's templates call them. */
const ROLES: readonly string[] = ["system", "developer", "user", "assistant", "tool", "function"];
/** What others call them. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  human: "user",
  prompter: "user",
  gpt: "assistant",
  bot: "assistant",
  chatbot: "assistant",
  model: "assistant",
  ai: "assistant",
};

/** Most templates write whatever role there is: the model would be trained on one that it has never seen. */
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

/** Some templates leave out what they do not expect, such as a system's message. */
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
