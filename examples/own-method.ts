/**
 * A method of your own: declared in fifteen lines, then injected, counted, trained, saved, loaded and merged like any other.
 *
 *   npx tsx --conditions=@tiedlora/source examples/own-method.ts
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cpu } from "@tiedlora/backend-cpu";
import * as optim from "@tiedlora/nn/optim";
import { configFrom, createModel, type Decoder } from "@tiedlora/models";
import { adapt, adaptersOf, defineMethod, formatReport, init, inspect } from "tiedlora";
import { loadAdapter, saveAdapter } from "tiedlora/node";

// The method. One A and one B for all layers, as in Tied-LoRA; between them, a small matrix for each pair of successive
// layers, and a gain for each layer: ΔW_l = g_l · B M_⌊l/2⌋ A. M starts at zero, so that the model is unchanged at first.
const pairwise = defineMethod({
  name: "pairwise-core",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    B: { shape: ["out", "rank"], init: init.normal(), tie: "all" },
    M: { shape: ["rank", "rank"], init: init.zeros(), tie: { blocks: 2 } },
    g: { shape: [1], init: init.ones() },
  },
  lowRank: ({ A, B, M, g }) => ({ A: M.matmul(A).mul(g), B }),
});

// A small model. A real one comes from loadModel("./directory", { device }).
const device = await cpu();
const config = configFrom({
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  initializer_range: 0.2,
});
const makeModel = (): Decoder => createModel(config, { device, seed: 1 });

// The task: to count upward, modulo 16, from any start.
const LENGTH = 12;
const inputIds = [0, 3, 6, 9, 12, 15].map((start) =>
  Array.from({ length: LENGTH }, (_, i) => (start + i) % 16),
);

const model = makeModel();
const before = await model.forward(inputIds).data();
const adapter = adapt(model, pairwise);
assert.deepEqual(await model.forward(inputIds).data(), before, "the model answers as before");
console.log(formatReport(inspect(adapter)));
adapter.printTrainableParameters();

const optimizer = optim.adamW(adapter.parameters(), { lr: 0.02 });
const losses: number[] = [];
for (let step = 0; step < 120; step++) {
  const loss = model.loss({ inputIds });
  optimizer.step(loss);
  losses.push(await loss.item());
  if (step % 40 === 0 || step === 119)
    console.log(`step ${String(step).padStart(3)}  loss ${losses.at(-1)!.toFixed(3)}`);
}
assert.ok(losses.at(-1)! < 0.3 * losses[0]!, "it learns");

// Save, each tied factor once, and load into a fresh model. `loadAdapter` must be given a method that is not in the library.
const directory = await mkdtemp(join(tmpdir(), "own-method-"));
await saveAdapter(adapter, directory);
const fresh = makeModel();
await loadAdapter(fresh, directory, { method: pairwise });
await rm(directory, { recursive: true });
const adapted = await model.forward(inputIds).data();
assert.deepEqual(
  await fresh.forward(inputIds).data(),
  adapted,
  "the loaded adapter is the same, bit for bit",
);

// Merge: a plain model with the same answers, up to rounding.
await adaptersOf(fresh).mergeAndUnload();
const merged = await fresh.forward(inputIds).data();
const difference = Math.max(...merged.map((value, i) => Math.abs(value - adapted[i]!)));
console.log(`merged: largest difference of a logit ${difference.toExponential(1)}`);
assert.ok(difference < 1e-3);

device.close();
