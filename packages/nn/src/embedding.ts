/** Embedding tables. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/extend";
import { checkInit, checkParameter, type InitOptions, normalParameter } from "./init.ts";
import { Module } from "./module.ts";

/** Changes what an embedding gives, as `LinearAdapter` does for a linear layer. */
export interface EmbeddingAdapter {
  /** From the ids [...] and the rows y [..., d] they pick: the new output [..., d]. */
  apply(ids: Tensor, y: Tensor, layer: Embedding): Tensor;
}

/** Rows of a table [n, d] by index. */
export class Embedding extends Module {
  /** The table [n, d]. */
  weight: Parameter;
  /** What changes the output, if anything. */
  adapter: EmbeddingAdapter | null = null;

  constructor(weight: Parameter) {
    super();
    this.weight = checkParameter("Embedding: the weight", weight, [null, null]);
  }

  /** A new table with values N(0, std²). */
  static init(count: number, dim: number, options: InitOptions & { readonly std?: number }): Embedding {
    checkWhole("Embedding: count", count, 1);
    checkWhole("Embedding: dim", dim, 1);
    checkInit("Embedding", options);
    return new Embedding(
      normalParameter([count, dim], options.std === undefined ? 1 : options.std, options, "weight"),
    );
  }

  /** ids (i32) [...] -> [..., d]. An id out of range gives NaN. */
  forward(ids: Tensor): Tensor {
    const y = this.weight.take(ids);
    return this.adapter ? this.adapter.apply(ids, y, this) : y;
  }
}
