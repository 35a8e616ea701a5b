import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { bytesSource, type Device, key, memoryFiles, openSafetensors } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { type Decoder, loadModelFrom, modelFiles } from "@tiedlora/models";
import {
  adapt,
  type Adapter,
  adaptersOf,
  defineMethod,
  init,
  mergedModelFiles,
  type Method,
  methods,
  type PlainMethod,
  untie,
} from "../src/index.ts";
import { collect, randomize } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const device: Device = await cpu();
after(() => device.close());

async function add(model: Decoder, method: Method, name = "default"): Promise<Adapter> {
  return randomize(await adapt(model, method, { name }), name.length, 0.3);
}

/** The same model in half precision. */
async function half(model: Decoder, dtype: "f16" | "bf16"): Promise<Decoder> {
  return loadModelFrom(memoryFiles(await collect(modelFiles(model, { dtype }))), { device });
}

const bits = async (model: nn.Module): Promise<Map<string, number[]>> => {
  const all = new Map<string, number[]>();
  for (const [path, p] of model.stateDict())
    all.set(path, [...new Uint8Array(await p.storage.buffer.read())]);
  return all;
};

/** A method with its own formula and without lowRank: an outer product, with a gain on the frozen weight. */
const custom = (): PlainMethod =>
  defineMethod({
    name: "gain",
    factors: { g: { shape: ["out"], init: init.zeros() } },
    forward: ({ g }, { x, y, weight }) => y.add(x.matmul(weight.transpose()).mul(g)),
  });

suite("merging", () => {
  const cases: [string, Method, ((device: Device) => Decoder)?][] = [
    ["LoRA", methods.lora({ rank: 2, alpha: 3, target: "all-linear" })],
    ["TL6", methods.tl6({ rank: 2 })],
    ["VeRA", methods.vera({ rank: 3, target: ["q_proj", "v_proj", "down_proj"] })],
    ["DoRA", methods.dora({ rank: 2, target: ["q_proj", "up_proj"] })],
    ["LoRA-XS", methods.loraXs({ rank: 2 })],
    ["an embedding and the output embedding", methods.lora({ rank: 2, target: ["embed_tokens", "lm_head"] })],
    ["a formula of one's own", custom()],
    ["TL6 on GPT-2, with biases and a whole module", methods.tl6({ rank: 2, bias: "all", modulesToSave: ["ln_f"] }), tinyGpt2], // prettier-ignore
    ["LoRA with a bias on B", methods.loraBias({ rank: 2, bias: "adapted" }), tinyGpt2],
    ["DoRA on GPT-2", methods.dora({ rank: 2 }), tinyGpt2],
  ];
  for (const [name, method, make = tinyLlama] of cases) {
    test(`${name}: the answers stay, unmerging restores the weights bit for bit, a merged model is a plain one`, async () => {
      const model = make(device);
      const set = adaptersOf(model);
      const [base, weights] = [await logitsOf(model), await bits(model)];
      await add(model, method);
      const adapted = await logitsOf(model);
      assert.ok(distance(adapted, base) > 1e-2);
      await set.merge();
      assert.ok(distance(await logitsOf(model), adapted) < 2e-5);
      set.unmerge();
      assert.deepEqual(await logitsOf(model), adapted);
      await set.mergeAndUnload();
      assert.ok(distance(await logitsOf(model), adapted) < 2e-5);
      assert.deepEqual(set.names, []);
      assert.ok(model.linears().every(([, linear]) => linear.adapter === null));
      assert.deepEqual([...model.stateDict().keys()], [...weights.keys()]);
      assert.notDeepEqual(await bits(model), weights);
    });
  }

  test("is done in f32 and rounded once, and undone bit for bit, in half precision too", async () => {
    for (const dtype of ["f16", "bf16"] as const) {
      const model = await half(tinyLlama(device), dtype);
      const set = adaptersOf(model);
      const [before, base] = [await bits(model), await logitsOf(model)];
      const adapter = await add(model, methods.tl6({ rank: 2 }));
      const path = "model.layers.0.self_attn.q_proj";
      const host = model.linear(path)!;
      const f = (name: string): nn.Parameter => adapter.parameter(`model.layers.0.self_attn.qkv.${name}`);
      const [, { place }] = [...adapter.layers()][0]!;
      const { A, B } = adapter.method.lowRank!({ A: f("A"), B: f("B"), u: f("u"), v: f("v") }, place);
      const sum = host.weight.cast("f32").add(B.narrow(0, 0, 8).matmul(A));
      const wanted = [...(await sum.cast(dtype).data())];
      await set.merge();
      assert.equal(host.weight.dtype, dtype);
      assert.deepEqual([...(await host.weight.data())], wanted);
      set.unmerge();
      set.unload();
      assert.deepEqual(await bits(model), before);
      assert.deepEqual(await logitsOf(model), base);
    }
  });

  test("one after another gives the same bits as all at once, and unmerging restores the base", async () => {
    const weights = async (steps: string[][]): Promise<Map<string, number[]>> => {
      const model = tinyLlama(device);
      const set = adaptersOf(model);
      const before = await bits(model);
      await add(model, methods.lora({ rank: 2 }), "one");
      await add(model, methods.tl6({ rank: 3 }), "three");
      for (const names of steps) await set.merge({ names });
      const merged = await bits(model);
      set.unmerge();
      assert.deepEqual(await bits(model), before);
      return merged;
    };
    const once = await weights([["one", "three"]]);
    assert.deepEqual(await weights([["one"], ["three"]]), once);
    assert.deepEqual(await weights([["three"], ["one"]]), once);
    assert.notDeepEqual(await weights([["one"]]), once);
  });

  test("a second time is refused, as is what has nothing to merge", async () => {
    const model = tinyLlama(device);
    const set = adaptersOf(model);
    await assert.rejects(set.merge(), { message: /no adapter to merge/ });
    assert.throws(() => set.unmerge(), { message: /nothing to unmerge: no adapter is merged/ });
    await add(model, methods.tl6({ rank: 2 }));
    await set.merge();
    const merged = await logitsOf(model);
    await assert.rejects(set.merge({ names: ["default"] }), {
      message: /"default" is merged already; unmerge it first/,
    });
    assert.throws(() => set.delete("default"), { message: /"default" is merged into the weights; unmerge/ });
    assert.deepEqual(await logitsOf(model), merged);
  });

  test("values that are not finite are refused, and the weights untouched", async () => {
    for (const bad of [NaN, Infinity]) {
      const model = tinyLlama(device);
      const before = await bits(model);
      const adapter = await add(model, methods.tl6({ rank: 2 }));
      const B = adapter.parameter("model.layers.0.self_attn.qkv.B");
      B.set((await B.data()).map((value, i) => (i === 7 ? bad : value)));
      await assert.rejects(adaptersOf(model).merge(), {
        message: /not finite at .*qkv\.B; the weights are untouched/,
      });
      assert.deepEqual(await bits(model), before);
      await adaptersOf(model).merge({ safe: false });
      assert.notDeepEqual(await bits(model), before);
    }
  });

  test("a sum that half precision cannot hold is refused, and the weights untouched", async () => {
    const model = await half(tinyLlama(device), "f16");
    const before = await bits(model);
    const adapter = await add(model, methods.tl6({ rank: 2 }));
    adapter.multiplier = 1e7;
    await assert.rejects(adaptersOf(model).merge(), {
      message: /not finite into .*it is stored as f16; the weights are untouched/,
    });
    assert.deepEqual(await bits(model), before);
  });

  test("into a weight that is used elsewhere is refused; the error says how to untie, and then it works", async () => {
    const model = tinyGpt2(device);
    const set = adaptersOf(model);
    await add(model, methods.lora({ rank: 2, target: ["lm_head"] }));
    const [adapted, before] = [await logitsOf(model), await bits(model)];
    const refusal = {
      message: /lm_head\.weight is the same weight as transformer\.wte\.weight.*untie\(model, "lm_head"\)/,
    };
    await assert.rejects(set.merge(), refusal);
    assert.throws(() => mergedModelFiles(model), refusal);
    assert.deepEqual(await bits(model), before);
    set.unload();
    untie(model, "lm_head");
    await add(model, methods.lora({ rank: 2, target: ["lm_head"] }));
    assert.deepEqual(await logitsOf(model), adapted);
    const embedding = await model.stateDict().get("transformer.wte.weight")!.data();
    await set.mergeAndUnload();
    assert.ok(distance(await logitsOf(model), adapted) < 2e-5);
    assert.deepEqual(await model.stateDict().get("transformer.wte.weight")!.data(), embedding);
    const files = await collect(modelFiles(model));
    assert.match(files.get("config.json") as string, /"tie_word_embeddings": false/);
    const again = await loadModelFrom(memoryFiles(files), { device });
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
  });

  test("what no weight can hold is refused", async () => {
    const curved = defineMethod({
      name: "curved",
      rank: 2,
      factors: {
        A: { shape: ["rank", "in"], init: init.normal() },
        B: { shape: ["out", "rank"], init: init.zeros() },
      },
      forward: ({ A, B }, { x, y }) => y.add(x.matmul(A.transpose()).tanh().matmul(B.transpose())),
    });
    const model = tinyLlama(device);
    const before = await bits(model);
    await add(model, curved);
    await assert.rejects(adaptersOf(model).merge(), { message: /curved is not a linear map of its input/ });
    assert.deepEqual(await bits(model), before);
    const constant = tinyLlama(device);
    await add(constant, methods.loraBias({ rank: 2 }));
    await assert.rejects(adaptersOf(constant).merge(), {
      message: /adds a constant, but the module has no bias/,
    });
  });
});

suite("unloading", () => {
  test("gives the base model's bits and the same number of parameters, merged or not", async () => {
    const model = tinyGpt2(device);
    const [base, weights] = [await logitsOf(model), await bits(model)];
    await add(model, methods.tl6({ rank: 2, bias: "all" }), "one");
    await add(model, methods.lora({ rank: 2, target: ["wte"] }), "two");
    await adaptersOf(model).merge({ names: ["one"] });
    adaptersOf(model).unload();
    assert.deepEqual(await bits(model), weights);
    assert.deepEqual(await logitsOf(model), base);
  });
});

suite("a merged model as files", () => {
  test("answers as the adapted one, whose own weights stay, and has the bits that merging gives", async () => {
    for (const [make, method] of [
      [tinyLlama, methods.tl6({ rank: 2, alpha: 3 })],
      [tinyGpt2, methods.dora({ rank: 2, bias: "all", modulesToSave: ["ln_f"] })],
      [tinyGpt2, methods.loraBias({ rank: 2 })],
    ] as const) {
      const model = make(device);
      const adapter = await add(model, method);
      const adapted = await logitsOf(model);
      const files = await collect(mergedModelFiles(model));
      assert.deepEqual(await logitsOf(model), adapted, "the model is as it was");
      const loaded = await loadModelFrom(memoryFiles(files), { device });
      assert.ok(distance(await logitsOf(loaded), adapted) < 2e-5, adapter.method.name);
      await adaptersOf(model).mergeAndUnload();
      assert.deepEqual(await bits(loaded), await bits(model));
    }
  });

  test("is written shard by shard: one weight is made when the last one is written", async () => {
    const model = tinyLlama(device);
    await add(model, methods.tl6({ rank: 2 }));
    const live = (): number => device.memory().liveBytes;
    const before = live();
    const shards = mergedModelFiles(model, { maxShardBytes: 1500 }).filter(([name]) =>
      name.endsWith(".safetensors"),
    );
    assert.ok(shards.length > 2);
    let tensors = 0;
    for (const [, content] of shards) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of content as AsyncIterable<Uint8Array>) {
        chunks.push(chunk);
        assert.ok(live() - before < 3000, "no second model on the device");
      }
      tensors += (await openSafetensors(bytesSource(Uint8Array.from(Buffer.concat(chunks))))).entries.size;
    }
    assert.equal(tensors, model.stateDict().size);
  });

  test("can be in another precision, where a value that does not fit stops the writing", async () => {
    const model = tinyLlama(device);
    const adapter = await add(model, methods.tl6({ rank: 2 }));
    const adapted = await logitsOf(model);
    const files = await collect(mergedModelFiles(model, { dtype: "bf16" }));
    const loaded = await loadModelFrom(memoryFiles(files), { device });
    assert.ok(loaded.parameters().every(({ dtype }) => dtype === "bf16"));
    const off = distance(await logitsOf(loaded), adapted);
    assert.ok(off > 0 && off < 0.2, String(off));
    adapter.multiplier = 1e7;
    await assert.rejects(collect(mergedModelFiles(model, { dtype: "f16" })), {
      message: /not finite in f16/,
    });
  });
});

test("a linear that two modules share keeps its own adapter", async () => {
  class Twice extends nn.Module {
    layers: nn.Linear[] = [nn.Linear.init(4, 4, { device, key: key(1), bias: false })];
    again: nn.Linear = this.layers[0]!;
  }
  const model = new Twice();
  const adapter = adapt(model, methods.lora({ rank: 2, target: ["0"] }));
  assert.equal(adapter.plan.sites.length, 1);
  await assert.rejects(adaptersOf(model).merge(), { message: /the same weight as again\.weight/ });
});
