/**
 * tokenizer.json and tokenizer_config.json from the vocabulary of a GGUF file: byte-level BPE with its merges, and SentencePiece's BPE,
 * whose merges follow from the scores as in transformers. A file does not hold the patterns that split text into words, only the name of
 * their scheme: a scheme that is not known here is refused, since guessed patterns would make other tokens.
 */
import { describeValue } from "@tiedlora/core";
import type { Metadata } from "./metadata.ts";

/** Kinds of tokens, by number. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** The files of a tokenizer, parsed. */
export interface TokenizerFiles {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
}

/** How a scheme of byte-level BPE prepares text. */
interface Scheme {
  readonly normalizer: object | null;
  /** The pattern of words; null for GPT-2's, which the byte-level step has built in. */
  readonly pattern: string | null;
  readonly digits: boolean;
  /** Whether a word that is a token needs no merges. */
  readonly ignoreMerges: boolean;
  /** Whether a text begins with a token for that, if the file does not say. */
  readonly bos: boolean;
}

const GPT2: Scheme = { normalizer: null, pattern: null, digits: false, ignoreMerges: false, bos: false };
const words = (digits: string): string =>
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

/** The schemes by the name that llama.cpp gives them, as the models' own tokenizer.json have them. */
const SCHEMES: Readonly<Record<string, Scheme>> = {
  "gpt-2": GPT2,
  smollm: { ...GPT2, digits: true },
  "llama-bpe": { ...GPT2, pattern: words("{1,3}"), ignoreMerges: true, bos: true },
  smaug: { ...GPT2, pattern: words("{1,3}"), ignoreMerges: true, bos: true },
  qwen2: { ...GPT2, normalizer: { type: "NFC" }, pattern: words("") },
};

/** The tokenizer's files, or the reason why there are none. Throws FormatError for a vocabulary that is damaged. */
export function ggufTokenizer(m: Metadata): TokenizerFiles | string {
  const kind = m.text("tokenizer.ggml.model", "none");
  if (kind !== "gpt2" && kind !== "llama") return `its vocabulary is of the kind ${describeValue(kind)}`;
  const tokens = m.texts("tokenizer.ggml.tokens");
  const types = m.get("tokenizer.ggml.token_type") === undefined ? tokens.map(() => NORMAL) : m.numbers("tokenizer.ggml.token_type", tokens.length); // prettier-ignore
  const vocabulary = { tokens, types };
  return kind === "gpt2" ? byteLevel(m, vocabulary) : sentencePiece(m, vocabulary);
}

function byteLevel(m: Metadata, vocabulary: Vocabulary): TokenizerFiles | string {
  const name = m.text("tokenizer.ggml.pre", "none");
  if (!Object.hasOwn(SCHEMES, name)) return `its words are split by the scheme ${describeValue(name)}`;
  const { normalizer, pattern, digits, ignoreMerges, bos } = SCHEMES[name]!;
  const level = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: pattern === null,
  };
  const steps = [
    ...(pattern === null ? [] : [{ type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }]), // prettier-ignore
    ...(digits ? [{ type: "Digits", individual_digits: true }] : []),
    level,
  ];
  return files(m, vocabulary, bos, {
    normalizer,
    pre_tokenizer: { type: "Sequence", pretokenizers: steps },
    decoder: level,
    model: {
      ...bpe(vocabulary, m.texts("tokenizer.ggml.merges")),
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: ignoreMerges,
    },
  });
}

function sentencePiece(m: Metadata, vocabulary: Vocabulary): TokenizerFiles | string {
  const { tokens, types } = vocabulary;
  const scores = m.numbers("tokenizer.ggml.scores", tokens.length);
  if (new Set(scores.filter((_, id) => types[id] === NORMAL)).size < 2)
    return "its tokens have no scores, from which merges follow";
  const unknown = m.id("tokenizer.ggml.unknown_token_id") ?? types.indexOf(UNKNOWN);
  const prefix = m.flag("tokenizer.ggml.add_space_prefix", true);
  const space = { String: " " };
  const mark = "\u2581";
  return files(m, vocabulary, true, {
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(prefix ? [{ type: "Prepend", prepend: mark }] : []),
        { type: "Replace", pattern: space, content: mark },
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: mark }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      ...bpe(vocabulary, mergesOf(vocabulary, scores)),
      unk_token: tokens[unknown] ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
    },
  });
}

function bpe({ tokens }: Vocabulary, merges: readonly string[] | readonly [string, string][]): object {
  return {
    type: "BPE",
    dropout: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    merges,
  };
}

/**
 * SentencePiece joins the two neighbors whose whole has the highest score: as merges, every way to divide a token into two tokens, by
 * falling score, as transformers converts such a model.
 */
function mergesOf({ tokens, types }: Vocabulary, scores: readonly number[]): [string, string][] {
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (types[id] === NORMAL || types[id] === USER_DEFINED) ids.set(token, id); // prettier-ignore
  const found: { pair: [string, string]; score: number; lengths: [number, number] }[] = [];
  for (const [token, id] of ids) {
    const letters = Array.from(token);
    const ways: [string, string][] = [];
    for (let at = 1; at < letters.length; at++) {
      const [left, right] = [letters.slice(0, at).join(""), letters.slice(at).join("")];
      if (ids.has(left) && ids.has(right)) ways.push([left, right]);
    }
    ways.sort((a, b) => ids.get(a[0])! - ids.get(b[0])! || ids.get(a[1])! - ids.get(b[1])!);
    for (const pair of ways)
      found.push({
        pair,
        score: scores[id]!,
        lengths: [Array.from(pair[0]).length, Array.from(pair[1]).length],
      });
  }
  found.sort((a, b) => b.score - a.score || b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
  return found.map(({ pair }) => pair);
}

/** Both files, with what all kinds of vocabulary share: special tokens, and those that begin and end a text. */
function files(
  m: Metadata,
  { tokens, types }: Vocabulary,
  bosByDefault: boolean,
  parts: Record<string, unknown>,
): TokenizerFiles {
  const special = (name: string): string | null => {
    const id = m.id(`tokenizer.ggml.${name}_token_id`);
    if (id === null) return null;
    return tokens[id] ?? m.fail(`tokenizer.ggml.${name}_token_id`, `an id below ${tokens.length}`);
  };
  const [bos, eos] = [special("bos"), special("eos")];
  const first = m.flag("tokenizer.ggml.add_bos_token", bosByDefault) ? bos : null;
  const last = m.flag("tokenizer.ggml.add_eos_token", false) ? eos : null;
  const added = tokens.flatMap((content, id) =>
    types[id] === CONTROL || types[id] === USER_DEFINED || types[id] === UNKNOWN
      ? [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: types[id] !== USER_DEFINED }] // prettier-ignore
      : [],
  );
  const template = m.get("tokenizer.chat_template");
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: added,
      ...parts,
      post_processor: first === null && last === null ? null : surround(tokens, first, last),
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      bos_token: bos,
      eos_token: eos,
      unk_token: special("unknown"),
      pad_token: special("padding"),
      ...(typeof template === "string" && { chat_template: template }),
    },
  };
}

/** Puts one token before every text, or one behind it, or both. */
function surround(tokens: readonly string[], first: string | null, last: string | null): object {
  const own = (token: string | null): object[] => (token === null ? [] : [{ SpecialToken: { id: token, type_id: 0 } }]); // prettier-ignore
  const single = [...own(first), { Sequence: { id: "A", type_id: 0 } }, ...own(last)];
  const used = [first, last].filter((token) => token !== null);
  return {
    type: "TemplateProcessing",
    single,
    pair: [...single, ...own(first), { Sequence: { id: "B", type_id: 1 } }, ...own(last)],
    special_tokens: Object.fromEntries(
      used.map((token) => [token, { id: token, ids: [tokens.indexOf(token)], tokens: [token] }]),
    ),
  };
}
