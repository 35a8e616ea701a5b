/**
 * Initial values of attention that make lookup easy to learn, after the mimetic initialization of Trockman and Kolter
 * (2023, arXiv 2305.09828): queries and keys start equal, so that a token attends to similar tokens, and a head writes back
 * what it reads. Otherwise a model that sees only a few million tokens would hardly learn to copy.
 */
import { key, normalArray } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";

/** The scale of what a layer's attention writes back, relative to what it reads. */
const COPY_SCALE = 0.5;

/** Sets the attention weights of a decoder in Llama's layout. Throws unless it has as many key heads as query heads. */
export function initAttention(model: Decoder, seed: number): void {
  const weights = new Map(model.namedParameters());
  const { hidden, layers } = model.config;
  for (let layer = 0; layer < layers; layer++) {
    const set = (name: string, values: Float32Array): void => {
      const path = `model.layers.${layer}.self_attn.${name}_proj.weight`;
      const parameter = weights.get(path);
      if (parameter?.size !== values.length)
        throw new RangeError(`initAttention: ${path} is not a square matrix of ${hidden} rows`);
      parameter.set(values);
    };
    const random = (name: string): Float32Array =>
      normalArray(key(seed).fold(name).fold(layer), hidden * hidden, 0, 1 / Math.sqrt(hidden));
    const queries = random("queries");
    set("q", queries);
    set("k", queries);
    const values = random("values");
    set("v", values);
    set(
      "o",
      transposed(values, hidden).map((value) => value * COPY_SCALE),
    );
  }
}

function transposed(matrix: Float32Array, size: number): Float32Array {
  return matrix.map((_, i) => matrix[(i % size) * size + Math.floor(i / size)]!);
}
