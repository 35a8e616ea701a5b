/** Reads lists of messages out of records: OpenAI's layout, with tool calls, and ShareGPT's. */
import { describeValue, isRecord } from "@tiedlora/core";
import { nearest } from "../nearest.ts";
import { DataError } from "./errors.ts";
import type { DataRecord } from "./records.ts";

/** A turn of a conversation. */
export interface Message {
  readonly role: string;
  /** The text; empty for a turn that only calls tools. */
  readonly content: string;
  /** The calls of an assistant's turn, as the template wants them: arguments are an object, not text. */
  readonly tool_calls?: readonly unknown[];
  /** The call that a tool's turn answers. */
  readonly tool_call_id?: string;
  /** The name of the tool that answers, or of who speaks. */
  readonly name?: string;
  /** What the assistant has thought before it answers, which some templates write. */
  readonly reasoning_content?: string;
}

/** ShareGPT's names of roles -> the names in chat templates. */
const SHAREGPT: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  assistant: "assistant",
  system: "system",
  tool: "tool",
  observation: "tool",
};

/** The messages in a field of a record. Throws DataError unless it is a list of at least one. */
export function messagesField(file: string, record: DataRecord, name: string): Message[] {
  const messages = record.fields[name];
  if (!Array.isArray(messages) || messages.length === 0)
    throw new DataError(file, record.line, `"${name}" is not a list with at least one message`);
  return messages.map((message: unknown, i) => readMessage(file, record, `${name}[${i}]`, message));
}

/** The messages of ShareGPT's layout: a list of { from, value }. */
export function shareGptMessages(file: string, record: DataRecord): Message[] {
  const turns = record.fields["conversations"];
  if (!Array.isArray(turns) || turns.length === 0)
    throw new DataError(file, record.line, '"conversations" is not a list with at least one turn');
  return turns.map((turn: unknown, i): Message => {
    const what = `conversations[${i}]`;
    if (isRecord(turn) && "role" in turn) return readMessage(file, record, what, turn);
    const { from, value } = (turn ?? {}) as Record<string, unknown>;
    if (typeof from !== "string" || typeof value !== "string")
      throw new DataError(
        file,
        record.line,
        `${what} is ${describeValue(turn, 60)}; expected { "from": ..., "value": ... }, both text`,
      );
    const role = SHAREGPT[from.toLowerCase()];
    if (role !== undefined) return { role, content: wellFormed(file, record, what, value) };
    const close = nearest(from.toLowerCase(), Object.keys(SHAREGPT));
    throw new DataError(
      file,
      record.line,
      `${what} is from ${JSON.stringify(from)}; expected ${Object.keys(SHAREGPT).join(", ")}${close === null ? "" : ` (did you mean "${close}"?)`}`,
    );
  });
}

function readMessage(file: string, record: DataRecord, what: string, message: unknown): Message {
  const fail = (expected: string): never => {
    throw new DataError(file, record.line, `${what} is ${describeValue(message, 60)}; expected ${expected}`);
  };
  if (!isRecord(message)) return fail('{ "role": ..., "content": ... }, both text');
  const { role, content, tool_calls: calls } = message;
  const calling = Array.isArray(calls) && calls.length > 0;
  const text = calling ? (content ?? "") : content;
  if (typeof role !== "string" || typeof text !== "string")
    return fail('{ "role": ..., "content": ... }, both text');
  const extra: Record<string, string> = {};
  for (const key of ["tool_call_id", "name", "reasoning_content"] as const) {
    const value = message[key];
    if (value === undefined || value === null) continue;
    if (typeof value !== "string") return fail(`"${key}" to be text`);
    extra[key] = value;
  }
  return {
    role,
    content: wellFormed(file, record, what, text),
    ...extra,
    ...(calling && { tool_calls: calls.map((call) => readCall(call) ?? fail(CALL)) }),
  };
}

const CALL = 'tool calls such as { "type": "function", "function": { "name": ..., "arguments": { ... } } }';

/** A tool call whose arguments are an object, as templates want them; OpenAI's are JSON in a text. Null if it is no call. */
function readCall(call: unknown): unknown {
  if (!isRecord(call)) return null;
  const { function: inner } = call;
  const target: unknown = inner === undefined ? call : inner;
  if (!isRecord(target) || typeof target["name"] !== "string") return null;
  const read = { ...target, arguments: parsed(target["arguments"]) };
  return inner === undefined ? read : { ...call, function: read };
}

function parsed(given: unknown): unknown {
  if (typeof given !== "string") return given ?? {};
  try {
    const value: unknown = JSON.parse(given);
    return isRecord(value) ? value : given;
  } catch {
    return given; // text that is no JSON is what the model has to write
  }
}

/** The descriptions of tools that a record has; undefined if it has none. Some sets hold them as JSON in a text. */
export function toolsOf(file: string, record: DataRecord): readonly unknown[] | undefined {
  const given = record.fields["tools"];
  const tools = typeof given === "string" ? parsedList(given) : given;
  if (tools === undefined || tools === null || tools === "") return undefined;
  if (Array.isArray(tools) && tools.every(isRecord)) return tools.length === 0 ? undefined : tools;
  throw new DataError(file, record.line, `"tools" is ${describeValue(given, 60)}; expected a list of descriptions of tools`); // prettier-ignore
}

function parsedList(text: string): unknown {
  try {
    return text.trim() === "" ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return text;
  }
}

/** Throws for an unpaired surrogate, which a JSON escape can write and a tokenizer would silently replace by U+FFFD. */
export function wellFormed(file: string, record: DataRecord, what: string, text: string): string {
  const half = /\p{Surrogate}/u.exec(text)?.[0];
  if (half === undefined) return text;
  const escape = `\\u${half.charCodeAt(0).toString(16)}`;
  throw new DataError(
    file,
    record.line,
    `${what} holds ${escape} alone, half of a surrogate pair and no character; write both halves, or leave it out`,
  );
}
