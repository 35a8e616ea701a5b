/**
 * The corpus as token batches. Each row begins with a document, between <s> and </s>, and continues with the next ones until it
 * is full; the rest of the last one is dropped. So most documents are read from their beginning, with little text before them:
 * what the model must look up is near, which is easier to learn.
 */
import type { Tokenizer } from "@tiedlora/models";
import { document } from "@tiedlora/experiments/toy-tasks";

export class TokenStream {
  readonly #tokenizer: Tokenizer;
  readonly #seed: number;
  /** The number of the next document, which is all that is needed to continue the stream. */
  position: number;

  constructor(tokenizer: Tokenizer, seed: number, position = 0) {
    this.#tokenizer = tokenizer;
    this.#seed = seed;
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
      row.push(...this.#tokenizer.encode(document(this.#seed, this.position++)), eosId);
    }
    return row.slice(0, length);
  }
}
