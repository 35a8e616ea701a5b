/** Embedding tables. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { type InitOptions, normalParameter } from "./init.ts";
import { Module } from "./module.ts";

/** Changes what an embedding gives, as `LinearAdapter` does for a linear layer. */
export interface EmbeddingAdapter {
  apply(ids: Tensor, y: Tensor, layer: Embedding): Tensor;
}

/** Rows of a table [n, d] by index. */
export class Embedding extends Module {
  weight: Parameter;
  adapter: EmbeddingAdapter | null = null;

  constructor(weight: Parameter) {
    super();
    this.weight = weight;
  }

  /** A new table with values N(0, std²). */
  static init(count: number, dim: number, options: InitOptions & { readonly std?: number }): Embedding {
    return new Embedding(normalParameter([count, dim], options.std ?? 1, options, "weight"));
  }

  /** ids (i32) [...] -> [..., d]. An id out of range gives NaN. */
  forward(ids: Tensor): Tensor {
    const y = this.weight.take(ids);
    return this.adapter ? this.adapter.apply(ids, y, this) : y;
  }
}
