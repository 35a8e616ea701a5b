/** The bodies of requests as OpenAI's API defines them: which fields there are, what they may hold, and what they mean here. */
import { z } from "zod";
import type { ChatMessage, SequenceRequest } from "@tiedlora/models";
import { suggestion } from "tiedlora/internal";
import { ApiError } from "./api-error.ts";

/** The most likely tokens that are given for a position, and the most choices and stop strings of a request. */
const MOST_LOGPROBS = 20;
const MOST_CHOICES = 128;
const MOST_STOPS = 16;
/** The new tokens of a completion if the request does not say. */
const DEFAULT_COMPLETION = 16;

const whole = (min: number, max: number): z.ZodNumber => {
  const error = `a whole number from ${min}${max === Number.MAX_SAFE_INTEGER ? " on" : ` to ${max}`}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};
const within = (min: number, max: number): z.ZodNumber => {
  const error = `a number from ${min} to ${max}`;
  return z.number({ error }).min(min, { error }).max(max, { error });
};
const text = z.string({ error: "text" });
const flag = z.boolean({ error: "true or false" });
const positive = whole(1, Number.MAX_SAFE_INTEGER);
/** A field that this server does not support, which may be sent with the value that changes nothing. */
const only = (value: 1 | "text"): z.ZodType =>
  z.literal(value, { error: `${JSON.stringify(value)}: this server has nothing else` });
const ignored = z.unknown().optional();

const BIAS = 'numbers from -100 to 100 by token id: { "50256": -100 }';
const stopError = `a text, or up to ${MOST_STOPS} of them`;
const COMMON = {
  model: z.string({ error: "the name of a model, see GET /v1/models" }),
  max_tokens: positive.nullish(),
  temperature: within(0, 2).nullish(),
  top_p: within(0, 1).gt(0, { error: "a number above 0, up to 1" }).nullish(),
  n: whole(1, MOST_CHOICES).nullish(),
  stop: z.union([text, z.array(text).max(MOST_STOPS)], { error: stopError }).nullish(),
  seed: whole(0, Number.MAX_SAFE_INTEGER).nullish(),
  stream: flag.nullish(),
  stream_options: z.object({ include_usage: flag.nullish() }, { error: '{ "include_usage": true }' }).nullish(), // prettier-ignore
  // of vLLM
  top_k: z.union([z.literal(-1), positive], { error: "a whole number from 1 on, or -1" }).nullish(),
  repetition_penalty: within(0.001, 1000).nullish(),
  ignore_eos: flag.nullish(),
  presence_penalty: within(-2, 2).nullish(),
  frequency_penalty: within(-2, 2).nullish(),
  logit_bias: z.record(z.string().regex(/^\d+$/, { error: BIAS }), within(-100, 100), { error: BIAS }).nullish(), // prettier-ignore
  // what does not change the answer
  user: ignored,
  metadata: ignored,
  store: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
};

const promptError = "a text, a list of texts, a list of token ids, or a list of such lists";
const ids = z.array(whole(0, 2 ** 31)).min(1);
const COMPLETION = z.strictObject({
  ...COMMON,
  prompt: z.union([text, ids, z.array(text).min(1), z.array(ids).min(1)], { error: promptError }),
  logprobs: whole(0, MOST_LOGPROBS).nullish(),
  best_of: only(1).nullish(),
  echo: z.literal(false, { error: "false: this server does not repeat the prompt" }).nullish(),
  suffix: z.null({ error: "null: this server only continues prompts" }).optional(),
});

const part = z.object(
  { type: z.literal("text"), text },
  { error: '{ "type": "text", "text": ... }: this server reads text alone' },
);
const CALL = z.object(
  {
    id: text.optional(),
    type: z.literal("function").optional(),
    function: z.object({ name: text, arguments: text }),
  },
  { error: '{ "id": ..., "type": "function", "function": { "name": ..., "arguments": "{}" } }' },
);
const MESSAGE = z
  .object(
    {
      role: text,
      content: z
        .union([text, z.array(part)], { error: 'text, or a list of { "type": "text", "text": ... }' })
        .nullish(),
      tool_calls: z.array(CALL).nullish(),
      tool_call_id: text.optional(),
      name: text.optional(),
    },
    { error: '{ "role": ..., "content": ... }' },
  )
  .refine(({ content, tool_calls: calls }) => (content ?? null) !== null || (calls ?? []).length > 0, {
    path: ["content"],
    error: "text; only a message with tool_calls goes without",
  });
const TOOL = z.object(
  { type: z.literal("function"), function: z.looseObject({ name: text }) },
  { error: '{ "type": "function", "function": { "name": ..., "parameters": ... } }' },
);
const CHOICE = z.union(
  [
    z.enum(["auto", "none", "required"]),
    z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: text }) }),
  ],
  { error: '"auto", "none", "required" or { "type": "function", "function": { "name": ... } }' },
);
const CHAT = z.strictObject({
  ...COMMON,
  messages: z.array(MESSAGE, { error: "a list of messages" }).min(1, { error: "at least one message" }),
  max_completion_tokens: positive.nullish(),
  logprobs: flag.nullish(),
  top_logprobs: whole(0, MOST_LOGPROBS).nullish(),
  tools: z.array(TOOL, { error: "a list of tools" }).nullish(),
  tool_choice: CHOICE.nullish(),
  parallel_tool_calls: z.literal(true, { error: "true: a model calls as many tools as it wants" }).nullish(),
  response_format: z.object({ type: only("text") }).nullish(),
});

/** What a request for text asks for. */
export interface Wanted {
  readonly model: string;
  /** How each choice is generated, but for its seed; `maxTokens` is undefined if the request leaves it open. */
  readonly options: Omit<SequenceRequest, "adapter" | "seed">;
  /** Null: any. */
  readonly seed: number | null;
  /** The number of choices for each prompt. */
  readonly choices: number;
  readonly stop: readonly string[];
  readonly stream: boolean;
  /** End a stream with a chunk that counts the tokens. */
  readonly includeUsage: boolean;
}

export interface WantedCompletion extends Wanted {
  /** Texts, or token ids. */
  readonly prompts: readonly (string | readonly number[])[];
}

export interface WantedChat extends Wanted {
  readonly messages: readonly ChatMessage[];
  /** The tools that the model may call; empty for none. */
  readonly tools: readonly unknown[];
  /** The names of the tools of which the model must call one; null if it need not call any. */
  readonly mustCall: readonly string[] | null;
}

/** Reads the body of a request for completions. Throws ApiError with the field that is at fault. */
export function readCompletion(body: unknown): WantedCompletion {
  const read = parse(COMPLETION, body);
  const { prompt } = read;
  const several = Array.isArray(prompt) && typeof prompt[0] !== "number";
  return {
    ...wanted(read, read.max_tokens ?? DEFAULT_COMPLETION, read.logprobs ?? null),
    prompts: (several ? prompt : [prompt]) as (string | number[])[],
  };
}

/** Reads the body of a request for an answer in a chat. Throws ApiError with the field that is at fault. */
export function readChat(body: unknown): WantedChat {
  const read = parse(CHAT, body);
  const { logprobs, top_logprobs: top } = read;
  if (!logprobs && (top ?? 0) > 0)
    throw new ApiError(400, 'top_logprobs: give "logprobs": true with it', { param: "top_logprobs" });
  const maxTokens = read.max_completion_tokens ?? read.max_tokens ?? null;
  return {
    ...wanted(read, maxTokens, logprobs ? (top ?? 0) : null),
    messages: read.messages.map((message, i) => messageOf(message, `messages.${i}`)),
    tools: read.tool_choice === "none" ? [] : (read.tools ?? []),
    mustCall: mustCall(read),
  };
}

function mustCall({ tools, tool_choice: choice }: z.infer<typeof CHAT>): string[] | null {
  if (typeof choice !== "object" && choice !== "required") return null;
  const names = (tools ?? []).map((tool) => tool.function.name);
  if (names.length === 0)
    throw new ApiError(400, "tool_choice: there are no tools of which one could be called; give some", { param: "tool_choice" }); // prettier-ignore
  if (typeof choice !== "object" || choice === null) return names;
  const { name } = choice.function;
  if (names.includes(name)) return [name];
  throw new ApiError(400, `tool_choice: there is no tool "${name}"; ${suggestion(name, names, "the tools are")}`, { param: "tool_choice" }); // prettier-ignore
}

/** A message as templates want it: the arguments of calls are values, not text. */
function messageOf(
  { role, content, tool_calls: calls, ...rest }: z.infer<typeof MESSAGE>,
  param: string,
): ChatMessage {
  const parsed = (calls ?? []).map((call, i) => {
    try {
      return { ...call, function: { ...call.function, arguments: JSON.parse(call.function.arguments) as unknown } }; // prettier-ignore
    } catch {
      const at = `${param}.tool_calls.${i}.function.arguments`;
      throw new ApiError(400, `${at} is ${shown(call.function.arguments)}; expected JSON, as text`, { param: at }); // prettier-ignore
    }
  });
  return {
    role: role === "developer" ? "system" : role,
    content: typeof content === "string" ? content : (content ?? []).map((one) => one.text).join(""),
    ...rest,
    ...(parsed.length > 0 && { tool_calls: parsed }),
  };
}

type Common = z.infer<typeof COMPLETION> | z.infer<typeof CHAT>;

function wanted(read: Common, maxTokens: number | null, logprobs: number | null): Wanted {
  const { top_k: topK, repetition_penalty: repetitionPenalty, stream } = read;
  const bias = Object.entries(read.logit_bias ?? {}).map(([id, by]) => [Number(id), by] as const);
  if (!stream && (read.stream_options ?? null) !== null)
    throw new ApiError(400, 'stream_options: give "stream": true with it', { param: "stream_options" });
  return {
    model: read.model,
    options: {
      temperature: read.temperature ?? 1,
      topP: read.top_p ?? 1,
      ...(maxTokens !== null && { maxTokens }),
      ...(typeof topK === "number" && topK !== -1 && { topK }),
      ...(typeof repetitionPenalty === "number" && { repetitionPenalty }),
      ...(read.presence_penalty && { presencePenalty: read.presence_penalty }),
      ...(read.frequency_penalty && { frequencyPenalty: read.frequency_penalty }),
      ...(bias.length > 0 && { logitBias: new Map(bias) }),
      ...(read.ignore_eos && { stopTokens: [] }),
      ...(logprobs !== null && { logprobs }),
    },
    seed: read.seed ?? null,
    choices: read.n ?? 1,
    stop: typeof read.stop === "string" ? [read.stop] : (read.stop ?? []),
    stream: stream ?? false,
    includeUsage: read.stream_options?.include_usage ?? false,
  };
}

const LOAD = z.strictObject({
  lora_name: text.min(1, { error: "a name" }),
  lora_path: text.min(1, { error: "the adapter's directory on the server" }),
  load_inplace: flag.nullish(),
});
const UNLOAD = z.object({ lora_name: text });

/** Reads the body of a request to load an adapter, as vLLM defines it. */
export function readLoad(body: unknown): { name: string; path: string; replace: boolean } {
  const read = parse(LOAD, body);
  return { name: read.lora_name, path: read.lora_path, replace: read.load_inplace ?? false };
}

/** Reads the body of a request to unload an adapter. */
export function readUnload(body: unknown): { name: string } {
  return { name: parse(UNLOAD, body).lora_name };
}

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  if (issue!.code === "unrecognized_keys") {
    const [param = ""] = issue.keys;
    throw new ApiError(400, `unrecognized request argument: ${param}; this server does not have it`, { param }); // prettier-ignore
  }
  const param = issue!.path.map(String).join(".");
  if (param === "") throw new ApiError(400, "the body of the request is not a JSON object");
  const given = at(body, issue!.path);
  const found = given === undefined ? "is missing" : `is ${shown(given)}`;
  throw new ApiError(400, `${param} ${found}; expected ${issue!.message}`, { param });
}

function at(body: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce((value, name) => (value as Record<PropertyKey, unknown> | null | undefined)?.[name], body); // prettier-ignore
}

function shown(value: unknown): string {
  const json = JSON.stringify(value);
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}
