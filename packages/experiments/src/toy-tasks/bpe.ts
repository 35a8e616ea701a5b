/**
 * Trains a byte-level BPE tokenizer and writes it as a Hugging Face tokenizer.json: GPT-2's pre-tokenizer and byte
 * alphabet, Llama's special tokens. Every text can be encoded, and decodes to itself. Small corpora only.
 */

/** GPT-2's pre-tokenizer: contractions, words, numbers and marks, each with the space before it. */
const PIECES = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The tokens that stand for no text. */
export const SPECIAL_TOKENS = { pad: "<pad>", bos: "<s>", eos: "</s>" } as const;

/** A trained byte-pair encoding. */
export interface Bpe {
  /** Token to id: the special tokens, the 256 bytes, then one token per merge. */
  vocab: Map<string, number>;
  merges: [left: string, right: string][];
}

/** GPT-2's printable stand-in of each byte: itself where it prints, else a letter from U+0100 on. */
export function byteAlphabet(): string[] {
  const prints = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(prints(b) ? b : next++));
}

/**
 * Learns merges until there are `vocabSize` tokens: each time the most frequent pair of neighbors; of equally frequent pairs,
 * the first in code-unit order.
 * @throws RangeError if vocabSize leaves no room for the bytes, or the corpus runs out of pairs
 */
export function trainBpe(texts: Iterable<string>, vocabSize: number): Bpe {
  const alphabet = byteAlphabet();
  const tokens: string[] = [...Object.values(SPECIAL_TOKENS), ...alphabet];
  if (vocabSize < tokens.length) {
    throw new RangeError(
      `trainBpe: vocabSize is ${vocabSize}; expected at least ${tokens.length}, for all bytes`,
    );
  }
  const words = countWords(texts, alphabet);
  const merges: [string, string][] = [];
  while (tokens.length < vocabSize) {
    const best = mostFrequentPair(words);
    if (best === null)
      throw new RangeError(`trainBpe: the corpus yields ${tokens.length} tokens, not ${vocabSize}`);
    merges.push(best);
    tokens.push(best[0] + best[1]);
    for (const word of words) merge(word.symbols, best);
  }
  return { vocab: new Map(tokens.map((token, id) => [token, id])), merges };
}

interface Word {
  symbols: string[];
  count: number;
}

function countWords(texts: Iterable<string>, alphabet: readonly string[]): Word[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [piece] of text.matchAll(PIECES)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  }
  const encoder = new TextEncoder();
  return [...counts].map(([piece, count]) => ({
    symbols: Array.from(encoder.encode(piece), (byte) => alphabet[byte] as string),
    count,
  }));
}

function mostFrequentPair(words: readonly Word[]): [string, string] | null {
  const counts = new Map<string, number>();
  for (const { symbols, count } of words) {
    for (let i = 1; i < symbols.length; i++) {
      const pair = `${symbols[i - 1]} ${symbols[i]}`;
      counts.set(pair, (counts.get(pair) ?? 0) + count);
    }
  }
  let best: string | null = null;
  let most = 0;
  for (const [pair, count] of counts) {
    if (count > most || (count === most && best !== null && pair < best)) [best, most] = [pair, count];
  }
  return best === null ? null : (best.split(" ") as [string, string]);
}

/** Replaces the pair by its union, from left to right, in place. */
function merge(symbols: string[], [left, right]: readonly [string, string]): void {
  for (let i = 1; i < symbols.length; i++) {
    if (symbols[i - 1] === left && symbols[i] === right) symbols.splice(i - 1, 2, left + right);
  }
}

/** The tokenizer.json and tokenizer_config.json of a Hugging Face directory; a text begins with the bos token. */
export function tokenizerFiles(bpe: Bpe, maxLength: number): { tokenizer: object; config: object } {
  const { pad, bos, eos } = SPECIAL_TOKENS;
  const id = (token: string): number => bpe.vocab.get(token) as number;
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [pad, bos, eos].map((content) => ({
      id: id(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: bos, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { [bos]: { id: bos, ids: [id(bos)], tokens: [bos] } },
    },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(bpe.vocab),
      merges: bpe.merges,
    },
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    add_bos_token: true,
    add_eos_token: false,
    add_prefix_space: false,
    bos_token: bos,
    eos_token: eos,
    pad_token: pad,
    clean_up_tokenization_spaces: false,
    model_max_length: maxLength,
  };
  return { tokenizer, config };
}
