/** Finds characters that a tokenizer does not know, which it silently replaces by <unk> or leaves out. */
import type { TextEncoderLike } from "./encode.ts";

/** The characters of a data set that a tokenizer does not know. */
export interface Unknown {
  /** The number of tokens that are <unk>. */
  readonly tokens: number;
  /** The characters that are replaced by <unk> or left out, and the number of times that each occurs; the most frequent first. */
  readonly characters: readonly (readonly [character: string, count: number])[];
}

/** Gathers the unknown characters of the texts of a data set; looks up each character once. */
export class UnknownCharacters {
  readonly #tokenizer: TextEncoderLike;
  readonly #known = new Map<string, boolean>();
  readonly #counts = new Map<string, number>();
  #tokens = 0;

  constructor(tokenizer: TextEncoderLike) {
    this.#tokenizer = tokenizer;
  }

  add(texts: readonly string[], tokens: Int32Array): void {
    const { unkId = null } = this.#tokenizer;
    if (unkId !== null) for (const token of tokens) if (token === unkId) this.#tokens++;
    for (const text of texts) {
      for (const character of text) {
        if (!this.#isKnown(character)) this.#counts.set(character, (this.#counts.get(character) ?? 0) + 1);
      }
    }
  }

  #isKnown(character: string): boolean {
    const found = this.#known.get(character);
    if (found !== undefined) return found;
    const known = !this.#isUnknown(character) && !this.#isLeftOut(character);
    this.#known.set(character, known);
    return known;
  }

  #encode(text: string): readonly number[] {
    return this.#tokenizer.encode(text, { specialTokens: false });
  }

  /** Tests the character between letters if possible, because tokenizers may trim the ends of a text. */
  #isUnknown(character: string): boolean {
    const { unkId = null } = this.#tokenizer;
    if (unkId === null) return false;
    const text = this.#encode("aa").includes(unkId) ? character : `a${character}a`;
    return this.#encode(text).includes(unkId);
  }

  /** Tests only letters, digits, punctuation and symbols, because normalizers drop white space and marks on purpose. */
  #isLeftOut(character: string): boolean {
    if (!/[\p{L}\p{N}\p{P}\p{S}]/u.test(character)) return false;
    const [within, without] = [this.#encode(`a${character}a`), this.#encode("aa")];
    return within.length === without.length && within.every((token, i) => token === without[i]);
  }

  result(): Unknown | null {
    if (this.#tokens === 0 && this.#counts.size === 0) return null;
    return { tokens: this.#tokens, characters: [...this.#counts].sort(([, a], [, b]) => b - a) };
  }
}
