/** The calls of tools in a model's answer, in the form of Hermes, Qwen and others: <tool_call>{"name": ..., "arguments": {...}}</tool_call>. */
import { randomUUID } from "node:crypto";
import { isRecord } from "@tiedlora/core";

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
  return { id: `call_${randomUUID()}`, type: "function", function: { name, arguments: text } };
}
