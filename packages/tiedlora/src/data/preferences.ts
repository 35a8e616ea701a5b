/**
 * Preferences in TRL's formats: pairs of a chosen and a rejected answer, and single answers with a label. Prompt and answers are text,
 * or lists of messages; a pair without a prompt has what its answers begin with in common.
 */
import { describeValue } from "@tiedlora/core";
import { loadBy, type Dataset, type DatasetOptions, type Layout } from "./dataset.ts";
import {
  encodeChatFrom,
  encodeExample,
  type EncodedExample,
  type EncodeOptions,
  type TextEncoderLike,
} from "./encode.ts";
import { DataError } from "./errors.ts";
import type { Example } from "./examples.ts";
import { type Message, messagesField, toolsOf, wellFormed } from "./messages.ts";
import type { DataRecord } from "./records.ts";
import type { TextFile } from "./text.ts";

/** Text, or messages. */
type Turn = string | readonly Message[];

/** A prompt, and one or two answers. */
interface Answers {
  readonly prompt: Turn;
  readonly tools: readonly unknown[] | undefined;
  readonly line: number;
}

export interface Pair extends Answers {
  readonly chosen: Turn;
  readonly rejected: Turn;
}

interface Labeled extends Answers {
  readonly completion: Turn;
  readonly label: boolean;
}

/**
 * Reads pairs for `losses.dpo` and `losses.orpo`: `prompt`, `chosen` and `rejected`, each a text or a list of messages, or `chosen` and
 * `rejected` alone. Throws DataError with the line of a fault, such as a pair without a rejected answer.
 */
export function loadPreferences(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): Promise<Dataset> {
  return loadBy(PAIRS, file, tokenizer, options);
}

/**
 * Reads answers with a label for `losses.kto`: `prompt`, `completion`, and `label`, which is true for a desirable answer. Each gets the
 * answer of the example before it as a second row, from which the loss estimates its reference point. Throws DataError with the line of
 * a fault, or if there is only one example.
 */
export async function loadLabeled(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): Promise<Dataset> {
  const kept: Labeled[] = [];
  const layout: Layout<Labeled> = {
    ...LABELED,
    encode: (example, ...rest) => {
      const encoded = LABELED.encode(example, ...rest);
      if (encoded !== null) kept.push(example);
      return encoded;
    },
  };
  return loadBy(layout, file, tokenizer, options, (examples) => {
    if (examples.length < 2)
      throw new DataError(
        file.name,
        null,
        "there is one example; KTO compares each with the answer of another: give at least two",
      );
    return examples.map((example, i) => {
      const { completion } = kept.at(i - 1)!;
      const { prompt, tools, line } = kept[i]!;
      // answers of another kind than the prompt cannot follow it; a set has one kind
      const beside = typeof completion === typeof prompt ? encodeAnswer({ prompt, tools, line }, completion, tokenizer, options) : null; // prettier-ignore
      return { ...example, beside: beside ?? example };
    });
  });
}

/** Pairs of a chosen and a rejected answer. */
export const PAIRS: Layout<Pair> = {
  reader: (file, first) => {
    if ("completion" in first.fields && "label" in first.fields && !("chosen" in first.fields))
      throw new DataError(file, first.line, "these are single answers with a label; this loss needs pairs, with chosen and rejected. Train these by --loss kto"); // prettier-ignore
    return (record) => readPair(file, record);
  },
  encode: (pair, tokenizer, options) => {
    const chosen = encodeAnswer(pair, pair.chosen, tokenizer, options);
    const rejected = encodeAnswer(pair, pair.rejected, tokenizer, options);
    return (
      chosen && rejected && { ...chosen, beside: rejected, truncated: chosen.truncated || rejected.truncated }
    );
  },
  texts: ({ prompt, chosen, rejected }) => [prompt, chosen, rejected].flatMap(textsOf),
  reason: ({ chosen, rejected }) => (isEmpty(chosen) || isEmpty(rejected) ? "empty" : "skipped"),
  sample: ({ prompt, chosen, line, tools }) => sampleOf(prompt, chosen, line, tools),
};

const LABELED: Layout<Labeled> = {
  reader: (file, first) => {
    if ("chosen" in first.fields && "rejected" in first.fields)
      throw new DataError(file, first.line, "these are pairs; KTO needs single answers with a label: prompt, completion, label. Train pairs by --loss dpo or orpo"); // prettier-ignore
    return (record) => readLabeled(file, record);
  },
  encode: (example, tokenizer, options) => {
    const encoded = encodeAnswer(example, example.completion, tokenizer, options);
    return encoded && { ...encoded, label: example.label };
  },
  texts: ({ prompt, completion }) => [prompt, completion].flatMap(textsOf),
  reason: ({ completion }) => (isEmpty(completion) ? "empty" : "skipped"),
  sample: ({ prompt, completion, line, tools }) => sampleOf(prompt, completion, line, tools),
};

function readPair(file: string, record: DataRecord): Pair {
  const { line } = record;
  const missing = (name: string): string =>
    `"${name}" is missing: a pair has a chosen and a rejected answer. Add it, or leave the pair out; single answers with a label are trained by --loss kto`;
  const [chosen, rejected] = (["chosen", "rejected"] as const).map((name) =>
    turnField(file, record, name, missing(name)),
  ) as [Turn, Turn];
  const tools = toolsOf(file, record);
  if (record.fields["prompt"] !== undefined) {
    const prompt = turnField(file, record, "prompt", "");
    if (typeof prompt === "string" && typeof chosen !== "string" && typeof rejected !== "string")
      return { ...conversations(prompt, chosen, rejected), tools, line };
    sameKind(file, record, { prompt, chosen, rejected });
    return { prompt, chosen, rejected, tools, line };
  }
  sameKind(file, record, { chosen, rejected });
  return { ...withoutPrompt(chosen, rejected), tools, line };
}

function readLabeled(file: string, record: DataRecord): Labeled {
  const { line } = record;
  const { label } = record.fields;
  const good = label === true || label === 1 || label === "true" || label === "1";
  if (!good && label !== false && label !== 0 && label !== "false" && label !== "0")
    throw new DataError(file, line, `"label" is ${label === undefined ? "missing" : describeValue(label, 40)}; expected true for a desirable answer, false for an undesirable one`); // prettier-ignore
  const prompt = record.fields["prompt"] === undefined ? "" : turnField(file, record, "prompt", "");
  const completion = turnField(
    file,
    record,
    "completion",
    '"completion" is missing; expected the answer that the label judges',
  );
  sameKind(file, record, prompt === "" ? { completion } : { prompt, completion });
  return { prompt: prompt === "" && typeof completion !== "string" ? [] : prompt, completion, label: good, tools: toolsOf(file, record), line }; // prettier-ignore
}

function turnField(file: string, record: DataRecord, name: string, missing: string): Turn {
  const value = record.fields[name];
  if (typeof value === "string") return wellFormed(file, record, `"${name}"`, value);
  if (Array.isArray(value)) return messagesField(file, record, name);
  if (value === undefined || value === null) throw new DataError(file, record.line, missing);
  throw new DataError(
    file,
    record.line,
    `"${name}" is ${describeValue(value, 40)}; expected text, or a list of messages`,
  );
}

/** Throws unless all are texts, or all lists of messages. */
function sameKind(file: string, { line }: DataRecord, turns: Readonly<Record<string, Turn>>): void {
  const kinds = new Set(Object.values(turns).map((turn) => typeof turn));
  if (kinds.size > 1)
    throw new DataError(
      file,
      line,
      `${Object.keys(turns).join(", ")}: some are text and some are messages; expected the same for all`,
    );
}

/** Whole conversations beside their prompt as text, as in UltraFeedback; answers alone follow the prompt as a turn of the user. */
function conversations(
  prompt: string,
  chosen: readonly Message[],
  rejected: readonly Message[],
): Pick<Pair, "prompt" | "chosen" | "rejected"> {
  const turns = [chosen, rejected];
  if (turns.every(([first]) => first!.role !== "assistant")) return withoutPrompt(chosen, rejected);
  return { prompt: [{ role: "user", content: prompt }], chosen, rejected };
}

/** The prompt that two answers have in common at their beginning, as TRL extracts it. */
function withoutPrompt(chosen: Turn, rejected: Turn): Pick<Pair, "prompt" | "chosen" | "rejected"> {
  let common = 0;
  const most = Math.min(chosen.length, rejected.length);
  const at = (turn: Turn, i: number): string =>
    typeof turn === "string" ? turn[i]! : JSON.stringify(turn[i]);
  while (common < most && at(chosen, common) === at(rejected, common)) common++;
  // answers that are equal are no part of their prompt
  if (common === chosen.length && common === rejected.length)
    common = typeof chosen === "string" ? 0 : most - 1;
  if (typeof chosen === "string" && /\s/.test(chosen[common - 1] ?? "")) common--; // answers begin with their white space
  return {
    prompt: chosen.slice(0, common),
    chosen: chosen.slice(common),
    rejected: rejected.slice(common),
  };
}

function encodeAnswer(
  { prompt, tools, line }: Answers,
  answer: Turn,
  tokenizer: TextEncoderLike,
  options: EncodeOptions,
): EncodedExample | null {
  if (typeof prompt === "string" && typeof answer === "string")
    return encodeExample({ prompt, completion: answer, line }, tokenizer, options);
  const messages = [...(prompt as readonly Message[]), ...(answer as readonly Message[])];
  const chat = { messages, line, ...(tools && { tools }) };
  return encodeChatFrom(prompt.length, chat, tokenizer, options);
}

const textsOf = (turn: Turn): readonly string[] =>
  typeof turn === "string" ? [turn] : turn.map(({ content }) => content);

const isEmpty = (turn: Turn): boolean => textsOf(turn).every((text) => text === "");

function sampleOf(prompt: Turn, answer: Turn, line: number, tools: readonly unknown[] | undefined): Example {
  if (typeof prompt === "string" && typeof answer === "string") return { prompt, completion: answer, line };
  return {
    messages: [...(prompt as readonly Message[]), ...(answer as readonly Message[])],
    line,
    ...(tools && { tools }),
  };
}
