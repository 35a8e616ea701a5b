/** Tokenizers and chat templates that would hang or fill the memory are refused at once, with an error that names the fault. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FormatError } from "@tiedlora/core";
import { riskOf } from "../src/tokenizer-check.ts";
import { byteTokenizer } from "./support/byte-tokenizer.ts";

const CHAT = [{ role: "user", content: "hi" }];

async function within<T>(work: () => Promise<T>): Promise<T> {
  const before = process.cpuUsage();
  try {
    return await work();
  } finally {
    assert.ok(process.cpuUsage(before).user < 4e6, "more than 4 s");
  }
}

suite("templates that do not end, or grow beyond all", () => {
  const TEMPLATES: readonly string[] = [
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    `${"{% for a in range(99) %}".repeat(6)}x${"{% endfor %}".repeat(6)}`,
    "{{ (".repeat(3000),
    "{% if true %}".repeat(3000),
  ];
  for (const template of TEMPLATES) {
    test(template.slice(0, 70), async () => {
      const tokenizer = await byteTokenizer({ chat_template: template });
      await within(async () => {
        await Promise.resolve();
        assert.throws(() => tokenizer.chat(CHAT), (error) => error instanceof FormatError && error.place === "chat_template"); // prettier-ignore
      });
    });
  }

  test("what templates may do is done as before", async () => {
    const template =
      "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5, 1, -2) | join(',') }} {{ strftime_now('%Y') }} {{ true and none is none }}";
    const tokenizer = await byteTokenizer({ chat_template: template });
    assert.equal(tokenizer.chat(CHAT), `0125,3 ${new Date().getFullYear()} true`);
    const raises = await byteTokenizer({ chat_template: "{{ raise_exception('no system role') }}" });
    assert.throws(() => raises.chat(CHAT), /no system role/);
  });
});

suite("tokenizer.json with what cannot be", () => {
  const added = (id: unknown): object => ({ added_tokens: [{ id, content: "<x>", special: true, normalized: false }] }); // prettier-ignore
  const model = (more: object): object => ({ model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [], ...more } }); // prettier-ignore
  const CASES: readonly (readonly [string, object, string])[] = [
    ["an id of 1e9", added(1e9), "added_tokens.<x>"],
    ["an id that is no whole number", added(256.5), "added_tokens.<x>"],
    ["an id below 0", added(-1), "added_tokens.<x>"],
    ["an id that is text", added("5"), "added_tokens.<x>"],
    ["an id of 1e9 in the vocabulary", model({ vocab: { a: 0, b: 1e9 } }), "model.vocab.b"],
    ["two tokens of one id", model({ vocab: { a: 0, b: 0 } }), "model.vocab.b"],
    ["merges of two forms", model({ merges: ["a b", ["a", "b"]] }), "model.merges.1"],
    ["no list of added tokens", { added_tokens: 3 }, "added_tokens"],
    ["a vocabulary that is a number", model({ vocab: 3 }), "model.vocab"],
    ["scores that are none", { model: { type: "Unigram", vocab: [["a", "b"]], unk_id: 0 } }, "model.vocab.0"],
    ["a pattern that hangs", { pre_tokenizer: { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated" } }, "pre_tokenizer.pattern.Regex"],
  ]; // prettier-ignore
  for (const [what, more, place] of CASES) {
    test(what, async () => {
      await within(() =>
        assert.rejects(byteTokenizer({}, more), (error) => {
          assert.ok(error instanceof FormatError, String(error));
          assert.equal(error.place, place);
          assert.equal(error.file, "tokenizer.json");
          return true;
        }),
      );
    });
  }
});

test("patterns that try all ways are told from those of published tokenizers", () => {
  for (const pattern of [
    "(a+)+$",
    "(.*a){30}",
    "(\\w|\\w\\w)+$",
    "(?:a*)*",
    "(?=(a+))\\1*b",
    "a*a*a*a*a*a*a*b",
    "((a|b)?c)*",
  ])
    assert.notEqual(riskOf(pattern), null, pattern);
  for (const pattern of [
    // GPT-2, Llama 3, o200k, DeepSeek, Bloom
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    " ?[^(\\s|[.,!?…。，、।۔،])]+",
    "\\d{1,3}(?=(?:\\d{3})*\\b)",
    " {2,}",
  ])
    assert.equal(riskOf(pattern), null, pattern);
});
