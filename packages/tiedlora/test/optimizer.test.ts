/** The optimizer of an adapter: its defaults, and that it equals an AdamW with all settings written out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import { adapt, type Adapter, adapterOptimizer, methods } from "../src/index.ts";
import { type Row, testWrongArguments } from "../../../test/support/wrong-arguments.ts";
import { lossOf, tinyLlama } from "./support/tiny.ts";

const made = (): Adapter => adapt(tinyLlama(), methods.vera({ rank: 2 }), { seed: 3 });

async function trained(adapter: Adapter, optimizer: optim.Optimizer, steps: number): Promise<number[]> {
  for (let step = 0; step < steps; step++)
    optimizer.step(lossOf(adapter.model as ReturnType<typeof tinyLlama>));
  const all: number[] = [];
  for (const parameter of adapter.parameters()) all.push(...(await parameter.data()));
  return all;
}

test("it is AdamW with the method's rate, a warm-up of a tenth, cosine decay, and clipping at 1", async () => {
  const [one, other] = [made(), made()];
  const written = optim.adamW(other.parameters(), {
    lr: optim.cosine(one.method.learningRate, { warmup: 2, steps: 20 }),
    betas: [0.9, 0.98],
    weightDecay: 0.01,
    clipNorm: 1,
  });
  assert.deepEqual(
    await trained(one, adapterOptimizer(one, { steps: 20 }), 4),
    await trained(other, written, 4),
  );
});

test("it takes every setting that is given", async () => {
  const [one, other] = [made(), made()];
  const settings = { betas: [0.8, 0.9], weightDecay: 0.2, clipNorm: 0.01 } as const;
  const written = optim.adamW(other.parameters(), {
    lr: optim.linear(0.05, { warmup: 1, steps: 3 }),
    ...settings,
  });
  const given = { steps: 3, lr: 0.05, schedule: "linear", warmup: 1, ...settings } as const;
  assert.deepEqual(await trained(one, adapterOptimizer(one, given), 3), await trained(other, written, 3));
});

test("its warm-up is at most 50 steps where none is given, and never longer than the training", () => {
  const first = (settings: Parameters<typeof adapterOptimizer>[1]): number =>
    adapterOptimizer(made(), { lr: 1, ...settings }).lr;
  assert.equal(first({ steps: 10_000 }), 1 / 50);
  assert.equal(first({ steps: 3, warmup: 10 }), 1 / 3);
  assert.equal(first({ steps: 10_000, warmup: 0 }), 1);
});

test("the names of the schedules are those that there are", () => {
  assert.deepEqual(optim.SCHEDULE_NAMES, Object.keys(optim.SCHEDULES));
});

const rows: readonly Row[] = [
  ["adapterOptimizer", "options", (settings) => adapterOptimizer(made(), settings)],
  ["adapterOptimizer", [[{ steps: 3, rate: 1 }, /no option "rate"; give steps, lr, schedule/]], (settings) => adapterOptimizer(made(), settings)], // prettier-ignore
  ["adapterOptimizer: steps", "count", (steps) => adapterOptimizer(made(), { steps })],
  ["adapterOptimizer: schedule", "name?", (schedule) => adapterOptimizer(made(), { steps: 3, schedule })],
];
testWrongArguments(rows);
