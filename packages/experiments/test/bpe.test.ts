/** The tokenizer trainer: Hugging Face's library can read its files, and any text decodes to itself. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryFiles } from "@tiedlora/core";
import { loadTokenizerFrom, type Tokenizer } from "@tiedlora/models";
import fc from "fast-check";
import { byteAlphabet, document, tokenizerFiles, trainBpe } from "../src/toy-tasks/index.ts";

const TEXTS = Array.from({ length: 400 }, (_, i) => document(2, i));

async function tokenizerOf(vocabSize: number): Promise<Tokenizer> {
  const { tokenizer, config } = tokenizerFiles(trainBpe(TEXTS, vocabSize), 256);
  return loadTokenizerFrom(
    memoryFiles(
      new Map([
        ["tokenizer.json", JSON.stringify(tokenizer)],
        ["tokenizer_config.json", JSON.stringify(config)],
      ]),
    ),
  );
}

test("any text comes back as it was, at any size of vocabulary", async () => {
  for (const size of [259, 300, 512, 700]) {
    const tokenizer = await tokenizerOf(size);
    assert.equal(tokenizer.size, size);
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: "grapheme" }),
      fc.constantFrom(...TEXTS),
      fc
        .array(fc.constantFrom("\0", "\u00ad", "\n\n", "\t", "é", "日本", "👩‍👩‍👧", "\u202e", "'s", " 12", "  "))
        .map((x) => x.join("")),
    );
    fc.assert(
      fc.property(text, (value) => {
        const ids = tokenizer.encode(value, { specialTokens: false });
        assert.equal(tokenizer.decode(ids), value);
        assert.ok(ids.every((id) => id >= 3 && id < size));
      }),
      { numRuns: 200 },
    );
  }
});

test("each byte has a token of its own", () => {
  assert.equal(new Set(byteAlphabet()).size, 256);
});

test("a text begins with the bos token, and special tokens are left out of decoded text", async () => {
  const tokenizer = await tokenizerOf(400);
  assert.deepEqual([tokenizer.padId, tokenizer.bosId, tokenizer.eosId], [0, 1, 2]);
  const ids = tokenizer.encode("The cat purrs.");
  assert.equal(ids[0], 1);
  assert.equal(tokenizer.decode([...ids, 2]), "The cat purrs.");
});

test("frequent words become one token", async () => {
  const tokenizer = await tokenizerOf(700);
  for (const word of [" the", " said", " went", "."]) {
    assert.equal(tokenizer.encode(word, { specialTokens: false }).length, 1, word);
  }
});

test("merges are by frequency, ties by code units", () => {
  const { merges, vocab } = trainBpe(["ab ab ab", "cd cd", "ef ef"], 263);
  assert.deepEqual(merges, [
    ["a", "b"],
    ["c", "d"],
    ["e", "f"],
    ["Ġ", "ab"],
  ]);
  assert.equal(vocab.get("Ġab"), 262);
});

test("a vocabulary that cannot be had is refused", () => {
  assert.throws(() => trainBpe(TEXTS, 258), /vocabSize is 258; expected at least 259/);
  assert.throws(() => trainBpe(["aa"], 300), /the corpus yields 260 tokens, not 300/);
});
