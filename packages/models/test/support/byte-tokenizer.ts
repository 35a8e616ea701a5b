/** A tokenizer for tests that need no vocabulary. */
import { memoryFiles } from "@tiedlora/core";
import { loadTokenizerFrom, type Tokenizer } from "../../src/tokenizer.ts";

/**
 * One token per byte, as in GPT-2's byte-level tokenizer, and <|end|> as token 256.
 * @param config tokenizer_config.json
 * @param more further parts of tokenizer.json
 */
export function byteTokenizer(config: object = {}, more: object = {}): Promise<Tokenizer> {
  return loadTokenizerFrom(memoryFiles(new Map(Object.entries(byteTokenizerFiles(config, more)))));
}

/** The files of `byteTokenizer`. */
export function byteTokenizerFiles(config: object = {}, more: object = {}): Record<string, string> {
  const printable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let extra = 256;
  const vocab = Object.fromEntries(
    Array.from({ length: 256 }, (_, byte) => [String.fromCodePoint(printable(byte) ? byte : extra++), byte]),
  );
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const tokenizer = {
    added_tokens: [
      {
        id: 256,
        content: "<|end|>",
        special: true,
        normalized: false,
        lstrip: false,
        rstrip: false,
        single_word: false,
      },
    ],
    pre_tokenizer: level,
    decoder: level,
    model: { type: "BPE", vocab, merges: [] },
    ...more,
  };
  return { "tokenizer.json": JSON.stringify(tokenizer), "tokenizer_config.json": JSON.stringify(config) };
}
