import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError, memoryFiles } from "@tiedlora/core";
import { TextStream } from "../src/stream.ts";
import { loadTokenizerFrom, type Tokenizer } from "../src/tokenizer.ts";
import { byteTokenizer } from "./support/byte-tokenizer.ts";
import { loadTokenizer } from "../src/node.ts";
import { needsShared, sharedPath } from "./support/shared.ts";

describe("tokenizers", () => {
  test("text comes back from its tokens", async () => {
    const tokenizer = await byteTokenizer();
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        fc.pre(!text.includes("<|end|>"));
        const ids = tokenizer.encode(text);
        assert.deepEqual(ids, [...Buffer.from(text)]);
        assert.equal(tokenizer.decode(ids), text);
      }),
    );
  });

  test("spaces before punctuation stay, unless the files ask to clean them up", async () => {
    const text = "it 's fine . Is it ?";
    for (const [config, expected] of [
      [{}, text],
      [{ clean_up_tokenization_spaces: false }, text],
      [{ clean_up_tokenization_spaces: true }, "it's fine. Is it?"],
    ] as const) {
      const tokenizer = await byteTokenizer(config);
      assert.equal(tokenizer.decode(tokenizer.encode(text)), expected);
    }
  });

  test("special tokens by name, given as text or as an object", async () => {
    const tokenizer = await byteTokenizer({ eos_token: { content: "<|end|>" }, pad_token: "<|end|>" });
    assert.deepEqual([tokenizer.eosId, tokenizer.padId, tokenizer.bosId], [256, 256, null]);
    assert.deepEqual(tokenizer.encode("a<|end|>"), [97, 256]);
    assert.equal(tokenizer.decode([97, 256]), "a");
    assert.equal(tokenizer.decode([97, 256], { skipSpecialTokens: false }), "a<|end|>");
    assert.equal(tokenizer.size, 257);
  });

  test("GPT-2's: the same as in Python", { skip: needsShared }, async () => {
    const tokenizer = await loadTokenizer(sharedPath("models/gpt2-tokenizer"));
    assert.deepEqual(tokenizer.encode("Hello world"), [15496, 995]);
    const text = "Hello wörld, 日本語 🙂 it's  fine\n\n";
    assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  });

  test("what cannot be read is named", async () => {
    const load = (files: Record<string, string>): Promise<Tokenizer> =>
      loadTokenizerFrom(memoryFiles(new Map(Object.entries(files))));
    await assert.rejects(load({}), /no tokenizer\.json.*save_pretrained/);
    await assert.rejects(load({ "tokenizer.json": "{" }), FormatError);
    await assert.rejects(load({ "tokenizer.json": "{}" }), /"model": found nothing; expected the vocabulary/);
    await assert.rejects(
      load({ "tokenizer.json": '{"model":{"type":"Quantum","vocab":{}}}' }),
      /"model.type": found "Quantum"; expected BPE, Unigram or WordPiece/,
    );
  });
});

describe("chat templates", () => {
  const TEMPLATE =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
  const messages = [{ role: "user", content: "Hi" }];

  test("render the conversation, from either place", async () => {
    const eos = { eos_token: "<|end|>" };
    for (const template of [
      TEMPLATE,
      [
        { name: "tool_use", template: "x" },
        { name: "default", template: TEMPLATE },
      ],
    ]) {
      const tokenizer = await byteTokenizer({ ...eos, chat_template: template });
      assert.equal(tokenizer.chat(messages), "[user]Hi<|end|>[assistant]");
      assert.equal(tokenizer.chat(messages, { addGenerationPrompt: false }), "[user]Hi<|end|>");
    }
  });

  test("their absence and their faults are errors that say so", async () => {
    const without = await byteTokenizer();
    assert.equal(without.hasChatTemplate, false);
    assert.throws(() => without.chat(messages), /chat_template": found none.*plain text/);
    const broken = await byteTokenizer({ chat_template: "{% for %}" });
    assert.throws(() => broken.chat(messages), FormatError);
  });
});

/** Where the text ends when it is read character by character: where the first stop string to be complete begins. */
function endByStops(text: string, stops: readonly string[]): number | null {
  let read = "";
  for (const character of text) {
    read += character;
    const found = stops.map((stop) => read.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) return Math.min(...found);
  }
  return null;
}

describe("streams of text", () => {
  test("the pieces are whole characters, and together the text up to the stop string that is complete first", async () => {
    const tokenizer = await byteTokenizer();
    const text = fc.string({ unit: fc.constantFrom("a", "b", "ab", "é", "🙂", " ") });
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "🙂"), minLength: 1, maxLength: 4 }), {
      maxLength: 2,
    });
    fc.assert(
      fc.property(text, text, stops, (prompt, rest, stop) => {
        const stream = new TextStream(tokenizer, tokenizer.encode(prompt), stop);
        const pieces = [...Buffer.from(rest)].map((byte) => stream.push(byte));
        const end = endByStops(rest, stop);
        assert.equal(pieces.join("") + stream.end(), rest.slice(0, end ?? rest.length));
        assert.equal(stream.stopped, end !== null);
        assert.deepEqual(
          pieces.filter((piece) => piece.includes("\uFFFD")),
          [],
        );
      }),
      { numRuns: 500 },
    );
  });

  test("a text that ends within a character ends in the replacement character", async () => {
    const tokenizer = await byteTokenizer();
    const stream = new TextStream(tokenizer, [], []);
    assert.equal(stream.push(0xf0), "");
    assert.equal(stream.end(), "\uFFFD");
  });
});
