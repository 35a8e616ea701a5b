/** A file of examples, encoded for training. */
import { encodeExample, type EncodedExample, type EncodeOptions, type TextEncoderLike } from "./encode.ts";
import { DataError } from "./errors.ts";
import { exampleReader, isChat, type Columns, type Example, type ToExample } from "./examples.ts";
import { formatOf, readRecords } from "./records.ts";
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

/** Reads and encodes all examples of a file, piece by piece. Throws DataError with the line of a fault, or if nothing is left. */
export async function loadDataset(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): Promise<Dataset> {
  const examples: EncodedExample[] = [];
  const left: LeftOut = { skipped: [], empty: [], unanswered: [] };
  const unknown = new UnknownCharacters(tokenizer);
  let toExample: ToExample | null = null;
  let sample: Example | null = null;
  for await (const record of readRecords(file, formatOf(file.name))) {
    toExample ??= exampleReader(file.name, record, options);
    const example = toExample(record);
    const encoded = encodeOne(file, example, tokenizer, options);
    if (encoded === null) {
      left[reasonOf(example)].push(example.line);
      continue;
    }
    checkTokens(file, encoded, tokenizer, options.vocab ?? Infinity);
    unknown.add(textsOf(example), encoded.tokens);
    sample ??= example;
    examples.push(encoded);
    if (examples.length === options.limit) break;
  }
  if (sample === null) throw new DataError(file.name, null, nothingLeft(left, options.maxLength));
  const truncated = examples.filter((example) => example.truncated).length;
  return {
    examples,
    sample,
    truncated,
    ...left,
    unknown: unknown.result(),
    fingerprint: fingerprint(examples),
  };
}

/** The lines of examples that were left out, by reason. */
interface LeftOut {
  readonly skipped: number[];
  readonly empty: number[];
  readonly unanswered: number[];
}

function encodeOne(
  file: TextFile,
  example: Example,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  if (!isChat(example)) return encodeExample(example, tokenizer, options);
  try {
    return encodeExample(example, tokenizer, options);
  } catch (cause) {
    throw new DataError(file.name, example.line, `this chat cannot be written: ${(cause as Error).message}`);
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

/** The reason why an example is left out. */
function reasonOf(example: Example): keyof LeftOut {
  if (!isChat(example)) return example.completion === "" ? "empty" : "skipped";
  const answers = example.messages.filter(({ role }) => role === "assistant");
  if (answers.length === 0) return "unanswered";
  return answers.every(({ content }) => content === "") ? "empty" : "skipped";
}

const textsOf = (example: Example): readonly string[] =>
  isChat(example) ? example.messages.map(({ content }) => content) : [example.prompt, example.completion];

function nothingLeft({ skipped, empty, unanswered }: LeftOut, maxLength: number): string {
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
  if (empty.length > 0)
    return `the completions of all ${empty.length} examples are empty; is this the right column?`;
  return "the file has no examples";
}

/** The number of examples, and a hash of their tokens and spans in the manner of FNV-1a. */
function fingerprint(examples: readonly EncodedExample[]): string {
  let hash = 0x811c9dc5;
  const mix = (word: number): void => {
    hash = Math.imul(hash ^ word, 0x01000193);
  };
  for (const { tokens, spans } of examples) {
    for (const token of tokens) mix(token);
    for (const [start, end] of spans) mix(start * 65_599 + end);
  }
  return `${examples.length}-${(hash >>> 0).toString(16).padStart(8, "0")}`;
}
