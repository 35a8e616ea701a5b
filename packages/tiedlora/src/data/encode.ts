/** Token sequences for training: prompt and completion as the model sees them, and which tokens count in the loss. */
import type { Example } from "./examples.ts";

/** The part of a tokenizer that is needed here. */
export interface TextEncoderLike {
  /** Tokens of a text that starts a sequence, with a beginning-of-text token where the model has one. */
  encode(text: string): readonly number[];
  /** Ends a completion; null: the model has no such token. */
  readonly eosId: number | null;
}

export interface EncodedExample {
  readonly tokens: Int32Array;
  /** The first token that counts in the loss. */
  readonly answerStart: number;
  readonly line: number;
  readonly truncated: boolean;
}

export interface EncodeOptions {
  /** The most tokens of a sequence; more are cut off at the end. */
  readonly maxLength: number;
  /** Put between prompt and completion where neither has white space there. Default: one space. */
  readonly separator?: string;
}

/**
 * Encodes an example; null if its prompt leaves no room for the completion. Both parts are tokenized together, as they
 * will be seen at generation; a token that spans the joint counts as part of the completion.
 */
export function encodeExample(
  example: Example,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  const prompt = tokenizer.encode(example.prompt);
  const text = joinText(example.prompt, example.completion, options.separator ?? " ");
  const all = [...tokenizer.encode(text)];
  if (tokenizer.eosId !== null && all[all.length - 1] !== tokenizer.eosId) all.push(tokenizer.eosId);
  const answerStart = example.prompt === "" ? 1 : commonPrefix(prompt, all);
  const truncated = all.length > options.maxLength;
  const tokens = Int32Array.from(all.slice(0, options.maxLength));
  // The first token of a sequence is predicted from nothing: it never counts.
  if (tokens.length <= Math.max(answerStart, 1)) return null;
  return { tokens, answerStart: Math.max(answerStart, 1), line: example.line, truncated };
}

export function joinText(prompt: string, completion: string, separator: string): string {
  const joined = prompt === "" || /\s$/.test(prompt) || /^\s/.test(completion);
  return joined ? prompt + completion : prompt + separator + completion;
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
}
