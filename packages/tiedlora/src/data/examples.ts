/** Examples: the prompt of a record, and the answer that the model should learn. */
import { describeValue } from "@tiedlora/core";
import { nearest } from "../nearest.ts";
import { DataError } from "./errors.ts";
import { type Message, messagesField, shareGptMessages, toolsOf, wellFormed } from "./messages.ts";
import { promptReader } from "./prompts.ts";
import type { DataRecord } from "./records.ts";

/** A prompt and its completion; the completion is learned. */
export interface TextExample {
  /** The prompt. If it is empty, every token but the first is learned. */
  readonly prompt: string;
  readonly completion: string;
  readonly line: number;
}

/** A conversation, written by the model's chat template; the assistant's turns are learned. */
export interface ChatExample {
  readonly messages: readonly Message[];
  /** The first message that may be learned, of the assistant's. Default: 0. */
  readonly from?: number;
  /** Descriptions of the tools that the assistant can call, for the template. */
  readonly tools?: readonly unknown[];
  readonly line: number;
}

/** An example to learn from. */
export type Example = TextExample | ChatExample;

export function isChat(example: Example): example is ChatExample {
  return "messages" in example;
}

export interface Columns {
  readonly prompt?: string | undefined;
  readonly completion?: string | undefined;
  /** A template of the prompt, from several fields: "alpaca", or a text such as "Question: {question}". */
  readonly template?: string | undefined;
}

/** Reads examples out of the records of one file. */
export type ToExample = (record: DataRecord) => Example;

/**
 * Returns the reader for the records of `file`, chosen by its first record. It reads the given columns, or else the first set of
 * common names that the record has: `messages` (a chat); `conversations` (ShareGPT); `prompt` and `completion`, texts or lists of
 * messages; `instruction`, `input` (optional) and `output`
 * (Alpaca); `text`. Throws DataError if there is none, or if a given column does not exist.
 */
export function exampleReader(file: string, first: DataRecord, columns: Columns = {}): ToExample {
  const text = (record: DataRecord, name: string): string => textField(file, record, name);
  const { prompt, completion, template } = columns;
  if (template !== undefined) return promptReader(file, first, template, completion, text);
  if (prompt !== undefined && completion === undefined) {
    const have = Object.keys(first.fields).join(", ");
    throw new DataError(
      file,
      null,
      `a prompt column is given but no completion column; the file has ${have}`,
    );
  }
  if (completion !== undefined) {
    if (prompt !== undefined) checkColumn(file, first, prompt);
    checkColumn(file, first, completion);
    return (record) => ({
      prompt: prompt === undefined ? "" : text(record, prompt),
      completion: text(record, completion),
      line: record.line,
    });
  }
  const has = (...names: string[]): boolean => names.every((name) => name in first.fields);
  if (has("messages")) return (r) => chatOf(file, r, messagesField(file, r, "messages"));
  if (has("conversations")) return (r) => chatOf(file, r, shareGptMessages(file, r));
  if (has("prompt", "completion") && Array.isArray(first.fields["prompt"]))
    return (r) => conversation(file, r);
  if (has("prompt", "completion"))
    return (r) => ({ prompt: text(r, "prompt"), completion: text(r, "completion"), line: r.line });
  if (has("instruction", "output")) return (record) => alpaca(file, record);
  if (has("text")) return (r) => ({ prompt: "", completion: text(r, "text"), line: r.line });
  throw new DataError(
    file,
    first.line,
    `cannot tell prompt and completion apart: the fields are ${Object.keys(first.fields).join(", ")}; expected ` +
      `prompt and completion, messages, conversations, instruction and output, or text, or columns named with --prompt-column and ` +
      `--completion-column`,
  );
}

function checkColumn(file: string, record: DataRecord, name: string): void {
  if (name in record.fields) return;
  const names = Object.keys(record.fields);
  const close = nearest(name, names);
  throw new DataError(
    file,
    record.line,
    `there is no column "${name}"; there are ${names.join(", ")}${close === null ? "" : ` (did you mean "${close}"?)`}`,
  );
}

function textField(file: string, record: DataRecord, name: string): string {
  const value = record.fields[name];
  if (typeof value === "string") return wellFormed(file, record, `"${name}"`, value);
  if (typeof value === "number") return String(value);
  const found = value === undefined ? "is missing" : `is ${describeValue(value, 40)}`;
  throw new DataError(file, record.line, `"${name}" ${found}; expected text`);
}

/** The Stanford Alpaca layout, with its instruction and optional input as the prompt. */
function alpaca(file: string, record: DataRecord): TextExample {
  const instruction = textField(file, record, "instruction");
  const input = record.fields["input"] === undefined ? "" : textField(file, record, "input");
  return {
    prompt: input === "" ? instruction : `${instruction}\n${input}`,
    completion: textField(file, record, "output"),
    line: record.line,
  };
}

/** A chat of messages, with the tools that the record describes. */
function chatOf(file: string, record: DataRecord, messages: readonly Message[]): ChatExample {
  const tools = toolsOf(file, record);
  return { messages, line: record.line, ...(tools && { tools }) };
}

/** Prompt and completion as lists of messages (TRL's conversational layout), which are one chat. */
function conversation(file: string, record: DataRecord): ChatExample {
  const { prompt, completion } = record.fields;
  if (!Array.isArray(prompt) || !Array.isArray(completion))
    throw new DataError(
      file,
      record.line,
      `"${Array.isArray(prompt) ? "completion" : "prompt"}" is text, and in other records a list of messages; expected the same in all`,
    );
  const messages = [...messagesField(file, record, "prompt"), ...messagesField(file, record, "completion")];
  return { ...chatOf(file, record, messages), from: prompt.length };
}
