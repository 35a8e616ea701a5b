/** tokenizer.json with its neighboring files, and chat templates: they are loaded, and used on a few texts. */
import { memoryFiles } from "@tiedlora/core";
import { loadTokenizerFrom } from "@tiedlora/models";
import type { Random } from "../random.ts";
import { type CaseFiles, sound, type Target, utf8 } from "../target.ts";

const token = (id: number, content: string, special = true): object => ({ id, content, special, single_word: false, lstrip: false, rstrip: false, normalized: false }); // prettier-ignore

const LETTERS = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
const SPECIAL = ["<unk>", "<s>", "</s>"];
const list = (...tokens: readonly string[]): Record<string, number> => Object.fromEntries([...SPECIAL, ...tokens].map((one, id) => [one, id])); // prettier-ignore

const LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const GPT_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** BPE as in Llama, with byte fallback. */
const LLAMA = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: SPECIAL.map((content, id) => token(id, content)),
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFKC" },
      { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  pre_tokenizer: null,
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
  },
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  model: { type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true, vocab: list("▁", ...LETTERS, "he", "ll"), merges: ["h e", "l l"] },
}; // prettier-ignore

/** Byte-level BPE as in GPT-2 and Llama 3. */
const BYTES = {
  added_tokens: [token(98, "<|end|>")],
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: GPT_PATTERN }, behavior: "Isolated", invert: false },
      { ...LEVEL, use_regex: false },
    ],
  },
  post_processor: LEVEL,
  decoder: LEVEL,
  model: { type: "BPE", vocab: list(...LETTERS), merges: [] },
};

const UNIGRAM = {
  added_tokens: SPECIAL.map((content, id) => token(id, content)),
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
  model: { type: "Unigram", unk_id: 0, byte_fallback: false, vocab: [...SPECIAL, "▁", ...LETTERS].map((one, i) => [one, -i]) },
}; // prettier-ignore

const WORDPIECE = {
  added_tokens: SPECIAL.map((content, id) => token(id, content)),
  normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
  pre_tokenizer: { type: "BertPreTokenizer" },
  post_processor: { type: "BertProcessing", sep: ["</s>", 2], cls: ["<s>", 1] },
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  model: { type: "WordPiece", unk_token: "<unk>", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab: list(...LETTERS, "##e") },
}; // prettier-ignore

const CHATML =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const TURNS =
  "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
const ALTERNATING =
  "{%- set ns = namespace(n=0) -%}{% macro say(x) %}<{{ x }}>{% endmacro %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}" +
  "{{ raise_exception('roles must alternate') }}{% endif %}{% set ns.n = ns.n + 1 %}{{ say(m['content']) }}{{ ns.n }}{% endfor %}";

/** Patterns on which a backtracking engine takes very long, and templates that never end or grow without limit. */
const WORDS = [
  "(a+)+$",
  "(.*a){30}",
  "(\\w|\\w\\w)+$",
  "(?=(a+))\\1*b",
  "{% for i in range(1000000000) %}x{% endfor %}",
  "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
  "{{ 'x' * 1000000000 }}",
  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
  "{% set x = 'ab' %}{% for i in range(40) %}{% set x = x + x %}{% endfor %}{{ x }}",
  "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
  "{{ messages[9]['content'] }}",
  "{{ (".repeat(3000),
  "{% if true %}".repeat(3000),
  "[".repeat(200),
  "BPE",
  "Unigram",
  "WordPiece",
  "Regex",
];

const TEXTS = [
  "hello, hello world",
  "",
  "a".repeat(60),
  "ß😀\0\u2028 \ud800",
  "<s>hi</s>  <unk>\n\n",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
];

function seed(random: Random): CaseFiles {
  const tokenizer = random.pick<object>([LLAMA, BYTES, UNIGRAM, WORDPIECE]);
  const template = random.pick([CHATML, TURNS, ALTERNATING]);
  const inFile = random.chance(0.5);
  const config = {
    bos_token: "<s>",
    eos_token: random.chance(0.5) ? "</s>" : token(2, "</s>"),
    unk_token: "<unk>",
    pad_token: null,
    model_max_length: 1e30,
    clean_up_tokenization_spaces: random.chance(0.5),
    tokenizer_class: "LlamaTokenizer",
    add_bos_token: true,
    ...(inFile ? {} : { chat_template: random.chance(0.7) ? template : [{ name: "default", template }] }),
  };
  return new Map([
    ["tokenizer.json", utf8(JSON.stringify(tokenizer))],
    ["tokenizer_config.json", utf8(JSON.stringify(config))],
    ...(inFile ? [["chat_template.jinja", utf8(template)] as const] : []),
  ]);
}

const CHAT = [
  { role: "user", content: "hello" },
  { role: "assistant", content: "hi" },
  { role: "user", content: "again <|im_end|>" },
];

export function tokenizers(): Target {
  return {
    seed,
    async read(files) {
      const tokenizer = await loadTokenizerFrom(memoryFiles(files));
      sound(Number.isSafeInteger(tokenizer.size), `it has ${tokenizer.size} tokens`);
      for (const text of TEXTS) {
        const ids = tokenizer.encode(text);
        sound(
          ids.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31),
          `${text.slice(0, 20)} has the ids ${ids.slice(0, 20).join()}`,
        );
        sound(typeof tokenizer.decode(ids) === "string", "decoding gave no text");
      }
      for (const id of [tokenizer.bosId, tokenizer.eosId, tokenizer.padId])
        sound(id === null || (Number.isInteger(id) && id >= 0), `a special token has the id ${id}`);
      if (tokenizer.hasChatTemplate) sound(typeof tokenizer.chat(CHAT) === "string", "the chat is no text");
    },
    words: WORDS,
  };
}
