/** Adapters of a model whose layers are read from its files while it runs: as those of the same model in memory. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, type Files, reference } from "@tiedlora/core";
import { type Decoder, loadModelFrom } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  adaptersOf,
  batchesOf,
  fit,
  mergedModelFiles,
  type Method,
  methods,
  nativeFiles,
  stackBatch,
} from "../src/index.ts";
import { asFiles, collect } from "./support/files.ts";
import { countingExample, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const TRAIN = Array.from({ length: 8 }, (_, i) => countingExample(i));
const filesOf = (model: Decoder): Promise<Files> =>
  collect(model.files({ dtype: "f16", maxShardBytes: 1000 })).then(asFiles);
const FILES = filesOf(tinyLlama());

interface Trained {
  readonly adapter: Adapter;
  readonly losses: readonly (number | null)[];
  readonly values: readonly (readonly number[])[];
}

/** Four steps of two batches each, with evaluations: on the model in memory with checkpoints, or streamed. */
async function trainOn(
  device: Device,
  method: Method,
  stream: boolean,
  files: Promise<Files> = FILES,
): Promise<Trained> {
  const model = await loadModelFrom(await files, { device, stream });
  model.checkpointing = true;
  const adapter = await adapt(model, method, { seed: 3 });
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.02, clipNorm: 0.5 });
  const batch = batchesOf(TRAIN, { batch: 2, maxLength: 16, seed: 4, padId: 0 });
  const valid = [stackBatch([countingExample(9), countingExample(10)], 16, 0)];
  const losses: (number | null)[] = [];
  const options = { model, adapter, optimizer, steps: 4, batch, accumulate: 2, valid, evalEvery: 2 };
  for await (const { training, evaluation } of fit(options))
    losses.push(training?.loss ?? null, training?.gradNorm ?? null, evaluation?.loss ?? null);
  const values = await Promise.all(adapter.parameters().map(async (one) => [...(await one.data())]));
  return { adapter, losses, values };
}

const METHODS: Readonly<Record<string, () => Method>> = {
  "TL6 with dropout": () => methods.tl6({ rank: 2, dropout: 0.2 }),
  "DoRA, whose start reads the weights": () => methods.dora({ rank: 2, target: "all-linear" }),
  "LoRA-XS, whose start is a singular value decomposition": () => methods.loraXs({ rank: 2 }),
};

describe("training a streamed model", () => {
  for (const [name, method] of Object.entries(METHODS))
    test(`${name}: losses, norms and adapter are those of the model in memory, bit for bit`, async () => {
      const device = reference({ fusion: "off" });
      const [streamed, resident] = [
        await trainOn(device, method(), true),
        await trainOn(device, method(), false),
      ];
      assert.deepEqual(streamed.losses, resident.losses);
      assert.deepEqual(streamed.values, resident.values);
      device.close();
    });

  const families: Readonly<Record<string, () => Decoder>> = {
    Llama: tinyLlama,
    "GPT-2": tinyGpt2,
    "Qwen2, with a tied output embedding": () =>
      tinyLlama(reference(), { model_type: "qwen2", tie_word_embeddings: true }),
    "Gemma 2": () => tinyLlama(reference(), { model_type: "gemma2", head_dim: 4, sliding_window: 4 }),
  };
  for (const [family, make] of Object.entries(families))
    test(`${family}, on fused kernels of several threads: the adapter's file has the bytes of the one trained in memory`, async () => {
      const files = filesOf(make());
      for (const method of [methods.tl6({ rank: 3 }), methods.lora({ rank: 2 })]) {
        const contents = [];
        for (const stream of [true, false]) {
          const device = await cpu({ threads: 2, inlineNs: 0 });
          const { adapter, losses } = await trainOn(device, method, stream, files);
          contents.push([await collect(nativeFiles(adapter)), losses]);
          device.close();
        }
        assert.deepEqual(contents[0], contents[1], method.name);
      }
    });

  test("the merged model, written from its files, has the bytes of the one merged from memory", async () => {
    const device = await cpu({ threads: 2 });
    const contents = [];
    for (const stream of [true, false]) {
      const model = await loadModelFrom(await FILES, { device, stream });
      const adapter = await adapt(model, methods.dora({ rank: 2 }), { seed: 3 });
      for (const [, parameter] of adapter.stateDict())
        parameter.set(Float32Array.from({ length: parameter.size }, (_, i) => 0.01 * ((i % 7) + 1)));
      contents.push(await collect(mergedModelFiles(model, { maxShardBytes: 2000 })));
    }
    assert.deepEqual(contents[0], contents[1]);
    device.close();
  });

  test("merging in memory is refused, and says what to do", async () => {
    const device = reference();
    const model = await loadModelFrom(await FILES, { device, stream: true });
    adapt(model, methods.lora({ rank: 2 }));
    await assert.rejects(
      adaptersOf(model).merge(),
      /not all weights of this model are in memory.*saveMerged/,
    );
    device.close();
  });
});
