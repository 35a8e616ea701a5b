/**
 * The corpus as token batches. Each row begins with a document, between <s> and </s>, and goes on with the next ones until it
 * is full; what does not fit is dropped. So most documents are read from their beginning, with little else before them: what
 * has to be looked up is near, which the model learns sooner.
 *
 * A stream may begin with repetitions: documents that say everything twice. In them most of what can be learned is to look
 * back; in the whole corpus that is so small a part that millions of tokens would go by before a model found it.
 */
import type { Tokenizer } from "@tiedlora/models";
import { document, repetition } from "tiedlora/gym";

export class TokenStream {
  readonly #tokenizer: Tokenizer;
  readonly #seed: number;
  readonly #repetitions: number;
  /** The next document; enough to continue the stream. */
  position: number;

  /** The first `repetitions` documents are repetitions. */
  constructor(tokenizer: Tokenizer, seed: number, repetitions = 0, position = 0) {
    this.#tokenizer = tokenizer;
    this.#seed = seed;
    this.#repetitions = repetitions;
    this.position = position;
  }

  /** The next `batch` rows of `length` tokens. */
  next(batch: number, length: number): number[][] {
    return Array.from({ length: batch }, () => this.#row(length));
  }

  #row(length: number): number[] {
    const { eosId } = this.#tokenizer;
    if (eosId === null)
      throw new Error("the tokenizer has no end-of-text token; documents would run together");
    const row: number[] = [];
    while (row.length < length) {
      row.push(...this.#tokenizer.encode(this.#document(this.position++)), eosId);
    }
    return row.slice(0, length);
  }

  #document(index: number): string {
    return index < this.#repetitions ? repetition(this.#seed, index) : document(this.#seed, index);
  }
}
