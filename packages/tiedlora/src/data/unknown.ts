/** Characters that a tokenizer does not know: it writes <unk> for them, or leaves them out, and says nothing of it. */
import type { TextEncoderLike } from "./encode.ts";

/** What a tokenizer makes nothing of. */
export interface Unknown {
  /** How many tokens are the one for what is unknown. */
  readonly tokens: number;
  /** Characters that are unknown or left out, and how often each occurs; the most frequent first. */
  readonly characters: readonly (readonly [character: string, count: number])[];
}

/** Gathers them from the texts of a data set; each character is looked up once. */
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

  /** Between letters, as it is in a text: what is at its ends, tokenizers may trim. */
  #isUnknown(character: string): boolean {
    const { unkId = null } = this.#tokenizer;
    if (unkId === null) return false;
    const text = this.#encode("aa").includes(unkId) ? character : `a${character}a`;
    return this.#encode(text).includes(unkId);
  }

  /** Letters, digits and signs alone: white space and marks are what normalizers are there to drop. */
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
