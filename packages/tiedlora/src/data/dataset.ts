/** A file of examples, encoded for training. */
import {
  ChatError,
  encodeExample,
  type EncodedExample,
  type EncodeOptions,
  type TextEncoderLike,
} from "./encode.ts";
import { DataError } from "./errors.ts";
import { exampleReader, isChat, type Columns, type Example } from "./examples.ts";
import { type DataRecord, formatOf, readRecords } from "./records.ts";
import type { TextFile } from "./text.ts";
import { type Unknown, UnknownCharacters } from "./unknown.ts";

/** A file of examples as tokens, and a record of the examples that were cut or left out. */
export interface Dataset {
  readonly examples: readonly EncodedExample[];
  /** The first example as text, for showing the model's answer to its prompt. */
  readonly sample: Example;
  /** The number of examples whose end was cut off. */
  readonly truncated: number;
  /** Lines of examples that were left out because their prompt leaves no room for a completion. */
  readonly skipped: readonly number[];
  /** Lines of examples that were left out because their completion is empty. */
  readonly empty: readonly number[];
  /** Lines of chats that were left out because they have no message of the assistant. */
  readonly unanswered: readonly number[];
  /** Lines of pairs that were left out because both answers have the same tokens, so that nothing is preferred. */
  readonly equal: readonly number[];
  /** Characters that the tokenizer does not know; null if it knows all. */
  readonly unknown: Unknown | null;
  /** A hash of all tokens, by which a run can tell whether it trains on the same data as before. */
  readonly fingerprint: string;
}

/** How a file of examples is read. */
export interface DatasetOptions extends Columns, EncodeOptions {
  /** The largest number of examples that are read. Default: all. */
  readonly limit?: number;
  /**
   * The number of rows of the model's embedding: a token without a row is then an error here, instead of a loss of NaN in training.
   * Default: no check.
   */
  readonly vocab?: number;
}

/** How the records of a file become examples of one kind, and these tokens. */
export interface Layout<E extends { readonly line: number }> {
  /** Chooses the reader for the records of `file` by the first one. */
  reader(file: string, first: DataRecord, columns: Columns): (record: DataRecord) => E;
  /** The tokens; null if nothing of the example can be learned. */
  encode(example: E, tokenizer: TextEncoderLike, options: EncodeOptions): EncodedExample | null;
  /** The texts of the example, in which characters may be unknown. */
  texts(example: E): readonly string[];
  /** Why an example is left out. */
  reason(example: E): keyof LeftOut;
  /** The example as prompt and answer, for showing. */
  sample(example: E): Example;
}

/** Single texts and chats. */
export const TEXTS: Layout<Example> = {
  reader: exampleReader,
  encode: encodeExample,
  texts: (example) =>
    isChat(example) ? example.messages.map(({ content }) => content) : [example.prompt, example.completion],
  reason: (example) => {
    if (!isChat(example)) return example.completion === "" ? "empty" : "skipped";
    const answers = example.messages.filter(({ role }) => role === "assistant");
    if (answers.length === 0) return "unanswered";
    return answers.every(({ content, tool_calls: calls }) => content === "" && !calls) ? "empty" : "skipped";
  },
  sample: (example) => example,
};

/** Reads and encodes all examples of a file, piece by piece. Throws DataError with the line of a fault, or if nothing is left. */
export function loadDataset(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): Promise<Dataset> {
  return loadBy(TEXTS, file, tokenizer, options);
}

/** As `loadDataset`, for examples of any layout; `complete` may change them once all are read. */
export async function loadBy<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
  complete: (examples: EncodedExample[]) => EncodedExample[] = (examples) => examples,
): Promise<Dataset> {
  const read: EncodedExample[] = [];
  const left: LeftOut = { skipped: [], empty: [], unanswered: [], equal: [] };
  const unknown = new UnknownCharacters(tokenizer);
  let sample: Example | null = null;
  for await (const { example, encoded, reason } of encodedExamples(layout, file, tokenizer, options)) {
    if (encoded === null) {
      left[reason!].push(example.line);
      continue;
    }
    unknown.add(layout.texts(example), encoded.tokens);
    sample ??= layout.sample(example);
    read.push(encoded);
    if (read.length === options.limit) break;
  }
  if (sample === null) throw new DataError(file.name, null, nothingLeft(left, options.maxLength));
  const examples = complete(read);
  const truncated = examples.filter((example) => example.truncated).length;
  return {
    examples,
    sample,
    truncated,
    ...left,
    unknown: unknown.result(),
    fingerprint: fingerprintOf(examples),
  };
}

interface Encoded<E> {
  readonly example: E;
  readonly encoded: EncodedExample | null;
  /** Why there are no tokens; null if there are. */
  readonly reason: keyof LeftOut | null;
}

const sameTokens = (a: EncodedExample, b: EncodedExample): boolean =>
  a.tokens.length === b.tokens.length && a.tokens.every((token, i) => token === b.tokens[i]);

/** The examples of a file, one after another, and their tokens; null for those of which nothing can be learned. */
export async function* encodedExamples<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): AsyncGenerator<Encoded<E>> {
  let toExample: ((record: DataRecord) => E) | null = null;
  for await (const record of readRecords(file, formatOf(file.name))) {
    toExample ??= layout.reader(file.name, record, options);
    const example = toExample(record);
    const encoded = encodeOne(layout, file, example, tokenizer, options);
    if (encoded?.beside && sameTokens(encoded, encoded.beside))
      yield { example, encoded: null, reason: "equal" };
    else yield { example, encoded, reason: encoded === null ? layout.reason(example) : null };
  }
}

/** The lines of examples that were left out, by reason. */
interface LeftOut {
  readonly skipped: number[];
  readonly empty: number[];
  readonly unanswered: number[];
  readonly equal: number[];
}

function encodeOne<E extends { readonly line: number }>(
  layout: Layout<E>,
  file: TextFile,
  example: E,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): EncodedExample | null {
  try {
    const encoded = layout.encode(example, tokenizer, options);
    for (const row of [encoded, encoded?.beside])
      if (row) checkTokens(file, row, tokenizer, options.vocab ?? Infinity);
    return encoded;
  } catch (cause) {
    if (!(cause instanceof ChatError)) throw cause;
    throw new DataError(file.name, example.line, `this chat cannot be written: ${cause.message}`);
  }
}

function checkTokens(
  file: TextFile,
  { tokens, line }: EncodedExample,
  tokenizer: TextEncoderLike,
  vocab: number,
): void {
  const id = tokens.find((one) => one < 0 || one >= vocab);
  if (id === undefined) return;
  const text = tokenizer.token?.(id);
  throw new DataError(
    file.name,
    line,
    `token ${id}${text === undefined ? "" : ` (${JSON.stringify(text)})`} is in the tokenizer, but the model's embedding has ` +
      `rows for 0 to ${vocab - 1} alone; take the tokenizer that the model was trained with, or leave that token out`,
  );
}

function nothingLeft({ skipped, empty, unanswered, equal }: LeftOut, maxLength: number): string {
  if (skipped.length > 0)
    return (
      `nothing to learn is left: all ${skipped.length} prompts are longer than ${maxLength} tokens; give a larger ` +
      `sequence length (--seq)`
    );
  if (unanswered.length > 0)
    return (
      `none of ${unanswered.length} chats has a message of the role "assistant", and only such messages are learned; is ` +
      `the last message missing?`
    );
  if (equal.length > 0)
    return (
      `none of ${equal.length} pairs says what is preferred: their answers are equal within ${maxLength} tokens (--seq); is this ` +
      `the right file?`
    );
  if (empty.length > 0)
    return `the completions of all ${empty.length} examples are empty; is this the right column?`;
  return "the file has no examples";
}

/** The number of examples, and a hash of their tokens and spans in the manner of FNV-1a. */
export function fingerprintOf(examples: readonly EncodedExample[]): string {
  let hash = 0x811c9dc5;
  const mix = (word: number): void => {
    hash = Math.imul(hash ^ word, 0x01000193);
  };
  for (const { tokens, spans } of examples.flatMap((one) => (one.beside ? [one, one.beside] : [one]))) {
    for (const token of tokens) mix(token);
    for (const [start, end] of spans) mix(start * 65_599 + end);
  }
  return `${examples.length}-${(hash >>> 0).toString(16).padStart(8, "0")}`;
}
