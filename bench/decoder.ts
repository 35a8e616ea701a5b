/** Training of TL6 on a small decoder, at any sequence length. */
import type { Device, Tensor } from "@tiedlora/core";
import { configFrom, createModel } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";

export interface DecoderSize {
  readonly vocab: number;
  readonly dim: number;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly batch: number;
}

/** The shape of stories260K. */
export const STORIES: DecoderSize = {
  vocab: 512,
  dim: 64,
  hidden: 172,
  layers: 5,
  heads: 8,
  kvHeads: 4,
  batch: 8,
};

/** A function that takes a training step at a length, on tokens that follow from the seed, and returns the loss. */
export function decoderStep(
  device: Device,
  { vocab, dim, hidden, layers, heads, kvHeads, batch }: DecoderSize,
): (length: number, seed: number) => Tensor {
  const config = configFrom({
    model_type: "llama",
    vocab_size: vocab,
    hidden_size: dim,
    intermediate_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: 512,
    tie_word_embeddings: true,
  });
  const model = createModel(config, { device, seed: 1 });
  const adapter = adapt(model, methods.tl6({ rank: 8 }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.01 });
  return (length, seed) => {
    const token = (_: unknown, i: number): number => (seed + 7 * i) % vocab;
    const x = Int32Array.from({ length: batch * length }, token);
    const logits = model.forward(device.tensor(x, { shape: [batch, length] }));
    const loss = nn.crossEntropy(logits.reshape([batch * length, vocab]), device.tensor(x));
    optimizer.step(loss);
    return loss;
  };
}
