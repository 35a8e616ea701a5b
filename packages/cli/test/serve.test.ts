import assert from "node:assert/strict";
import { once } from "node:events";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import OpenAI from "openai";
import { assign, type Device, key, random, reference } from "@tiedlora/core";
import { ContinuousBatch, type Decoder, generateText, type Tokenizer } from "@tiedlora/models";
import { loadPretrained } from "@tiedlora/models/node";
import { adapt, adaptersOf, type Method, methods, promptTokens } from "tiedlora";
import { loadAdapter, saveAdapter } from "tiedlora/node";
import { ServedModels } from "../src/serve/adapters.ts";
import { ApiServer, type ApiServerOptions } from "../src/serve/server.ts";
import { readCalls, readDemanded } from "../src/serve/tool-calls.ts";
import { WatchedFolder } from "../src/serve/watched.ts";
import { ended, start, tiedlora } from "./support/command.ts";
import { temporary, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);

/** Adapters of three kinds; the last replaces biases of the model, and cannot share a batch. */
const ADAPTERS: Readonly<Record<string, Method>> = {
  lora: methods.lora({ rank: 2, target: "qkv" }),
  tied: methods.tl6({ rank: 2, target: "all-linear" }),
  saved: methods.lora({ rank: 2, target: "qkv", modulesToSave: ["norm"] }),
};

async function writeAdapters(): Promise<void> {
  const device = reference();
  const { model } = await loadPretrained(at("model"), { device });
  for (const [i, [name, method]] of Object.entries(ADAPTERS).entries()) {
    const adapter = await adapt(model, method, { seed: i });
    const moved = adapter.parameters().map((p, j) => [p, p.add(random.uniform(key(i).fold(j), p.shape).sub(0.5))] as const); // prettier-ignore
    assign(moved, []);
    await saveAdapter(adapter, at(name), name === "tied" ? { separator: " -> " } : {});
    adapter.detach();
  }
  device.close();
}

let device: Device;
let model: Decoder;
let tokenizer: Tokenizer;
let batch: ContinuousBatch;
let served: ServedModels;
let server: ApiServer;
let client: OpenAI;
let base: string;

/** A server of its own on the same model. */
async function listen(
  more: Partial<ApiServerOptions & { readonly maxWaiting: number }> = {},
  own: Tokenizer = tokenizer,
): Promise<[ApiServer, string]> {
  const { maxWaiting = 1000, ...options } = more;
  const engine = { model, tokenizer: own, batch, served, context: 64, maxWaiting };
  const one = new ApiServer(engine, { port: 0, host: "127.0.0.1", apiKey: undefined, maxBytes: 10_000, ...options }); // prettier-ignore
  return [one, `http://127.0.0.1:${await one.listen()}`];
}

/** What the adapter of a name writes, alone. */
async function alone(name: string, prompt: string, maxTokens: number): Promise<string> {
  if (name !== "tiny" && !adaptersOf(model).has(`alone ${name}`))
    await loadAdapter(model, at(name), { name: `alone ${name}`, active: false });
  const given = name === "tied" ? promptTokens(tokenizer, prompt, " -> ") : prompt;
  const adapters = name === "tiny" ? [] : `alone ${name}`;
  const [text] = await generateText(model, tokenizer, [given], { maxTokens, adapters });
  return text!;
}

async function post(
  url: string,
  body: string,
  headers: Record<string, string> = {},
): Promise<{
  status: number;
  error: { message: string; type: string; param: string | null; code: string | null };
}> {
  const response = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json", ...headers } }); // prettier-ignore
  return { ...((await response.json()) as { error: never }), status: response.status };
}

const greedy = { temperature: 0, max_tokens: 8 } as const;
/** For vLLM's fields, which the client's types do not have. */
const endless = { ignore_eos: true } as object;

describe("serve", () => {
  before(async () => {
    await writeModel(at("model"));
    await writeAdapters();
    device = reference();
    ({ model, tokenizer } = await loadPretrained(at("model"), { device }));
    const replaces = (name: string): boolean => adaptersOf(model).get(name).plan.replaced.length > 0;
    batch = new ContinuousBatch(model, { rows: 4, alone: replaces });
    served = new ServedModels(model, batch, "tiny");
    for (const name of Object.keys(ADAPTERS)) await served.load(name, at(name));
    [server, base] = await listen();
    client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
  });
  after(async () => {
    await server.close();
    device.close();
  });

  test("lists the base model and its adapters, and is healthy", async () => {
    const ids = [];
    for await (const { id } of client.models.list()) ids.push(id);
    assert.deepEqual(ids, ["tiny", "lora", "tied", "saved"]);
    assert.equal((await client.models.retrieve("tied")).id, "tied");
    await assert.rejects(client.models.retrieve("tide"), { status: 404, code: "model_not_found" });
    assert.deepEqual(await (await fetch(`${base}/health`)).json(), { status: "ok" });
  });

  test("answers 100 requests at once, of all adapters and many lengths, each as if it were alone", async () => {
    const names = ["tiny", ...Object.keys(ADAPTERS)];
    const cases = Array.from({ length: 100 }, (_, i) => ({
      model: names[i % 4]!,
      prompt: "say something longer than that".slice(0, 1 + ((i * 7) % 29)),
      max_tokens: 3 + (i % 6),
    }));
    const answers = await Promise.all(
      cases.map((one) => client.completions.create({ ...one, temperature: 0 })),
    );
    for (const [i, { model: name, prompt, max_tokens }] of cases.entries()) {
      const [choice] = answers[i]!.choices;
      assert.equal(choice!.text, await alone(name, prompt, max_tokens), `${name}: ${prompt}`);
      assert.ok(answers[i]!.usage!.completion_tokens <= max_tokens);
    }
    assert.deepEqual([batch.active, batch.waiting], [0, 0]);
  });

  test("counts tokens, and gives several choices for several prompts, the same for the same seed", async () => {
    const ask = { model: "tiny", prompt: ["ab", "abcd"], n: 3, seed: 7, max_tokens: 5, ...endless };
    const [first, again] = [await client.completions.create(ask), await client.completions.create(ask)];
    assert.deepEqual(first.choices.map(({ index }) => index), [0, 1, 2, 3, 4, 5]); // prettier-ignore
    assert.deepEqual(first.usage, { prompt_tokens: 3 + 5, completion_tokens: 30, total_tokens: 38 });
    assert.deepEqual(again.choices, first.choices);
    assert.ok(new Set(first.choices.map(({ text }) => text)).size > 1);
    assert.deepEqual(first.choices.map(({ finish_reason }) => finish_reason), Array(6).fill("length")); // prettier-ignore
  });

  test("ends at a stop string, also where it is streamed, and does not give it", async () => {
    const whole = await client.completions.create({
      model: "lora",
      prompt: "say",
      ...greedy,
      ...endless,
      max_tokens: 20,
    });
    const text = whole.choices[0]!.text;
    const stop = text.slice(6, 9);
    const ask = { model: "lora", prompt: "say", ...greedy, max_tokens: 20, stop: [stop, "never"] };
    const cut = await client.completions.create(ask);
    assert.equal(cut.choices[0]!.text, text.slice(0, text.indexOf(stop)));
    assert.equal(cut.choices[0]!.finish_reason, "stop");
    let streamed = "";
    for await (const { choices } of await client.completions.create({ ...ask, stream: true }))
      streamed += choices[0]!.text;
    assert.equal(streamed, cut.choices[0]!.text);
  });

  test("chats, whole and streamed, with log-probabilities and usage", async () => {
    const messages = [{ role: "user", content: "say" }] as const;
    const ask = {
      model: "tied",
      messages: [...messages],
      max_completion_tokens: 6,
      temperature: 0,
      logprobs: true,
      top_logprobs: 2,
      ...endless,
    };
    const whole = await client.chat.completions.create(ask);
    const [choice] = whole.choices;
    assert.equal(choice!.message.role, "assistant");
    const tokens = choice!.logprobs!.content!;
    assert.equal(tokens.map(({ token }) => token).join(""), choice!.message.content);
    for (const { token, logprob, top_logprobs: top } of tokens) {
      assert.deepEqual([top.length, top[0]!.token, top[0]!.logprob], [2, token, logprob], "greedy");
      assert.ok(logprob < 0 && top[1]!.logprob <= logprob);
    }
    const options = { stream: true, stream_options: { include_usage: true } } as const;
    const chunks = [];
    for await (const chunk of await client.chat.completions.create({ ...ask, ...options }))
      chunks.push(chunk);
    assert.equal(chunks[0]!.choices[0]!.delta.role, "assistant");
    assert.equal(chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta.content ?? "")).join(""), choice!.message.content); // prettier-ignore
    assert.deepEqual(chunks.flatMap(({ choices }) => choices.flatMap((one) => one.logprobs?.content ?? [])), tokens); // prettier-ignore
    assert.deepEqual(chunks.at(-1)!.usage, whole.usage);
    assert.deepEqual(chunks.at(-1)!.choices, []);
    assert.equal(chunks.at(-2)!.choices[0]!.finish_reason, "length");
    assert.equal(whole.usage!.completion_tokens, 6);
  });

  test("says in OpenAI's form what is wrong with a request", async () => {
    const completions = `${base}/v1/completions`;
    const fails = async (
      body: object,
      status: number,
      message: RegExp,
      param: string | null,
    ): Promise<void> => {
      const { status: got, error } = await post(
        completions,
        JSON.stringify({ model: "tiny", prompt: "a", ...body }),
      );
      assert.match(error.message, message);
      assert.deepEqual([got, error.param], [status, param]);
      assert.equal(error.type, "invalid_request_error");
    };
    await fails({ model: "lorra" }, 404, /"lorra" does not exist.*lora/, "model");
    await fails({ prompt: "a".repeat(70) }, 400, /maximum context length is 64 tokens; you requested 87 tokens \(71 in the prompt, 16 in/, "prompt"); // prettier-ignore
    await fails({ prompt: "a", max_tokens: 64 }, 400, /you requested 66 tokens/, "prompt");
    await fails({ prompt: [1, 500] }, 400, /prompt has the id 500; the vocabulary has 98/, "prompt"); // prettier-ignore
    await fails({ prompt: 7 }, 400, /prompt is 7; expected a text, a list/, "prompt");
    await fails({ temperature: "hot" }, 400, /temperature is "hot"; expected a number from 0 to 2/, "temperature"); // prettier-ignore
    await fails({ n: 0 }, 400, /n is 0; expected a whole number from 1 to 128/, "n");
    await fails({ presence_penalty: 3 }, 400, /presence_penalty is 3; expected a number from -2 to 2/, "presence_penalty"); // prettier-ignore
    await fails({ logit_bias: { "98": 1 } }, 400, /logit_bias has the id 98; the vocabulary has 98/, "logit_bias"); // prettier-ignore
    await fails({ logit_bias: { a: 1 } }, 400, /expected numbers from -100 to 100 by token id/, "logit_bias.a"); // prettier-ignore
    await fails({ tools: [] }, 400, /unrecognized request argument: tools/, "tools");
    await fails({ stream_options: {} }, 400, /stream_options: give "stream": true/, "stream_options");
    assert.match((await post(completions, "{")).error.message, /not JSON/);
    assert.match((await post(completions, "[]")).error.message, /not a JSON object/);
    assert.equal((await post(completions, "{}", { "content-type": "text/plain" })).status, 415);
    assert.equal((await post(completions, JSON.stringify({ model: "tiny", prompt: "a".repeat(20_000) }))).status, 413); // prettier-ignore
    assert.equal((await post(`${base}/v1/nothing`, "{}")).status, 404);
    assert.equal((await post(`${base}/v1/models`, "{}")).status, 405);
    await assert.rejects(client.completions.create({ model: "lorra", prompt: "a" }), OpenAI.NotFoundError);
  });

  test("has OpenAI's penalties and biases, exactly as they are defined", async () => {
    const ask = { model: "tiny", prompt: "say", ...greedy, max_tokens: 12, ...endless };
    const tokens = async (more: object): Promise<string> =>
      (await client.completions.create({ ...ask, ...more })).choices[0]!.text;
    const plain = await tokens({});
    const banned = tokenizer.encode(plain[0]!, { specialTokens: false })[0]!;
    const without = await tokens({ logit_bias: { [banned]: -100 } });
    assert.ok(!without.includes(plain[0]!) && without.length === plain.length, without);
    // the penalty is of what was generated, not of the prompt: the first token is the same
    const fresh = await tokens({ presence_penalty: 2, frequency_penalty: 2 });
    assert.equal(fresh[0], plain[0]);
    assert.ok(new Set(fresh).size > new Set(plain).size, `${fresh} has fewer repetitions than ${plain}`);
  });

  test("gives tools to the template, and their calls back as the API has them", async () => {
    const tools = [{ type: "function", function: { name: "look", parameters: { type: "object" } } }] as const;
    const messages = [{ role: "user", content: "say" }] as const;
    const ask = { model: "tiny", messages: [...messages], tools: [...tools], ...greedy };
    await assert.rejects(client.chat.completions.create(ask), /chat template does not write tools/);
    const seeing = tokenizer.withChatTemplate(
      "{{ tools | length }}{% for m in messages %}{{ m.role }}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.x }}{% endif %}{% endfor %}",
    );
    const turns: OpenAI.ChatCompletionMessageParam[] = [
      ...messages,
      {
        role: "assistant",
        tool_calls: [{ id: "1", type: "function", function: { name: "look", arguments: '{"x": 7}' } }],
      },
      { role: "tool", tool_call_id: "1", content: "8" },
    ];
    const [own, url] = await listen({}, seeing);
    const remote = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const answer = await remote.chat.completions.create({ ...ask, messages: turns });
    const prompt = "1usersayassistant7tool8";
    assert.equal(answer.usage!.prompt_tokens, prompt.length);
    assert.equal(answer.choices[0]!.message.content, (await generateText(model, tokenizer, [tokenizer.encode(prompt, { specialTokens: false })], { maxTokens: 8 }))[0]); // prettier-ignore
    const named = { type: "function", function: { name: "look" } } as const;
    const begun = '1usersay<tool_call>\n{"name": "look", "arguments": ';
    const [written] = await generateText(model, tokenizer, [tokenizer.encode(begun, { specialTokens: false })], { maxTokens: 8 }); // prettier-ignore
    for (const choice of ["required", named] as const) {
      const demanded = await remote.chat.completions.create({ ...ask, tool_choice: choice });
      const [{ message, finish_reason: finish }] = demanded.choices as [OpenAI.ChatCompletion.Choice];
      const call = message.tool_calls![0] as OpenAI.ChatCompletionMessageFunctionToolCall;
      assert.deepEqual([call.function, message.content, finish], [{ name: "look", arguments: written!.trim() }, null, "tool_calls"]); // prettier-ignore
    }
    const parts: string[] = [];
    for await (const { choices } of await remote.chat.completions.create({ ...ask, tool_choice: named, stream: true })) // prettier-ignore
      for (const call of choices[0]?.delta.tool_calls ?? []) parts.push(`${call.index} ${call.function!.name} ${call.function!.arguments}`); // prettier-ignore
    assert.deepEqual(parts, [`0 look ${written!.trim()}`]);
    const two = [...tools, { type: "function", function: { name: "find" } } as const];
    await assert.rejects(remote.chat.completions.create({ ...ask, tools: two, tool_choice: "required" }), /has not called one of the tools look, find/); // prettier-ignore
    const other = { type: "function", function: { name: "lok" } } as const;
    await assert.rejects(remote.chat.completions.create({ ...ask, tool_choice: other }), /there is no tool "lok"; did you mean "look"/); // prettier-ignore
    await assert.rejects(remote.chat.completions.create({ ...ask, tools: [], tool_choice: "required" }), /tool_choice: there are no tools/); // prettier-ignore
    await own.close();
    assert.deepEqual(readDemanded(["look", "find"], 'find", "arguments": {"x": 1}}\n</tool_call>').calls[0]!.function, { name: "find", arguments: '{"x":1}' }); // prettier-ignore
    assert.deepEqual(readDemanded(["look"], '{"x": 2}}</tool_call> and').calls[0]!.function, { name: "look", arguments: '{"x":2}' }); // prettier-ignore
    const { content, calls: found } = readCalls('I look.\n<tool_call>\n{"name": "look", "arguments": {"x": 1}}\n</tool_call><tool_call>{"name": "b"}'); // prettier-ignore
    assert.deepEqual([content, found.map((call) => call.function)], ["I look.", [{ name: "look", arguments: '{"x":1}' }, { name: "b", arguments: "{}" }]]); // prettier-ignore
    assert.deepEqual(readCalls("<tool_call>{ no").calls, []);
  });

  test("serves what a watched folder has: new adapters, those that change, and not those that are gone", async () => {
    const notes: string[] = [];
    mkdirSync(at("watched"));
    cpSync(at("lora"), at("watched/first"), { recursive: true });
    const watched = new WatchedFolder(at("watched"), served, {
      everyMs: 1e9,
      onNote: (note) => notes.push(note),
    });
    await watched.start();
    const writes = async (name: string): Promise<string> =>
      (await client.completions.create({ model: name, prompt: "say", ...greedy })).choices[0]!.text;
    assert.equal(await writes("first"), await alone("lora", "say", 8));
    cpSync(at("saved"), at("watched/second"), { recursive: true });
    await watched.look();
    await assert.rejects(writes("second"), { status: 404 }, "it may still be written");
    await watched.look();
    assert.equal(await writes("second"), await alone("saved", "say", 8));
    rmSync(at("watched/second"), { recursive: true });
    rmSync(at("watched/first"), { recursive: true });
    cpSync(at("saved"), at("watched/first"), { recursive: true });
    mkdirSync(at("watched/broken"));
    writeFileSync(at("watched/broken/adapter_config.json"), "{");
    await watched.look();
    await watched.look();
    await watched.look();
    assert.equal(await writes("first"), await alone("saved", "say", 8));
    await assert.rejects(writes("second"), { status: 404 });
    await watched.stop();
    await served.unload("first");
    assert.deepEqual(notes.slice(0, 3), ["first is served", "second is served", "second is gone, and no longer served"]); // prettier-ignore
    assert.deepEqual([notes.length, /^broken is not served: .*adapter_config\.json/.test(notes[3]!)], [4, true], notes[3]); // prettier-ignore
  });

  test("gives the place of a client that leaves to others", async () => {
    const options = { model: "lora", prompt: "say", max_tokens: 50, stream: true, ...endless } as const;
    const streams = await Promise.all(Array.from({ length: 8 }, () => client.completions.create(options)));
    for (const stream of streams) await stream[Symbol.asyncIterator]().next();
    for (const stream of streams) stream.controller.abort();
    const { choices } = await client.completions.create({ model: "tiny", prompt: "ab", ...greedy });
    assert.equal(choices[0]!.text, await alone("tiny", "ab", 8));
    const deadline = Date.now() + 10_000;
    while (batch.active > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5)); // prettier-ignore
    assert.equal(batch.active, 0);
  });

  test("loads and unloads adapters while requests run, which keep the one they began with", async () => {
    const change = (what: string, body: object): Promise<Awaited<ReturnType<typeof post>>> =>
      post(`${base}/v1/${what}_lora_adapter`, JSON.stringify(body));
    assert.equal((await change("load", { lora_name: "mine", lora_path: at("lora") })).status, 200);
    const ask = { model: "mine", prompt: "say", temperature: 0, max_tokens: 30 };
    const stream = await client.completions.create({ ...ask, stream: true });
    const iterator = stream[Symbol.asyncIterator]();
    let text = ((await iterator.next()).value as OpenAI.Completion).choices[0]!.text;
    const taken = await change("load", { lora_name: "mine", lora_path: at("tied") });
    assert.match(taken.error.message, /"mine" is taken: unload it first/);
    assert.equal((await change("load", { lora_name: "mine", lora_path: at("saved"), load_inplace: true })).status, 200); // prettier-ignore
    const other = await client.completions.create(ask);
    for (let next = await iterator.next(); !next.done; next = await iterator.next())
      text += next.value.choices[0]!.text;
    assert.equal(text, await alone("lora", "say", 30));
    assert.equal(other.choices[0]!.text, await alone("saved", "say", 30));
    assert.equal((await change("unload", { lora_name: "mine" })).status, 200);
    await assert.rejects(client.completions.create(ask), { status: 404 });
    await batch.between(() => undefined);
    assert.deepEqual(adaptersOf(model).names.filter((name) => name.startsWith("mine")), []); // prettier-ignore
    assert.match((await change("load", { lora_name: "bad", lora_path: at("nowhere") })).error.message, /nowhere/); // prettier-ignore
    assert.match((await change("unload", { lora_name: "tiny" })).error.message, /base model, which cannot/);
  });

  test("asks for its key, refuses foreign names and too many requests", async () => {
    const [keyed, url] = await listen({ apiKey: "secret", maxWaiting: 2 });
    const clientOf = (apiKey: string): OpenAI => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
    await assert.rejects(clientOf("wrong").models.list(), { status: 401, code: "invalid_api_key" });
    assert.equal((await clientOf("secret").models.list()).data.length, 4);
    assert.equal((await fetch(`${url}/health`)).status, 200);
    await assert.rejects(clientOf("secret").completions.create({ model: "tiny", prompt: "a", n: 3 }), { status: 429 }); // prettier-ignore
    await keyed.close();
    const foreign = request(`${base}/v1/models`, { headers: { host: "evil.example" } }).end();
    const [response] = (await once(foreign, "response")) as [{ statusCode: number; resume(): void }];
    response.resume();
    assert.equal(response.statusCode, 403);
    const [open, address] = await listen({ host: "0.0.0.0" });
    const refused = await post(`${address}/v1/load_lora_adapter`, JSON.stringify({ lora_name: "x", lora_path: at("lora") })); // prettier-ignore
    assert.equal(refused.status, 403);
    await open.close();
  });

  test("as a command: ends after SIGTERM, when the requests that run have been answered", async () => {
    cpSync(at("saved"), at("folder/mine"), { recursive: true });
    const child = start("serve", "--model", at("model"), "--adapter", `one=${at("lora")}`, at("tied"), "--adapters", at("folder"), "--port", "0", "--backend", "reference"); // prettier-ignore
    const end = ended(child);
    try {
      const [line] = (await once(child.stdout!, "data")) as [Buffer];
      const [, names, url] = /^(.*) served at (\S+) \(Ctrl-C ends it\)$/m.exec(line.toString()) ?? [];
      assert.equal(names, "model, one, tied, mine");
      const remote = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
      const stream = await remote.completions.create({ model: "one", prompt: "say", max_tokens: 40, stream: true, ...endless }); // prettier-ignore
      const reasons: unknown[] = [];
      for await (const { choices } of stream) {
        if (reasons.length === 0) child.kill("SIGTERM");
        reasons.push(choices[0]!.finish_reason);
      }
      assert.equal(reasons.at(-1), "length", "all 40 tokens arrived");
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    const { code, info } = await end; // a second signal would end it at once
    assert.equal(code, 0, info);
    assert.match(info, /the server stops when 1 sequences have ended/);
  });

  test("refuses wrong usage before a model is loaded", async () => {
    const twice = await tiedlora("serve", "--model", at("model"), "--adapter", at("lora"), join(at("model"), "../lora")); // prettier-ignore
    assert.deepEqual([twice.code, /two adapters are called "lora"/.test(twice.info)], [2, true]);
    const long = await tiedlora("serve", "--model", at("model"), "--context", "65", "--backend", "reference");
    assert.deepEqual([long.code, /at most --context 64/.test(long.info)], [2, true]);
  });
});
