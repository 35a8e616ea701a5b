/** Answers to requests for text: all choices of a request are generated at once, and sent whole or as they come. */
import { randomInt, randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { type ContinuousBatch, type Decoder, stopTokensOf, type Tokenizer } from "@tiedlora/models";
import { chatTokens, givenPrompt } from "../sample.ts";
import type { Served, ServedModels } from "./adapters.ts";
import { ApiError } from "./api-error.ts";
import { type ChoiceRequest, piecesOf } from "./choices.ts";
import { callingForm, CHAT_FORM, type Choice, COMPLETION_FORM, type Form, type Usage } from "./forms.ts";
import { beginCall, readCalls, readDemanded } from "./tool-calls.ts";
import { readChat, readCompletion, type Wanted } from "./requests.ts";

/** What answers are made with. */
export interface Engine {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly batch: ContinuousBatch;
  readonly served: ServedModels;
  /** The most tokens of a prompt and its answer together. */
  readonly context: number;
  /** The most sequences that may wait for a place. */
  readonly maxWaiting: number;
}

/** Where an answer goes. */
export interface Receiver {
  /** Sends a whole answer. */
  json(body: object): void;
  /** Sends an event of a stream; resolves when the client is ready for more. */
  event(data: string): Promise<void>;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
}

/** Answers POST /v1/completions. Throws ApiError before anything is sent. */
export async function complete(engine: Engine, body: unknown, to: Receiver): Promise<void> {
  const wanted = readCompletion(body);
  await engine.served.using(wanted.model, async (served) => {
    const prompts = wanted.prompts.map((prompt) => encoded(engine, served, prompt));
    await answer(engine, served, wanted, prompts, COMPLETION_FORM, to);
  });
}

/** Answers POST /v1/chat/completions. Throws ApiError before anything is sent. */
export async function chat(engine: Engine, body: unknown, to: Receiver): Promise<void> {
  const wanted = readChat(body);
  await engine.served.using(wanted.model, async (served) => {
    const { tokenizer } = engine;
    if (!tokenizer.hasChatTemplate)
      throw new ApiError(400, "the model has no chat template: it was not trained on chats; use /v1/completions", { param: "messages" }); // prettier-ignore
    const { tools, mustCall } = wanted;
    if (tools.length > 0 && !tokenizer.templateNames("tools"))
      throw new ApiError(400, "tools: the model's chat template does not write tools, so the model would not see them", { param: "tools" }); // prettier-ignore
    let prompt: number[];
    try {
      prompt = chatTokens(tokenizer, wanted.messages, tools.length > 0 ? { tools } : {});
    } catch (error) {
      throw new ApiError(400, `messages: ${(error as Error).message}`, { param: "messages" });
    }
    if (mustCall !== null) prompt.push(...tokenizer.encode(beginCall(mustCall), { specialTokens: false }));
    const read = mustCall === null ? readCalls : (text: string) => readDemanded(mustCall, text);
    await answer(engine, served, wanted, [prompt], tools.length > 0 ? callingForm(read) : CHAT_FORM, to);
  });
}

function encoded(
  { model, tokenizer }: Engine,
  served: Served,
  prompt: string | readonly number[],
): readonly number[] {
  if (typeof prompt !== "string") {
    const { vocab } = model.config;
    const wrong = prompt.find((id) => id >= vocab);
    if (wrong === undefined) return prompt;
    throw new ApiError(400, `the prompt has the id ${wrong}; the vocabulary has ${vocab}`, {
      param: "prompt",
    });
  }
  const given = givenPrompt(tokenizer, prompt, served.separator);
  return typeof given === "string" ? tokenizer.encode(given) : given;
}

async function answer(
  engine: Engine,
  served: Served,
  wanted: Wanted,
  prompts: readonly (readonly number[])[],
  form: Form,
  to: Receiver,
): Promise<void> {
  const choices = prompts.flatMap((prompt, p) =>
    Array.from({ length: wanted.choices }, (_, i) =>
      choiceOf(engine, served, wanted, prompt, p * wanted.choices + i),
    ),
  );
  if (engine.batch.waiting + choices.length > engine.maxWaiting)
    throw new ApiError(429, `${engine.batch.waiting} sequences are waiting, of at most ${engine.maxWaiting}; try again later`, { code: "rate_limit_exceeded" }); // prettier-ignore
  const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const head = {
    id: `${form.idPrefix}${randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: served.name,
  };
  if (wanted.stream) await stream(engine, wanted, choices, form, head, promptTokens, to);
  else {
    const parts = await together(choices, to.signal, (choice, index, signal) => whole(engine, choice, index, signal)); // prettier-ignore
    const logprobs = wanted.options.logprobs !== undefined;
    to.json({
      ...head,
      object: form.object,
      choices: parts.map((part) => form.whole(part, logprobs)),
      usage: usageOf(promptTokens, parts.reduce((sum, { tokens }) => sum + tokens.length, 0)), // prettier-ignore
    });
  }
}

/** Checks that a prompt and its answer fit, and says how the choice is generated. */
function choiceOf(
  { context, model, tokenizer }: Engine,
  { adapter }: Served,
  { options, stop, seed }: Wanted,
  prompt: readonly number[],
  index: number,
): ChoiceRequest {
  const { maxTokens, logitBias } = options;
  const { vocab } = model.config;
  const unknown = [...(logitBias?.keys() ?? [])].find((id) => id >= vocab);
  if (unknown !== undefined)
    throw new ApiError(400, `logit_bias has the id ${unknown}; the vocabulary has ${vocab}`, { param: "logit_bias" }); // prettier-ignore
  const room = context - prompt.length;
  if (room < (maxTokens ?? 1)) throw tooLong(context, prompt.length, maxTokens);
  return {
    prompt,
    stop,
    options: {
      stopTokens: stopTokensOf(model, tokenizer),
      ...options,
      maxTokens: maxTokens ?? room,
      // equal prompts with one seed still get different choices
      seed: seed === null ? randomInt(2 ** 47) : (seed + index) % Number.MAX_SAFE_INTEGER,
      ...(adapter !== null && { adapter }),
    },
  };
}

function tooLong(context: number, prompt: number, maxTokens: number | undefined): ApiError {
  const asked =
    maxTokens === undefined
      ? `the prompt has ${prompt} tokens, which leaves no room for an answer`
      : `you requested ${prompt + maxTokens} tokens (${prompt} in the prompt, ${maxTokens} in the answer)`;
  return new ApiError(
    400,
    `this model's maximum context length is ${context} tokens; ${asked}. Shorten the prompt${maxTokens === undefined ? "" : ", or lower max_tokens"}`,
    { param: "prompt", code: "context_length_exceeded" },
  );
}

const usageOf = (prompt: number, completion: number): Usage => ({
  prompt_tokens: prompt,
  completion_tokens: completion,
  total_tokens: prompt + completion,
});

/** Runs `work` for all choices at once. If one fails or the client goes, all end; throws the first failure. */
async function together<T>(
  choices: readonly ChoiceRequest[],
  gone: AbortSignal,
  work: (choice: ChoiceRequest, index: number, signal: AbortSignal) => Promise<T>,
): Promise<T[]> {
  const failed = new AbortController();
  const signal = AbortSignal.any([gone, failed.signal]);
  setMaxListeners(0, signal);
  const works = choices.map((choice, index) =>
    work(choice, index, signal).catch((error: unknown) => {
      if (!signal.aborted) failed.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(works);
  signal.throwIfAborted();
  return Promise.all(works);
}

async function whole(
  { batch, tokenizer }: Pick<Engine, "batch" | "tokenizer">,
  request: ChoiceRequest,
  index: number,
  signal: AbortSignal,
): Promise<Choice> {
  const choice = { index, text: "", tokens: [] as Choice["tokens"][number][], finish: null as Choice["finish"] }; // prettier-ignore
  for await (const { text, tokens, finish } of piecesOf(batch, tokenizer, request, signal)) {
    choice.text += text;
    choice.tokens.push(...tokens);
    choice.finish = finish;
  }
  return choice;
}

async function stream(
  { batch, tokenizer }: Engine,
  { options, includeUsage }: Wanted,
  choices: readonly ChoiceRequest[],
  form: Form,
  head: object,
  promptTokens: number,
  to: Receiver,
): Promise<void> {
  const usage = includeUsage ? { usage: null } : {};
  const send = (choice: object): Promise<void> =>
    to.event(JSON.stringify({ ...head, object: form.chunkObject, choices: [choice], ...usage }));
  const logprobs = options.logprobs !== undefined;
  let count = 0;
  const pump = async (request: ChoiceRequest, index: number, signal: AbortSignal): Promise<void> => {
    let offset = 0;
    if (form.opening !== null) await send(form.opening(index));
    if (form.atOnce) {
      const choice = await whole({ batch, tokenizer }, request, index, signal);
      count += choice.tokens.length;
      return send(form.chunk(index, choice, logprobs, 0));
    }
    for await (const piece of piecesOf(batch, tokenizer, request, signal)) {
      count += piece.tokens.length;
      await send(form.chunk(index, piece, logprobs, offset));
      offset += piece.tokens.reduce((sum, { text }) => sum + text.length, 0);
    }
  };
  await together(choices, to.signal, pump);
  if (includeUsage) {
    const end = { ...head, object: form.chunkObject, choices: [], usage: usageOf(promptTokens, count) };
    await to.event(JSON.stringify(end));
  }
  await to.event("[DONE]");
}
