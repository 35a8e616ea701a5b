/** Embedding tables. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkWhole } from "@tiedlora/core/extend";
import type { GraphState } from "./adapters.ts";
import { checkInit, checkParameter, type InitOptions, normalParameter } from "./init.ts";
import { Module } from "./module.ts";

/** Changes the output of an embedding, as `LinearAdapter` does for a linear layer. */
export interface EmbeddingAdapter {
  /** Returns the new output [..., d] from the ids [...] and the rows y [..., d] that they select. */
  apply(ids: Tensor, y: Tensor, layer: Embedding): Tensor;
  /** Vectors [n, d] that every sequence begins with, in front of the rows of its tokens; null if there are none. */
  prompt?(): Tensor | null;
  /** See `GraphState`. */
  state?(): GraphState;
}

/** A table [n, d] whose rows are looked up by index. */
export class Embedding extends Module {
  /** The table [n, d]. */
  weight: Parameter;
  /** The adapter that changes the output, or null. */
  adapter: EmbeddingAdapter | null = null;

  constructor(weight: Parameter) {
    super();
    this.weight = checkParameter("Embedding: the weight", weight, [null, null]);
  }

  /** A new table [count, dim] with values drawn from N(0, std²); `std` is 1 by default. */
  static init(count: number, dim: number, options: InitOptions & { readonly std?: number }): Embedding {
    checkWhole("Embedding: count", count, 1);
    checkWhole("Embedding: dim", dim, 1);
    checkInit("Embedding", options);
    return new Embedding(
      normalParameter([count, dim], options.std === undefined ? 1 : options.std, options, "weight"),
    );
  }

  /** ids (i32) [...] -> [..., d]. An id out of range gives a row of NaN. */
  forward(ids: Tensor): Tensor {
    const y = this.weight.take(ids);
    return this.adapter ? this.adapter.apply(ids, y, this) : y;
  }
}
