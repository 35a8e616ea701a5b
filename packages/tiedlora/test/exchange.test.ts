/** An adapter that was trained here is written in every format and read again. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, key, uniformArray } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import type { Decoder } from "@tiedlora/models";
import { loadModel, saveModel } from "@tiedlora/models/node";
import { adapt, type AdapterFormat, adaptersOf, methods, type PlainMethod, untie } from "../src/index.ts";
import { loadAdapter, saveAdapter, saveAdapters, saveMerged } from "../src/node.ts";
import { randomize } from "./support/files.ts";
import { distance, logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

let device: Device;
let directory: string;
before(async () => {
  device = await cpu();
  directory = await mkdtemp(join(tmpdir(), "exchange-"));
});
after(async () => {
  device.close();
  await rm(directory, { recursive: true });
});

suite("an adapter trained for 50 steps, written and read back, answers the same bit for bit", () => {
  /** Trains an adapter on a fixed text; returns the loss before and after. */
  async function trained(model: Decoder, method: PlainMethod): Promise<{ before: number; after: number }> {
    const adapter = adapt(model, method, { seed: 3 });
    const optimizer = optim.adamW(adapter.parameters(), { lr: 2e-2 });
    const inputIds = [0, 1].map((row) => [...uniformArray(key(row), 12, 0, 17)].map(Math.floor));
    const first = await model.loss({ inputIds }).item();
    for (let step = 0; step < 50; step++) optimizer.step(model.loss({ inputIds }));
    return { before: first, after: await model.loss({ inputIds }).item() };
  }

  const cases: [string, PlainMethod, (device: Device) => Decoder, readonly AdapterFormat[]][] = [
    ["TL6", methods.tl6({ rank: 4 }), tinyLlama, ["native", "peft-lora", "peft-vera", "mlx"]],
    [
      "TL6 with a scale of 1.5",
      methods.tl6({ rank: 4, alpha: 6 }),
      tinyGpt2,
      ["native", "peft-lora", "peft-vera"],
    ],
    [
      "VeRA",
      methods.vera({ rank: 4, target: "all-linear" }),
      tinyLlama,
      ["native", "peft-lora", "peft-vera"],
    ],
    ["TL3", methods.tl3({ rank: 4, bias: "all", modulesToSave: ["ln_f"] }), tinyGpt2, ["native", "peft-lora", "peft-vera"]], // prettier-ignore
  ];
  for (const [name, method, make, formats] of cases) {
    test(`${name}: ${formats.join(", ")}`, async () => {
      const model = make(device);
      const losses = await trained(model, method);
      assert.ok(losses.after < losses.before - 0.1, "training has moved it");
      const logits = await logitsOf(model);
      const [adapter] = adaptersOf(model).names.map((one) => adaptersOf(model).get(one));
      for (const format of formats) {
        const path = join(directory, `${name} ${format}`);
        await saveAdapter(adapter!, path, {}, format);
        const fresh = make(device);
        await loadAdapter(fresh, path);
        assert.deepEqual(await logitsOf(fresh), logits, format);
      }
    });
  }
});

suite("directories", () => {
  test("of an adapter hold its two files, and nothing else", async () => {
    const model = tinyLlama(device);
    const adapter = adapt(model, methods.tl6({ rank: 2 }));
    for (const format of ["native", "peft-lora", "peft-vera"] as const) {
      const path = join(directory, `only ${format}`);
      await saveAdapter(adapter, path, {}, format);
      assert.deepEqual((await readdir(path)).sort(), ["adapter_config.json", "adapter_model.safetensors"]);
    }
    await saveAdapter(adapter, join(directory, "only mlx"), {}, "mlx");
    assert.deepEqual((await readdir(join(directory, "only mlx"))).sort(), ["adapter_config.json", "adapters.safetensors"]); // prettier-ignore
  });

  test("of several adapters hold each under its name, the default one at the top; only those that are chosen", async () => {
    const model = tinyLlama(device);
    const all = ["default", "default2", "other_default", "foodefault_bar", "efaul"];
    for (const [seed, name] of all.entries())
      randomize(adapt(model, methods.lora({ rank: 2 }), { name, active: false }), seed);
    const path = join(directory, "several");
    await saveAdapters(model, path, ["default", "efaul", "default2"], "peft-lora");
    assert.deepEqual((await readdir(path)).sort(), ["adapter_config.json", "adapter_model.safetensors", "default2", "efaul"]); // prettier-ignore
    for (const [name, at] of [
      ["default", path],
      ["efaul", join(path, "efaul")],
      ["default2", join(path, "default2")],
    ] as const) {
      // prettier-ignore
      const fresh = tinyLlama(device);
      await loadAdapter(fresh, at);
      const wanted = await adaptersOf(model).withActive([name], () => logitsOf(model));
      assert.deepEqual(await logitsOf(fresh), wanted, name);
    }
    adapt(model, methods.lora({ rank: 2 }), { name: "a/b" });
    await assert.rejects(saveAdapters(model, path, ["a/b"]), { message: /"a\/b" cannot name a directory/ });
  });

  test("of a merged model load as a plain model, in shards", async () => {
    const model = tinyGpt2(device);
    untie(model, "lm_head");
    randomize(adapt(model, methods.lora({ rank: 2, target: "all-linear" })), 3, 0.2);
    const path = join(directory, "merged");
    await saveMerged(model, path, { maxShardBytes: 2000 });
    assert.ok((await readdir(path)).includes("model.safetensors.index.json"));
    const loaded = await loadModel(path, { device });
    assert.ok(distance(await logitsOf(loaded), await logitsOf(model)) < 2e-5);
    assert.equal(loaded.config.tied, false);
  });
});

test("an adapter on a base model in half precision is in f32, trains, and its file says so", async () => {
  const source = tinyLlama(device);
  const path = join(directory, "bf16");
  await saveModel(source, path, { dtype: "bf16" });
  const model = await loadModel(path, { device });
  assert.ok(model.parameters().every(({ dtype }) => dtype === "bf16"));
  const adapter = adapt(model, methods.tl6({ rank: 2, modulesToSave: ["norm"] }));
  assert.ok(adapter.parameters().every(({ dtype }) => dtype === "f32"));
  const [base, start] = [await adaptersOf(model).disabled(() => logitsOf(model)), await logitsOf(model)];
  assert.deepEqual(start, base);
  const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-2 });
  for (let i = 0; i < 3; i++) optimizer.step(lossOf(model));
  assert.ok(distance(await logitsOf(model), base) > 1e-3);
});
