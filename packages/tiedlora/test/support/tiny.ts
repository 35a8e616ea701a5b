/** Small decoders for tests, and the numbers that tests compare. */
import { type Device, reference, type Tensor } from "@tiedlora/core";
import { configFrom, createModel, type Decoder } from "@tiedlora/models";
import type { EncodedExample } from "../../src/data/encode.ts";

/** For the vocabulary of these models: a sequence that counts up from a number of its own. */
export function countingExample(from: number): EncodedExample {
  const length = 5 + (from % 4);
  const tokens = Int32Array.from({ length }, (_, t) => (3 * from + t) % 17);
  return { tokens, spans: [[1, length]], line: from + 1, truncated: false };
}

/** A Llama of three layers with grouped queries: hidden and query width 8, key and value width 4. */
export function tinyLlama(device: Device = reference(), fields: Record<string, unknown> = {}): Decoder {
  const config = configFrom({
    model_type: "llama",
    vocab_size: 17,
    hidden_size: 8,
    intermediate_size: 12,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    initializer_range: 0.4,
    ...fields,
  });
  return createModel(config, { device, seed: 1 });
}

/** A GPT-2 of three layers: transposed weights, biases, a tied output embedding. */
export function tinyGpt2(device: Device = reference(), fields: Record<string, unknown> = {}): Decoder {
  const config = configFrom({
    model_type: "gpt2",
    vocab_size: 17,
    n_embd: 8,
    n_layer: 3,
    n_head: 2,
    n_positions: 16,
    initializer_range: 0.4,
    ...fields,
  });
  return createModel(config, { device, seed: 1 });
}

export const IDS = [
  [3, 14, 1, 5, 9],
  [2, 6, 5, 3, 5],
] as const;

/** Loss of the model on IDS. */
export function lossOf(model: Decoder): Tensor {
  return model.loss({ inputIds: IDS });
}

export async function logitsOf(model: Decoder): Promise<number[]> {
  return [...(await model.forward(IDS).data())];
}

/** The largest absolute difference between two lists of numbers. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} numbers against ${b.length}`);
  return Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)));
}
