/** The optimizer of an adapter: its defaults, and that it equals an AdamW with all settings written out. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  adapterOptimizer,
  defineMethod,
  init,
  methods,
  OPTIMIZER_NAMES,
  type OptimizerSettings,
} from "../src/index.ts";
import { type Row, testWrongArguments } from "../../../test/support/wrong-arguments.ts";
import { distance, lossOf, tinyLlama } from "./support/tiny.ts";

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

test("every optimizer by name lowers the loss, and refuses a setting that it has not", async () => {
  for (const optimizer of OPTIMIZER_NAMES) {
    const adapter = made();
    const model = adapter.model as ReturnType<typeof tinyLlama>;
    const before = await lossOf(model).item();
    const built = adapterOptimizer(adapter, { steps: 8, optimizer, warmup: 0, schedule: "constant" });
    for (let step = 0; step < 8; step++) built.step(lossOf(model));
    assert.ok((await lossOf(model).item()) < before, optimizer);
  }
  const refuse = (settings: Omit<OptimizerSettings, "steps">, message: RegExp): void =>
    assert.throws(() => adapterOptimizer(made(), { steps: 3, ...settings }), message);
  refuse({ optimizer: "sgd", weightDecay: 0.1 }, /sgd has no weightDecay; leave it out/);
  refuse({ optimizer: "adafactor", betas: [0.9, 0.9] }, /adafactor has no betas/);
});

suite("rates by factor, module and pattern", () => {
  const lora = (): Adapter =>
    adapt(tinyLlama(), methods.lora({ rank: 2, modulesToSave: ["norm"] }), { seed: 3 });
  /** How far the first step, with the gradient's sign alone, moves each parameter, relative to `lr`. */
  async function moved(adapter: Adapter, settings: Partial<OptimizerSettings>): Promise<Map<string, number>> {
    const before = new Map<string, number[]>();
    for (const [path, p] of adapter.stateDict()) before.set(path, [...(await p.data())]);
    const lr = 1 / 1024;
    const optimizer = adapterOptimizer(adapter, {
      steps: 9,
      lr,
      warmup: 0,
      schedule: "constant",
      weightDecay: 0,
      ...settings,
    });
    const ones = [...adapter.parameters()].map((p) => p.mul(1).sum()).reduce((a, b) => a.add(b));
    optimizer.step(ones);
    const far = new Map<string, number>();
    for (const [path, p] of adapter.stateDict())
      far.set(path, Math.round((distance(await p.data(), before.get(path)!) / lr) * 100) / 100);
    return far;
  }
  const ends = (far: Map<string, number>, end: string): number[] => [
    ...new Set([...far].flatMap(([path, x]) => (path.endsWith(end) ? [x] : []))),
  ];

  test("a rate is for a factor, a module, a module's factor, a layer, or a pattern; the first that matches applies", async () => {
    const rates = { "layers.1": 3, "qkv.A": 0, o_proj: 9, B: 16, saved: 0.5 };
    const far = await moved(adapt(tinyLlama(), methods.lora({ rank: 2, target: ["qkv", "o_proj"], modulesToSave: ["norm"] })), { rates }); // prettier-ignore
    assert.deepEqual(ends(far, "layers.1.self_attn.qkv.B"), [3]);
    assert.deepEqual(ends(far, "layers.1.self_attn.qkv.A"), [3]);
    assert.deepEqual(ends(far, "layers.0.self_attn.qkv.A"), [0]);
    assert.deepEqual(ends(far, "layers.2.self_attn.qkv.B"), [16]);
    assert.deepEqual(ends(far, "layers.2.self_attn.o_proj.B"), [9]);
    assert.deepEqual(ends(far, "model.norm.weight"), [0.5]);
    const odd = await moved(lora(), { rates: { "layers\\.[02]\\..*": 2 } });
    assert.deepEqual([...new Set(odd.values())], [2, 1]);
  });

  test("LoRA+ raises the rate of B, a declared rate that of its factor, and rates override both", async () => {
    const far = await moved(lora(), { loraPlus: 16 });
    assert.deepEqual([ends(far, ".A"), ends(far, ".B")], [[1], [16]]);
    const declared = defineMethod({
      name: "fast-b",
      rank: 2,
      factors: {
        A: { shape: ["rank", "in"], init: init.normal() },
        B: { shape: ["out", "rank"], init: init.zeros(), rate: 4 },
      },
      lowRank: ({ A, B }) => ({ A, B }),
    });
    assert.deepEqual(ends(await moved(adapt(tinyLlama(), declared), {}), ".B"), [4]);
    assert.deepEqual(
      ends(await moved(adapt(tinyLlama(), declared), { loraPlus: 8, rates: { B: 2 } }), ".B"),
      [2],
    );
  });

  test("decays are those of an AdamW whose weight decay depends on the parameter", async () => {
    const [one, other] = [lora(), lora()];
    const settings = { lr: 0.05, schedule: "constant", warmup: 0 } as const;
    const written = optim.adamW(other.parameters(), {
      lr: 0.05,
      betas: [0.9, 0.98],
      clipNorm: 1,
      weightDecay: (p) => (p.name.endsWith(".A") ? 0.3 : 0.01),
    });
    const given = adapterOptimizer(one, { steps: 3, ...settings, decays: { A: 0.3 } });
    assert.deepEqual(await trained(one, given, 3), await trained(other, written, 3));
  });

  test("a key that matches nothing, frozen parameters alone, or a part of a tied one is an error", () => {
    const make = (adapter: Adapter, settings: object) => () =>
      adapterOptimizer(adapter, { steps: 3, ...settings });
    assert.throws(make(lora(), { rates: { C: 2 } }), {
      message: /rates: "C" matches no parameter of the adapter; there are B, A,/,
    });
    assert.throws(make(lora(), { decays: { k_prj: 2 } }), {
      message: /decays: "k_prj" matches no parameter/,
    });
    assert.throws(make(lora(), { rates: { A: -1 } }), {
      message: /-1 for "A"; give a finite number, not negative/,
    });
    assert.throws(make(made(), { rates: { A: 2 } }), { message: /"A" matches frozen parameters alone/ });
    assert.throws(make(made(), { loraPlus: 16 }), {
      message: /loraPlus raises the learning rate of B, and vera trains no factor/,
    });
    const tied = adapt(tinyLlama(), methods.tl6({ rank: 2 }));
    assert.throws(make(tied, { rates: { "layers.1": 2 } }), {
      message: /matches .*layers\.1.* and not .*layers\.0.*one tied parameter/,
    });
  });
});

test("the names of the schedules are those that there are", () => {
  assert.deepEqual(optim.SCHEDULE_NAMES, Object.keys(optim.SCHEDULES));
});

const rows: readonly Row[] = [
  ["adapterOptimizer", "options", (settings) => adapterOptimizer(made(), settings)],
  ["adapterOptimizer", [[{ steps: 3, rate: 1 }, /no option "rate"; give steps, optimizer, lr, rates/]], (settings) => adapterOptimizer(made(), settings)], // prettier-ignore
  ["adapterOptimizer: steps", "count", (steps) => adapterOptimizer(made(), { steps })],
  ["adapterOptimizer: optimizer", "name?", (optimizer) => adapterOptimizer(made(), { steps: 3, optimizer })],
  ["adapterOptimizer: schedule", "name?", (schedule) => adapterOptimizer(made(), { steps: 3, schedule })],
];
testWrongArguments(rows);
