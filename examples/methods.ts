/**
 * Twelve methods of their own, each a declaration of at most fifteen lines in a file of examples/methods: trained on one task, saved,
 * loaded, and merged where a weight can hold them.
 *
 *   npx tsx --conditions=@tiedlora/source examples/methods.ts
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cpu } from "@tiedlora/backend-cpu";
import { configFrom, createModel, type Decoder } from "@tiedlora/models";
import { adapt, adapterOptimizer, adaptersOf, type Method } from "tiedlora";
import { loadAdapter, saveAdapter } from "tiedlora/node";
import { drawnAnew } from "./methods/drawn-anew.ts";
import { hashed } from "./methods/hashed.ts";
import { mirror } from "./methods/mirror.ts";
import { narrowAndWide } from "./methods/narrow-and-wide.ts";
import { pairwiseCore } from "./methods/pairwise-core.ts";
import { randomCore } from "./methods/random-core.ts";
import { scales } from "./methods/scales.ts";
import { sharedAndOwn } from "./methods/shared-and-own.ts";
import { sharedGain } from "./methods/shared-gain.ts";
import { squashed } from "./methods/squashed.ts";
import { twoSpeeds } from "./methods/two-speeds.ts";
import { waves } from "./methods/waves.ts";

const METHODS: readonly Method[] = [
  drawnAnew,
  hashed,
  mirror,
  narrowAndWide,
  pairwiseCore,
  randomCore,
  scales,
  sharedAndOwn,
  sharedGain,
  squashed,
  twoSpeeds,
  waves,
];

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
const inputIds = [0, 3, 6, 9, 12, 15].map((start) => Array.from({ length: 12 }, (_, i) => (start + i) % 16));
const STEPS = 40;

const directory = await mkdtemp(join(tmpdir(), "methods-"));
console.log("method             trained   loss before -> after");
for (const method of METHODS) {
  const model = makeModel();
  const before = await model.forward(inputIds).data();
  const adapter = await adapt(model, method, { seed: 3 });
  assert.deepEqual(
    await model.forward(inputIds).data(),
    before,
    `${method.name}: the model answers as before`,
  );

  const optimizer = adapterOptimizer(adapter, { steps: STEPS });
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const loss = model.loss({ inputIds });
    optimizer.step(loss);
    if (step === 0 || step === STEPS - 1) losses.push(await loss.item());
  }
  const [first = 0, last = 0] = losses;
  assert.ok(last < first, `${method.name} learns`);
  console.log(`${method.name.padEnd(18)} ${String(adapter.count().trainable).padStart(7)}   ${first.toFixed(3)} -> ${last.toFixed(3)}`); // prettier-ignore

  await saveAdapter(adapter, join(directory, method.name));
  const fresh = makeModel();
  await loadAdapter(fresh, join(directory, method.name), { method });
  const adapted = await model.forward(inputIds).data();
  assert.deepEqual(await fresh.forward(inputIds).data(), adapted, `${method.name} comes back the same`);

  if (method === squashed) continue;
  await adaptersOf(fresh).mergeAndUnload();
  const merged = await fresh.forward(inputIds).data();
  const difference = Math.max(...merged.map((value, i) => Math.abs(value - adapted[i]!)));
  assert.ok(difference < 1e-3, `${method.name} is merged`);
}
await rm(directory, { recursive: true });
device.close();
