/** Losses: against float64 numbers of PyTorch, in training and evaluation, and on preferences that a held-out part judges. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, grad, reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import {
  adapt,
  type Adapter,
  adapterOptimizer,
  type Batch,
  batchesOf,
  evaluate,
  evaluationBatches,
  type EncodedExample,
  type LanguageModel,
  losses,
  type Loss,
  type LossInputs,
  methods,
  packExamples,
  stackBatch,
  type StepReport,
  train,
  type TrainOptions,
} from "../src/index.ts";
import { valueOf } from "../src/train/loss.ts";
import { RECORDED } from "./support/losses-recorded.ts";
import { countingExample, tinyLlama } from "./support/tiny.ts";

const [V, R] = [6, 2];
const wave = (size: number, start: number, height: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => height * Math.sin(start + i));

/** A model whose logits are a row of a table for each token, as in losses.py. */
class Table extends nn.Module implements LanguageModel {
  readonly device: Device;
  readonly table: nn.Embedding;
  constructor(device: Device, start: number, height: number) {
    super();
    this.device = device;
    this.table = new nn.Embedding(
      nn.Parameter.from(device, wave(V * V, start, height), [V, V], "f32", "table"),
    );
  }
  predictions({ inputIds }: LossInputs): Tensor {
    const rows = inputIds.map((row) => row.subarray(0, -1));
    const ids = Int32Array.from(rows.flatMap((row) => [...row]));
    return this.table.forward(this.device.tensor(ids, { shape: [rows.length, rows[0]!.length] }));
  }
  loss(): Tensor {
    throw new Error("not asked for here");
  }
}

function row(tokens: number[], mask: number[]): EncodedExample {
  const first = mask.indexOf(1);
  return {
    tokens: Int32Array.from(tokens),
    spans: [[first, mask.lastIndexOf(1) + 1]],
    line: 1,
    truncated: false,
  };
}
const ROWS = [
  row([1, 2, 3, 4, 5], [0, 0, 1, 1, 1]),
  row([1, 2, 5, 0, 0], [0, 0, 1, 1, 0]),
  row([4, 0, 2, 2, 1], [0, 1, 1, 0, 0]),
  row([4, 0, 5, 3, 1], [0, 1, 1, 1, 1]),
] as const;
const PAIRS = [
  { ...ROWS[0], beside: ROWS[1] },
  { ...ROWS[2], beside: ROWS[3] },
];
const LABELED = PAIRS.map((pair, i) => ({ ...pair, label: i === 0 }));

suite("losses have the values and gradients that PyTorch computes in float64", () => {
  const device = reference();
  const cases: Record<string, [loss: Loss, examples: readonly EncodedExample[]]> = {
    dpo: [losses.dpo({ beta: 0.3 }), PAIRS],
    "dpo, smoothed": [losses.dpo({ beta: 0.3, labelSmoothing: 0.1 }), PAIRS],
    hinge: [losses.dpo({ beta: 0.4, kind: "hinge" }), PAIRS],
    ipo: [losses.dpo({ beta: 0.5, kind: "ipo" }), PAIRS],
    orpo: [losses.orpo({ beta: 0.25 }), PAIRS],
    kto: [losses.kto({ beta: 0.3, undesirableWeight: 1.5 }), LABELED],
    "smoothed and z": [losses.crossEntropy({ labelSmoothing: 0.1, zLoss: 0.01 }), ROWS],
    distillation: [losses.distillation({ teacher: new Table(device, 7, 1.2), weight: 0.7 }), ROWS],
    regularized: [
      losses.regularized(losses.crossEntropy(), { l2: 0.01, l1: 0.02, orthogonal: 0.03, kl: 0.5 }),
      ROWS,
    ],
  };
  for (const [name, expected] of Object.entries(RECORDED))
    test(name, async () => {
      const [loss, examples] = cases[name]!;
      const model = new Table(device, 1, 1.5);
      const adapter = adapt(model, methods.lora({ rank: R, target: ["table"] }));
      const [A, B] = ["A", "B"].map((factor) => adapter.parameter(`table.${factor}`)) as [
        nn.Parameter,
        nn.Parameter,
      ];
      A.set(Float32Array.from(wave(R * V, 2, 0.6)));
      B.set(Float32Array.from(wave(R * V, 3, 0.7)));
      const { loss: value, metrics } = valueOf(loss, model, adapter, stackBatch(examples, 5, 0));
      const [a, b] = grad(value, [A, B]) as [Tensor, Tensor];
      const near = (found: ArrayLike<number>, wanted: readonly number[], what: string): void => {
        assert.equal(found.length, wanted.length);
        for (const [i, x] of wanted.entries())
          assert.ok(
            Math.abs(found[i]! - x) <= 1e-5 * Math.max(1, Math.abs(x)),
            `${what}[${i}]: ${found[i]} is not ${x}`,
          );
      };
      near([await value.item()], [expected.loss], "loss");
      for (const [key, wanted] of Object.entries(expected.metrics))
        near([await metrics[key]!.item()], [wanted], key);
      assert.deepEqual(Object.keys(metrics).sort(), Object.keys(expected.metrics).sort());
      near(await a.data(), expected.A, "A");
      near(await b.data(), expected.B, "B");
    });
});

interface Setup {
  readonly adapter: Adapter;
  readonly options: TrainOptions;
}

function setup(
  device: Device,
  examples: readonly EncodedExample[],
  given: Partial<TrainOptions> = {},
): Setup {
  const model = tinyLlama(device);
  const adapter = adapt(model, methods.lora({ rank: 4, target: "all-linear" }), { seed: 3 });
  const steps = given.steps ?? 3;
  const optimizer = adapterOptimizer(adapter, { steps, lr: 0.01, schedule: "constant", warmup: 0 });
  const batch = batchesOf(examples, { batch: 4, maxLength: 16, seed: 4, padId: 0 });
  return { adapter, options: { model, adapter, optimizer, steps, batch, ...given } };
}

async function reports(options: TrainOptions): Promise<StepReport[]> {
  const all: StepReport[] = [];
  for await (const report of train(options)) all.push(report);
  return all;
}

/** Prompts of two tokens, and a rule that is right: the chosen answer counts up from the last token, the rejected one down. */
const PREFERENCES = Array.from({ length: 120 }, (_, i): EncodedExample => {
  const [a, b] = [i % 17, (i * 7 + 3) % 17];
  const answer = (step: number): EncodedExample => ({
    tokens: Int32Array.from([a, b, ...[1, 2, 3].map((k) => (b + k * step + 51) % 17)]),
    spans: [[2, 5]],
    line: i + 1,
    truncated: false,
  });
  return { ...answer(1), beside: answer(-1) };
});
const isHeldOut = (_: unknown, i: number): boolean => i % 4 === 0;

suite("training with a loss", () => {
  test("DPO raises the margin, and ranks more than 95 % of held-out pairs right", async () => {
    const device = await cpu();
    try {
      const seen = PREFERENCES.filter((pair, i) => !isHeldOut(pair, i));
      const loss = losses.dpo({ beta: 0.5 });
      const { options, adapter } = setup(device, seen, { steps: 60, loss });
      const held = evaluationBatches(PREFERENCES.filter(isHeldOut), { batch: 30, maxLength: 16, padId: 0 });
      const before = await evaluate(options.model, held, adapter, loss);
      const all = await reports(options);
      const after = await evaluate(options.model, held, adapter, loss);
      assert.equal(all[0]!.loss, Math.fround(Math.LN2), "the model is its own reference at first");
      assert.deepEqual([all[0]!.metrics["margin"], before.metrics!["margin"]], [0, 0]);
      assert.ok(all.at(-1)!.metrics["margin"]! > 1, `${all.at(-1)!.metrics["margin"]}`);
      assert.ok(after.metrics!["margin"]! > 1 && after.metrics!["accuracy"]! > 0.95, JSON.stringify(after));
    } finally {
      device.close();
    }
  });

  test("computes each step, and its metrics, by one program, whose reference is the model without its adapter", async () => {
    const device = await cpu();
    try {
      const { options } = setup(device, PREFERENCES.slice(0, 8), { steps: 6, loss: losses.dpo() });
      const programs: number[] = [];
      for await (const { step } of train({ ...options, pauseAfter: () => true }))
        programs[step] = device.memory().cachedPrograms;
      assert.equal(programs[6], programs[1]);
    } finally {
      device.close();
    }
  });

  test("micro-batches that are accumulated have the loss, the metrics and the update of one batch", async () => {
    const loss = losses.dpo({ beta: 0.5 });
    const whole = stackBatch(PREFERENCES.slice(0, 4), 16, 0);
    const parts = [stackBatch(PREFERENCES.slice(0, 1), 16, 0), stackBatch(PREFERENCES.slice(1, 4), 16, 0)];
    const [one, other] = [
      setup(reference(), PREFERENCES, { loss }),
      setup(reference(), PREFERENCES, { loss }),
    ];
    const [a] = await reports({ ...one.options, steps: 2, batch: () => whole });
    const [b] = await reports({ ...other.options, steps: 2, batch: (i) => parts[i % 2]!, accumulate: 2 });
    const near = (x: number, y: number): void => assert.ok(Math.abs(x - y) < 1e-5, `${x} is not ${y}`);
    near(a!.loss, b!.loss);
    for (const [name, value] of Object.entries(a!.metrics)) near(value, b!.metrics[name]!);
    const values = await Promise.all(one.adapter.parameters().map((p) => p.data()));
    for (const [i, p] of other.adapter.parameters().entries())
      for (const [j, x] of (await p.data()).entries()) assert.ok(Math.abs(x - values[i]![j]!) < 1e-3, p.name);
  });

  test("takes a function of the outputs; cross-entropy written out is the model's own loss", async () => {
    const examples = Array.from({ length: 8 }, (_, i) => countingExample(i));
    const own = await reports(setup(reference(), examples).options);
    for (const loss of [
      losses.crossEntropy(),
      ({ logits, targets, mask }: { logits: Tensor; targets: Tensor; mask: Tensor }) =>
        nn.crossEntropy(logits, targets, { mask }),
    ]) {
      const given = await reports(setup(reference(), examples, { loss }).options);
      for (const [i, report] of given.entries()) assert.ok(Math.abs(report.loss - own[i]!.loss) < 1e-6);
    }
  });

  test("refuses what it cannot do, and says why", async () => {
    const { options, adapter } = setup(reference(), PREFERENCES.slice(0, 4));
    const single: Batch = stackBatch([countingExample(1)], 16, 0);
    const rejects = (loss: unknown, message: RegExp, more: Partial<TrainOptions> = {}): Promise<void> =>
      assert.rejects(reports({ ...options, loss: loss as Loss, ...more }), { message });
    await rejects(
      losses.dpo(),
      /dpo needs pairs of a chosen and a rejected answer.*; the batch has single texts/,
      { batch: () => single },
    );
    await rejects(losses.kto(), /kto needs answers with a label.*; the batch has pairs/);
    await rejects({ name: "mine" }, /is no loss; give one of losses/);
    await rejects(() => adapter.parameters()[0], /loss is of shape \[.*\]; expected a scalar/, {
      batch: () => single,
    });
    assert.throws(() => packExamples(PREFERENCES, 16), { message: /cannot be packed/ });
    assert.throws(() => losses.dpo({ beta: 0 }), {
      message: /dpo: beta 0 given; expected a finite number above 0/,
    });
    assert.throws(() => losses.dpo({ kind: "hinge", labelSmoothing: 0.1 }), {
      message: /labelSmoothing is for the kind "sigmoid"/,
    });
    assert.throws(() => losses.regularized(losses.orpo(), { L3: 1 } as object), {
      message: /no regularizer "L3"; did you mean "l2"/,
    });
    const other = losses.distillation({ teacher: tinyLlama(reference(), { vocab_size: 19 }) });
    await rejects(other, /which is on another device/, { batch: () => single });
  });
});
