/** Losses of the outputs on a model whose layers are read from its files while it runs: as on the same model in memory. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Device, type Files, reference } from "@tiedlora/core";
import { loadModelFrom } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  batchesOf,
  type EncodedExample,
  fit,
  type LanguageModel,
  type Loss,
  losses,
  type Method,
  methods,
  stackBatch,
} from "../src/index.ts";
import { asFiles, collect } from "./support/files.ts";
import { countingExample, distance, tinyLlama } from "./support/tiny.ts";

const FILES: Promise<Files> = collect(tinyLlama().files({})).then(asFiles);

const TEXTS = Array.from({ length: 6 }, (_, i) => countingExample(i));
const PAIRS = TEXTS.map((one, i): EncodedExample => ({ ...one, beside: countingExample(i + 7) }));
const LABELED = PAIRS.map((one, i): EncodedExample => ({ ...one, label: i % 2 === 0 }));

/** Three steps of two batches each, with evaluations: losses, metrics, norms, and the trained values. */
async function trained(
  device: Device,
  stream: boolean,
  examples: readonly EncodedExample[],
  { method, loss }: { readonly method: Method; readonly loss: (teacher: LanguageModel) => Loss },
): Promise<number[]> {
  const model = await loadModelFrom(await FILES, { device, stream });
  const teacher = await loadModelFrom(await collect(tinyLlama(reference(), { initializer_range: 0.7 }).files({})).then(asFiles), { device, stream }); // prettier-ignore
  const adapter = await adapt(model, method, { seed: 3 });
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.02, clipNorm: 0.5 });
  const batch = batchesOf(examples, { batch: 2, maxLength: 16, seed: 4, padId: 0 });
  const valid = [stackBatch(examples.slice(0, 3), 16, 0)];
  const seen: number[] = [];
  const options = { model, adapter, optimizer, steps: 3, batch, accumulate: 2, valid, evalEvery: 1, loss: loss(teacher) }; // prettier-ignore
  for await (const { training, evaluation } of fit(options)) {
    for (const one of [training, evaluation])
      if (one !== null) seen.push(one.loss, ...Object.values(one.metrics ?? {}));
    if (training !== null) seen.push(training.gradNorm!);
  }
  for (const parameter of adapter.parameters()) seen.push(...(await parameter.data()));
  return seen;
}

const tl6 = methods.tl6({ rank: 2 });
const CASES: Readonly<Record<string, readonly [readonly EncodedExample[], Method, (teacher: LanguageModel) => Loss]>> = {
  DPO: [PAIRS, tl6, () => losses.dpo({ beta: 0.5 })],
  "IPO of LoRA with dropout": [PAIRS, methods.lora({ rank: 2, dropout: 0.3 }), () => losses.dpo({ kind: "ipo", beta: 0.5 })],
  ORPO: [PAIRS, tl6, () => losses.orpo({ beta: 0.5 })],
  "KTO of norms and rows": [LABELED, methods.lora({ rank: 1, target: ["norm", "q_proj"], trainedTokens: [3, 4] }), () => losses.kto({ beta: 0.5 })],
  "distillation of a model that is streamed too": [TEXTS, tl6, (teacher) => losses.distillation({ teacher })],
  "label smoothing, z-loss and regularizers": [
    TEXTS,
    tl6,
    () => losses.regularized(losses.crossEntropy({ labelSmoothing: 0.1, zLoss: 0.01 }), { l2: 0.01, kl: 0.3 }),
  ],
}; // prettier-ignore

describe("losses of a streamed model's outputs", () => {
  for (const [name, [examples, method, loss]] of Object.entries(CASES))
    test(`${name}: losses, metrics, norms and adapter are those of the model in memory`, async () => {
      const device = reference();
      const [streamed, resident] = [
        await trained(device, true, examples, { method, loss }),
        await trained(device, false, examples, { method, loss }),
      ];
      assert.ok(resident.length > 60 && resident.every(Number.isFinite));
      const scaled = (values: readonly number[]): number[] => values.map((x, i) => x / (1 + Math.abs(resident[i]!))); // prettier-ignore
      const off = distance(scaled(streamed), scaled(resident));
      assert.ok(off < 1e-6, String(off));
      device.close();
    });
});
