/** Mistakes of other implementations of Tied-LoRA: each test would have caught one of them. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { reference } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { adapt, adaptersOf, type FactorName, init, loadAdapterFiles, METHOD_NAMES, methodByName, methods, nativeFiles, tiedLora } from "../src/index.ts"; // prettier-ignore
import { asFiles, collect, randomize } from "./support/files.ts";
import { logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const device = reference();

suite("a configuration trains exactly the factors that its name means", () => {
  const names: Record<string, readonly FactorName[]> = {
    lora: ["B", "A"],
    vera: ["v", "u"],
    tl1: ["A"],
    tl2: ["v", "A"],
    tl3: ["B", "u"],
    tl4: ["v", "B", "u"],
    tl5: ["B", "A"],
    tl6: ["v", "B", "u", "A"],
    "tied-gates": ["B", "u", "A"],
    rslora: ["B", "A"],
    "lora-fa": ["B"],
    "sharelora-a": ["B", "A"],
    "sharelora-b": ["B", "A"],
    "sharelora-ab": ["B", "A"],
  };
  for (const [name, trained] of Object.entries(names)) {
    test(`${name}: ${trained.join(", ")} move within two steps, in every layer, and nothing else`, async () => {
      const model = tinyLlama(device);
      const adapter = await adapt(model, methodByName(name, { rank: 2 }));
      const values = async (): Promise<Map<string, string>> => {
        const all = new Map<string, string>();
        for (const [path, p] of adapter.namedParameters()) all.set(path, String(await p.data()));
        return all;
      };
      const before = await values();
      const optimizer = optim.adamW(adapter.parameters(), { lr: 0.05, weightDecay: 0.1 });
      for (let i = 0; i < 2; i++) optimizer.step(lossOf(model));
      const after = await values();
      for (const [path, old] of before) {
        const factor = path.split(".").at(-1) as FactorName;
        assert.equal(after.get(path) !== old, trained.includes(factor), path);
      }
    });
  }

  test("a misspelt factor is an error, not a factor that stays frozen", () => {
    assert.throws(() => tiedLora({ trained: ["A", "b" as FactorName] }), { message: /trained factors b given; expected some of v, B, u, A/ }); // prettier-ignore
    const adapter = adapt(tinyLlama(device), methods.tl6({ rank: 2 }));
    assert.throws(() => adapter.unfreeze({ factors: ["lora_A"] }), {
      message: /no factor lora_A, only v, B, u, A/,
    });
  });
});

suite("tying", () => {
  test("holds in all layers of the model, and an error says where there is nothing to tie", () => {
    for (const make of [tinyLlama, tinyGpt2]) {
      const adapter = adapt(make(device), methods.tl6({ rank: 2 }));
      const shared = adapter.plan.factors.filter(({ factor }) => factor === "A" || factor === "B");
      assert.deepEqual(shared.map(({ aliases }) => aliases.length), [3, 3]); // prettier-ignore
    }
    assert.throws(() => adapt(tinyLlama(device), methods.tl6({ target: ["query_key_value"] })), {
      message: /matches no linear module; the model has .*q_proj/,
    });
  });

  test("survives a file: stored once, tied again after loading, also for training on", async () => {
    const model = tinyLlama(device);
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    const files = await collect(nativeFiles(adapter));
    const bytes = (files.get("adapter_model.safetensors") as Uint8Array).byteLength;
    assert.ok(bytes < 4 * adapter.count().total + 4096, "the file holds each number once");
    const fresh = tinyLlama(device);
    const loaded = await loadAdapterFiles(fresh, asFiles(files));
    assert.equal(loaded.parameters().length, adapter.parameters().length);
    for (const [on, one] of [
      [model, adapter],
      [fresh, loaded],
    ] as const)
      // prettier-ignore
      optim.sgd(one.parameters(), { lr: 0.1 }).step(lossOf(on));
    assert.deepEqual(await logitsOf(fresh), await logitsOf(model), "a step moves both alike");
  });

  test("is not between adapters, nor between models", async () => {
    const [one, two] = [tinyLlama(device), tinyLlama(device)];
    const adapters = [
      adapt(one, methods.tl6({ rank: 2 }), { name: "a" }),
      adapt(one, methods.tl6({ rank: 2 }), { name: "b" }),
      adapt(two, methods.tl6({ rank: 2 }), { name: "a" }),
    ];
    const all = adapters.flatMap((adapter) => adapter.parameters());
    assert.equal(new Set(all.map(({ storage }) => storage)).size, all.length);
    const before = String(await adapters[1]!.parameters()[1]!.data());
    randomize(adapters[0]!);
    assert.equal(String(await adapters[1]!.parameters()[1]!.data()), before);
  });
});

suite("the start", () => {
  test("of no method has two factors at zero: the first step changes the model", async () => {
    for (const name of METHOD_NAMES.filter((one) => one !== "vb-lora")) {
      const model = tinyLlama(device);
      const adapter = await adapt(model, methodByName(name, { rank: 2 }));
      const base = await adaptersOf(model).disabled(() => logitsOf(model));
      optim.sgd(adapter.parameters(), { lr: 0.5 }).step(lossOf(model));
      assert.notDeepEqual(await logitsOf(model), base, name);
    }
  });

  test("with a frozen zero on both sides is refused, with the remedy", () => {
    const zeros = { A: init.zeros(), B: init.zeros() };
    assert.throws(() => tiedLora({ trained: ["u"], init: zeros }), {
      message: /all start at zero.*init\.normal\(\)/,
    });
    assert.throws(() => tiedLora({ trained: ["u"], init: { B: init.zeros() } }), { message: /frozen.*trained factor \(u\) at zero/ }); // prettier-ignore
  });
});
