/** Training whose micro-batches are computed in another place gives the bits of training in one place. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  batchesOf,
  type GradientSource,
  GradientWorker,
  losses,
  methodByName,
  type MethodName,
  train,
  type TrainOptions,
} from "../src/index.ts";
import type { EncodedExample } from "../src/data/encode.ts";
import { tinyLlama } from "./support/tiny.ts";

/** An epoch of seven batches, so that a step of three has one batch at the end of an epoch. */
const EXAMPLES = Array.from({ length: 13 }, (_, i): EncodedExample => {
  const length = 5 + (i % 7);
  const tokens = Int32Array.from({ length }, (_, t) => (3 * i + t) % 17);
  return { tokens, spans: [[1 + (i % 3), length]], line: i + 1, truncated: false };
});

async function setup(device: Device, method: MethodName): Promise<TrainOptions> {
  const model = tinyLlama(device);
  const adapter = await adapt(model, methodByName(method, { rank: 2, dropout: 0.2 }), { seed: 3 });
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.02, clipNorm: 0.05 });
  const batch = batchesOf(EXAMPLES, { batch: 2, maxLength: 16, seed: 4, padId: 0 });
  return { model, adapter, optimizer, steps: 5, batch, accumulate: 3 };
}

/** Computes micro-batches with other objects, last first, as other processes may. */
function elsewhere({ adapter: from }: TrainOptions, there: TrainOptions): GradientSource {
  const worker = new GradientWorker(there.model, there.adapter, there.loss);
  return async (batches) => {
    for (const [path, parameter] of from.stateDict())
      there.adapter
        .stateDict()
        .get(path)!
        .set(await parameter.data());
    const answers = [];
    for (const micro of batches.toReversed())
      answers.unshift(await worker.gradients({ ...micro, batch: await there.batch(micro.index) }));
    return answers;
  };
}

async function trained(options: TrainOptions): Promise<{ adapter: string; reports: unknown[] }> {
  const reports: unknown[] = [];
  for await (const { loss, metrics, gradNorm } of train(options)) reports.push([loss, metrics, gradNorm]);
  return { adapter: await bits(options.adapter), reports };
}

async function bits(adapter: Adapter): Promise<string> {
  const all: string[] = [];
  for (const [path, parameter] of adapter.stateDict())
    all.push(
      `${path} ${Buffer.from(new Uint8Array((await parameter.data()).slice().buffer)).toString("hex")}`,
    );
  return all.join("\n");
}

/** Of each kind of program: tied, partly tied, untied, and with norms of weights. */
const METHODS = ["tl6", "tl3", "lora", "dora"] as const;

test("adapter, losses and norms have the bits of one place", async () => {
  const device = await cpu({ threads: 2 });
  try {
    const smoothed = losses.regularized(losses.crossEntropy({ labelSmoothing: 0.1 }), { kl: 0.1 });
    for (const method of METHODS) {
      const own = method === "tl3" ? { loss: smoothed } : {};
      const here = await trained({ ...(await setup(device, method)), ...own });
      const options = { ...(await setup(device, method)), ...own };
      const start = await bits(options.adapter);
      const there = { ...(await setup(device, method)), ...own };
      assert.deepEqual(await trained({ ...options, gradients: elsewhere(options, there) }), here, method);
      assert.notEqual(here.adapter, start, method);
    }
  } finally {
    device.close();
  }
});

test("a source that is stopped ends training with the step before", async () => {
  const device = await cpu({ threads: 2 });
  try {
    const options = await setup(device, "tl6");
    const source = elsewhere(options, await setup(device, "tl6"));
    const stopped: GradientSource = (batches) =>
      batches[0]!.step === 2 ? Promise.resolve(null) : source(batches);
    const { reports, adapter } = await trained({ ...options, gradients: stopped });
    assert.equal(reports.length, 2);
    assert.equal(adapter, (await trained({ ...(await setup(device, "tl6")), steps: 2 })).adapter);
  } finally {
    device.close();
  }
});
