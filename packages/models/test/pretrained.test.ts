import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { type Device, reference } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { configFrom } from "../src/config.ts";
import { Decoder } from "../src/decoder.ts";
import { generateText, generateTokens, streamTexts } from "../src/generate.ts";
import { createModel } from "../src/load.ts";
import { Pretrained } from "../src/pretrained.ts";
import { byteTokenizer } from "./support/byte-tokenizer.ts";

const CONFIG = configFrom({
  model_type: "gpt2",
  vocab_size: 257,
  n_embd: 260,
  n_layer: 1,
  n_head: 1,
  n_positions: 64,
  n_inner: 4,
  tie_word_embeddings: false,
});

/** A model that predicts, after each character, the next one of `cycle`: its blocks add nothing. */
function reciter(device: Device, cycle: string): Decoder {
  const next = new Map(
    Array.from(cycle, (c, i) => [c.charCodeAt(0), cycle.charCodeAt((i + 1) % cycle.length)]),
  );
  return new Decoder(CONFIG, device, (path, shape) => {
    const [rows = 1, columns = 1] = shape;
    const values = new Float32Array(rows * columns);
    if (path.endsWith("ln_f.weight")) values.fill(1);
    if (path.endsWith("wte.weight")) for (let id = 0; id < rows; id++) values[id * columns + id] = 1;
    if (path === "lm_head.weight") for (const [from, to] of next) values[to * columns + from] = 1;
    return nn.Parameter.from(device, values, shape, "f32", path);
  });
}

describe("texts", () => {
  const device = reference();
  after(() => device.close());
  const model = reciter(device, "abcdef");

  test("each row ends at the first of its stop strings, others go on", async () => {
    const tokenizer = await byteTokenizer();
    const texts = await generateText(model, tokenizer, ["a", "xxd", "f"], {
      maxTokens: 9,
      stop: ["de", "fab"],
    });
    assert.deepEqual(texts, ["bc", "e", "abc"]);
  });

  test("pieces name their row, and no piece is the start of a stop string", async () => {
    const tokenizer = await byteTokenizer();
    const pieces: string[] = [];
    const options = { maxTokens: 6, stop: ["fz"] };
    for await (const { row, text } of streamTexts(model, tokenizer, ["c", "a"], options))
      pieces.push(`${row}${text}`);
    assert.deepEqual(pieces, ["0d", "1b", "0e", "1c", "1d", "0fa", "1e", "0b", "0c", "1fa"]);
  });

  test("a tokenizer's end of text ends a row even if the config has none", async () => {
    const tokenizer = await byteTokenizer({ eos_token: "d" });
    assert.deepEqual(CONFIG.eos, []);
    assert.deepEqual(await generateText(model, tokenizer, ["a"], { maxTokens: 9 }), ["bc"]);
  });

  test("an aborted generation ends with the reason", async () => {
    const abort = new AbortController();
    const found: (number | null)[] = [];
    const options = { maxTokens: 9, signal: abort.signal };
    await assert.rejects(async () => {
      for await (const [token] of generateTokens(model, [[97]], options)) {
        found.push(token!);
        if (found.length === 3) abort.abort(new Error("enough"));
      }
    }, /enough/);
    assert.deepEqual(found, [98, 99, 100]);
  });
});

describe("chats", () => {
  const template =
    "{{ eos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
  const postProcessor = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<|end|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<|end|>": { id: "<|end|>", ids: [256], tokens: ["<|end|>"] } },
  };

  test("are given to the model as the template says: the tokenizer adds no second start", async () => {
    const device = reference();
    const tokenizer = await byteTokenizer(
      { eos_token: "<|end|>", chat_template: template },
      { post_processor: postProcessor },
    );
    assert.deepEqual(tokenizer.encode("a"), [256, 97]);
    const llm = new Pretrained(createModel(CONFIG, { device, seed: 1 }), tokenizer);
    const prompt = llm.chatPrompt([{ role: "user", content: "Hi" }]);
    assert.deepEqual(prompt, [256, ...Buffer.from("[user]Hi[assistant]")]);
    const [a, b] = [
      await llm.complete(prompt, { maxTokens: 4 }),
      await llm.complete(prompt, { maxTokens: 4 }),
    ];
    assert.equal(a, b);
    device.close();
  });
});
