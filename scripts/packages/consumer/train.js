/** Some steps of Tied-LoRA on a small model, as a user writes them: every runtime and the page run this file. */
import { configFrom, createModel } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";

const STEPS = 3;
const config = configFrom({
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  initializer_range: 0.2,
});
const inputIds = [0, 3, 6, 9].map((start) => Array.from({ length: 12 }, (_, i) => (start + i) % 16));

/** The loss before and after. */
export async function train(device) {
  const model = createModel(config, { device, seed: 1 });
  const adapter = adapt(model, methods.tl6({ rank: 4 }));
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.05 });
  const before = await model.loss({ inputIds }).item();
  for (let step = 0; step < STEPS; step++) optimizer.step(model.loss({ inputIds }));
  const after = await model.loss({ inputIds }).item();
  device.close();
  return [before, after];
}
