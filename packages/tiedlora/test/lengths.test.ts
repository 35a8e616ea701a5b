/** Training steps of many lengths: few of them are planned, and the plans of all others are made of theirs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Backend, Device, type DeviceBuffer, ReferenceBackend } from "@tiedlora/core";
import { configFrom, createModel } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "../src/index.ts";

/** A backend that has all library kernels, and computes nothing. */
function idle(): Backend {
  const alloc = (bytes: number): DeviceBuffer => ({
    bytes,
    write: () => {},
    read: () => Promise.resolve(new ArrayBuffer(bytes)),
    free: () => {},
  });
  const compile = () => ({ tempBytes: 0, run: () => {}, free: () => {} });
  return Object.assign(new ReferenceBackend(), { alloc, compile, accelerates: () => true });
}

/** A training step of a Llama with grouped heads, on batches of 8 texts. */
function stepOf(device: Device): (length: number) => void {
  const config = configFrom({
    model_type: "llama",
    vocab_size: 512,
    hidden_size: 64,
    intermediate_size: 172,
    num_hidden_layers: 2,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    max_position_embeddings: 512,
    tie_word_embeddings: true,
  });
  const model = createModel(config, { device, seed: 1 });
  const optimizer = optim.adamW(adapt(model, methods.tl6({ rank: 8 })).parameters(), { lr: 0.01 });
  return (length) => {
    const ids = device.tensor(new Int32Array(8 * length), { shape: [8, length] });
    const logits = model.forward(ids).reshape([8 * length, 512]);
    optimizer.step(nn.crossEntropy(logits, ids.reshape([8 * length])));
  };
}

test("of 64 lengths, whatever they are multiples of, five are planned", () => {
  const device = new Device(idle());
  const step = stepOf(device);
  for (let i = 0; i < 64; i++) step(65 + ((37 * i) % 64));
  // three make a family; 96 and 128 are also widths of the model, and are planned since equal lengths may be treated alike
  assert.deepEqual(device.families.counts, { planned: 5, made: 59 });
});
