/**
 * Initial values of attention that make lookup easy to learn, after the mimetic initialization of Trockman and Kolter
 * (2023, arXiv 2305.09828): queries and keys start equal, so that a token attends to similar tokens, and a head writes back
 * what it reads. Otherwise a model that sees only a few million tokens would hardly learn to copy.
 */
import { key, normalArray } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";

/** The scale of what a layer's attention writes back, relative to what it reads. */
const COPY_SCALE = 0.5;

/** Sets the attention weights of a decoder in Llama's or GPT-2's layout. Throws unless it has as many key heads as query heads. */
export function initAttention(model: Decoder, seed: number): void {
  const weights = new Map(model.namedParameters());
  const { hidden, layers, modelType } = model.config;
  for (let layer = 0; layer < layers; layer++) {
    const set = (path: string, values: Float32Array): void => {
      const parameter = weights.get(path);
      if (parameter?.size !== values.length)
        throw new RangeError(
          `initAttention: ${path} has ${parameter?.size ?? "no"} values; expected ${values.length}`,
        );
      parameter.set(values);
    };
    const random = (name: string): Float32Array =>
      normalArray(key(seed).fold(name).fold(layer), hidden * hidden, 0, 1 / Math.sqrt(hidden));
    const [queries, values] = [random("queries"), random("values")];
    const scaled = (matrix: Float32Array): Float32Array => matrix.map((value) => value * COPY_SCALE);
    if (modelType === "gpt2") {
      // one matrix for queries, keys and values; matrices are stored with inputs as rows
      const [q, v] = [transposed(queries, hidden), transposed(values, hidden)];
      set(`transformer.h.${layer}.attn.c_attn.weight`, besides([q, q, v], hidden));
      set(`transformer.h.${layer}.attn.c_proj.weight`, scaled(values));
      continue;
    }
    const projection = (name: string): string => `model.layers.${layer}.self_attn.${name}_proj.weight`;
    set(projection("q"), queries);
    set(projection("k"), queries);
    set(projection("v"), values);
    set(projection("o"), scaled(transposed(values, hidden)));
  }
}

/** Square matrices beside each other, as one. */
function besides(matrices: readonly Float32Array[], size: number): Float32Array {
  const width = matrices.length * size;
  return Float32Array.from({ length: size * width }, (_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return matrices[Math.floor(column / size)]![row * size + (column % size)]!;
  });
}

function transposed(matrix: Float32Array, size: number): Float32Array {
  return matrix.map((_, i) => matrix[(i % size) * size + Math.floor(i / size)]!);
}
