/** Norms as hosts: any declared formula can change the scale of a norm, which is a linear map of the number 1. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { key, normalArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { adaptableSpecs, configFrom, createModel, type Decoder } from "@tiedlora/models";
import {
  adapt,
  adapterFiles,
  adapterOptimizer,
  adaptersOf,
  batchesOf,
  combine,
  countParameters,
  defineMethod,
  init,
  loadAdapterFiles,
  mergedModelFiles,
  type Method,
  methods,
  type PlainMethod,
  train,
} from "../src/index.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { countingExample, distance, IDS, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

/** Scales that all layers share, times each layer's own number, which starts at zero. */
const sharedGain = (target: readonly string[]): Method =>
  defineMethod({
    name: "shared-gain",
    target,
    factors: {
      g: { shape: ["out"], init: init.normal(), tie: "all" },
      c: { shape: [1], init: init.zeros() },
    },
    forward: ({ g, c }, { y, scale }) => y.add(y.mul(g).mul(c).mul(scale)),
  });

/** A Gemma, whose norms store their scale as w - 1, here not at zero. */
function tinyGemma(): Decoder {
  const fields = { model_type: "gemma2", vocab_size: 17, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 4, initializer_range: 0.4 }; // prettier-ignore
  return randomNorms(createModel(configFrom(fields), { device: tinyLlama().device, seed: 1 }));
}

/** Gives the norms of a model scales of their own: those of new models are all the same. */
function randomNorms(model: Decoder): Decoder {
  for (const [path, module] of model.namedModules())
    if (module instanceof nn.LayerNorm || module instanceof nn.RMSNorm)
      module.weight.set(normalArray(key(3).fold(path), module.weight.size, 0.8, 0.3));
  return model;
}

const MODELS: Readonly<Record<string, readonly [make: () => Decoder, names: readonly string[], stored: number]>> = {
  Llama: [() => randomNorms(tinyLlama()), ["input_layernorm", "norm"], 0],
  "GPT-2": [() => randomNorms(tinyGpt2()), ["ln_1", "ln_f"], 0],
  Gemma: [tinyGemma, ["post_attention_layernorm", "norm"], 1],
}; // prettier-ignore

/** What a method makes of the scale w of a norm at a path, in float64, from the adapter's values. */
type Formula = (w: number[], at: (factor: string) => number[]) => number[];

const METHODS: Readonly<Record<string, readonly [make: (target: readonly string[]) => Method, formula: Formula]>> = {
  lora: [
    (target) => methods.lora({ rank: 2, alpha: 3, target }),
    (w, at) => w.map((x, i) => x + 1.5 * (at("B")[2 * i]! * at("A")[0]! + at("B")[2 * i + 1]! * at("A")[1]!)),
  ],
  tl6: [
    (target) => methods.tl6({ rank: 2, target }),
    (w, at) => w.map((x, i) => x + at("v")[i]! * [0, 1].reduce((sum, r) => sum + at("B")[2 * i + r]! * at("u")[r]! * at("A")[r]!, 0)), // prettier-ignore
  ],
  ia3: [(target) => methods.ia3({ target }), (w, at) => w.map((x, i) => x * at("l_out")[i]!)],
  bitfit: [(target) => methods.bitfit({ target }), (w, at) => w.map((x, i) => x + at("c")[i]!)],
  "one's own": [sharedGain, (w, at) => w.map((x, i) => x + x * at("g")[i]! * at("c")[0]!)],
}; // prettier-ignore

/** The model with the scales of its norms changed by a formula, without an adapter. */
async function changed(adapted: Decoder, plain: Decoder, formula: Formula, stored: number): Promise<Decoder> {
  const [adapter] = adaptersOf(adapted).names.map((name) => adaptersOf(adapted).get(name));
  const values = new Map<string, number[]>();
  for (const [path, parameter] of adapter!.namedParameters()) values.set(path, [...(await parameter.data())]);
  for (const [path, module] of plain.namedModules()) {
    if (!(module instanceof nn.LayerNorm || module instanceof nn.RMSNorm)) continue;
    if (!adapter!.plan.sites.some(({ site }) => site.path === path)) continue;
    const w = [...(await module.weight.data())].map((x) => x + stored);
    const scale = formula(w, (factor) => values.get(`${path}.${factor}`)!);
    module.weight.set(Float32Array.from(scale, (x) => x - stored));
  }
  return plain;
}

suite("norms as hosts", () => {
  for (const [name, [make, names, stored]] of Object.entries(MODELS))
    for (const [method, [declare, formula]] of Object.entries(METHODS))
      test(`${method} on norms of ${name}: the formula, from files, merged, and in merged files`, async () => {
        const model = make();
        const untrained = await logitsOf(model);
        const adapter = await adapt(model, declare(names));
        assert.ok(distance(await logitsOf(model), untrained) < 1e-6, "unchanged at first");
        randomize(adapter, 5, 0.4);
        const logits = await logitsOf(model);
        assert.ok(distance(logits, untrained) > 1e-3, "changed");
        const plain = await changed(model, make(), formula, stored);
        assert.ok(distance(await logitsOf(plain), logits) < 2e-6, "the formula");
        if (method !== "one's own") {
          const files = await collect(adapterFiles(adapter));
          const again = make();
          await loadAdapterFiles(again, asFiles(files));
          assert.deepEqual(await logitsOf(again), logits);
        }
        const replaced = await collect(mergedModelFiles(model));
        assert.ok(replaced.size > 0);
        await adaptersOf(model).merge();
        assert.ok(distance(await logitsOf(model), logits) < 2e-6, "merged");
        adaptersOf(model).unmerge();
        assert.deepEqual(await logitsOf(model), logits);
      });

  test("rows of one batch have adapters of their own", async () => {
    const model = randomNorms(tinyLlama());
    const alone: number[][] = [];
    for (const name of ["a", "b"]) {
      randomize(adapt(model, methods.lora({ rank: 2, target: ["norm", "q_proj"] }), { name, active: false }), name.charCodeAt(0), 0.4); // prettier-ignore
      const logits = [...(await model.forward(IDS, { adapters: [name] }).data())];
      alone.push(logits);
    }
    const rows = [...(await model.forward(IDS, { adapters: { rows: ["b", "a"] } }).data())];
    const half = rows.length / 2;
    assert.ok(distance(rows.slice(0, half), alone[1]!.slice(0, half)) < 1e-6);
    assert.ok(distance(rows.slice(half), alone[0]!.slice(half)) < 1e-6);
  });

  test("train, and count as their shapes say", async () => {
    const model = randomNorms(tinyLlama());
    const adapter = adapt(model, methods.lora({ rank: 2, target: ["input_layernorm", "q_proj"] }));
    assert.equal(adapter.count().trainable, 3 * (2 * (1 + 8) + 2 * (8 + 8)));
    const counted = countParameters(adaptableSpecs(model.config), adapter.method);
    assert.deepEqual(counted, adapter.count());
    const data = Array.from({ length: 6 }, (_, i) => countingExample(i));
    const losses: number[] = [];
    const optimizer = adapterOptimizer(adapter, { steps: 12, lr: 0.1 });
    const batch = batchesOf(data, { batch: 6, maxLength: 10, seed: 0, padId: 0 });
    for await (const { loss } of train({ model, adapter, optimizer, steps: 12, batch })) losses.push(loss);
    assert.ok(losses.at(-1)! < losses[0]! - 0.4, losses.join());
    const B = await adapter.parameter("model.layers.1.input_layernorm.B").data();
    assert.ok(B.every((x) => x !== 0));
  });

  test("are adapted only if a target means them", () => {
    const paths = (method: PlainMethod): string[] => adapt(tinyLlama(), method).plan.sites.map(({ site }) => site.path); // prettier-ignore
    for (const target of ["all-linear", "qkv", /.*layers\.0.*/] as const)
      assert.ok(paths(methods.lora({ rank: 2, target })).every((path) => !path.includes("norm")), String(target)); // prettier-ignore
    assert.deepEqual(paths(methods.lora({ rank: 2, target: /.*layers\.0\..*norm/ })), ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]); // prettier-ignore
    assert.throws(() => adapt(tinyLlama(), methods.prefixTuning({ target: ["norm"] })), /model.norm is a norm, where this method has no effect; give the linears/); // prettier-ignore
  });

  test("go into no file of peft's or mlx-lm's, and combine", async () => {
    const model = randomNorms(tinyLlama());
    const adapter = randomize(adapt(model, methods.lora({ rank: 1, target: ["norm"] }), { name: "one" }));
    for (const format of ["peft-lora", "peft-vera"] as const)
      assert.throws(() => adapterFiles(adapter, format), /model.norm is a norm, which peft adapts by LN_TUNING alone/); // prettier-ignore
    assert.throws(() => adapterFiles(adapter, "mlx"), /mlx-lm adapts linear modules inside layers only, and model.norm is none/); // prettier-ignore
    const logits = await logitsOf(model);
    const sum = await combine(model, { one: 1 }, { name: "sum", how: "svd", active: false });
    adapter.active = false;
    sum.active = true;
    assert.ok(distance(await logitsOf(model), logits) < 1e-5);
  });
});
