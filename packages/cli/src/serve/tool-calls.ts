/**
 * The calls of tools in a model's answer, in the form of Hermes, Qwen and others: <tool_call>{"name": ..., "arguments": {...}}</tool_call>. A
 * call that a request demands is begun for the model, which continues it.
 */
import { randomUUID } from "node:crypto";
import { isRecord } from "@tiedlora/core";
import { ApiError } from "./api-error.ts";

/** A call as OpenAI's API gives it. */
interface ToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}

const CALL = /<tool_call>([\s\S]*?)(?:<\/tool_call>|$)/g;

/** The calls in an answer, and the text before them; null if there is none. What is no call stays text. */
export function readCalls(text: string): { readonly content: string | null; readonly calls: ToolCall[] } {
  const calls = [...text.matchAll(CALL)].flatMap(([, body]) => readCall(body!) ?? []);
  if (calls.length === 0) return { content: text, calls };
  const before = text.slice(0, text.search(CALL)).trim();
  return { content: before === "" ? null : before, calls };
}

function readCall(body: string): ToolCall | null {
  let call: unknown;
  try {
    call = JSON.parse(body);
  } catch {
    return null;
  }
  if (!isRecord(call) || typeof call["name"] !== "string") return null;
  const { name, arguments: given = {} } = call;
  const text = typeof given === "string" ? given : JSON.stringify(given);
  return callOf(name, text);
}

/** How an answer begins that has to be a call of one of these tools; of a single one, the model writes the arguments alone. */
export function beginCall(names: readonly string[]): string {
  const [only, ...others] = names;
  const begin = '<tool_call>\n{"name": ';
  return others.length > 0 ? `${begin}"` : `${begin}${JSON.stringify(only)}, "arguments": `;
}

/**
 * The calls in an answer that `beginCall` has begun. Of a single tool, arguments that are no JSON are given as they are, as OpenAI's API does.
 * Throws ApiError if the model has not called one of several tools.
 */
export function readDemanded(names: readonly string[], text: string): ReturnType<typeof readCalls> {
  const found = readCalls(beginCall(names) + text);
  const [first] = found.calls;
  if (first !== undefined && found.calls.every((call) => names.includes(call.function.name))) return found;
  const [only, ...others] = names;
  if (others.length > 0)
    throw new ApiError(
      500,
      `the model has not called one of the tools ${names.join(", ")}; ask again, with a higher max_completion_tokens, or name one by tool_choice`,
    );
  const written = text.split("</tool_call>")[0]!.trim();
  return { content: null, calls: [callOf(only!, written)] };
}

const callOf = (name: string, text: string): ToolCall => ({ id: `call_${randomUUID()}`, type: "function", function: { name, arguments: text } }); // prettier-ignore
