/** The corpus as token batches: documents one after the other, each between <s> and </s>, cut into rows. */
import type { Tokenizer } from "@tiedlora/models";
import { document } from "tiedlora/gym";

/** Where a stream stands; enough to continue it. */
export interface Position {
  document: number;
  /** Tokens of earlier documents that no batch has had yet. */
  left: number[];
}

export class TokenStream {
  readonly #tokenizer: Tokenizer;
  readonly #seed: number;
  #position: Position;

  constructor(tokenizer: Tokenizer, seed: number, position: Position = { document: 0, left: [] }) {
    this.#tokenizer = tokenizer;
    this.#seed = seed;
    this.#position = { document: position.document, left: [...position.left] };
  }

  get position(): Position {
    return { document: this.#position.document, left: [...this.#position.left] };
  }

  /** The next `batch` rows of `length` tokens. */
  next(batch: number, length: number): number[][] {
    const { left } = this.#position;
    const eos = this.#tokenizer.eosId;
    if (eos === null) throw new Error("the tokenizer has no end-of-text token; documents would run together");
    while (left.length < batch * length) {
      left.push(...this.#tokenizer.encode(document(this.#seed, this.#position.document++)), eos);
    }
    const taken = left.splice(0, batch * length);
    return Array.from({ length: batch }, (_, row) => taken.slice(row * length, (row + 1) * length));
  }
}
