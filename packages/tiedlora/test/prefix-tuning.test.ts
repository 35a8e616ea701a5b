/** Prefix tuning: against a decoder in plain loops, in float64; with a cache, padding and packed rows; and peft's files, both ways. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, decodeF32, openSafetensors } from "@tiedlora/core";
import { type Decoder, generateTokens, KvCache } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import { adapt, type Adapter, adapterFiles, adaptersOf, countParameters, loadAdapterFiles, methods } from "../src/index.ts"; // prettier-ignore
import { linearSpecs, preset } from "@tiedlora/models";
import { asFiles, collect, type Contents, randomize } from "./support/files.ts";
import { distance, IDS, logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

type Rows = number[][];
const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, x, i) => sum + x * b[i]!, 0);

/** The logits of a Llama for one row of ids, with keys and values in front of each layer's, in float64. */
async function llamaLoops(
  model: Decoder,
  ids: readonly number[],
  front: (layer: number) => Promise<[Rows, Rows]>,
): Promise<number[]> {
  const { heads, kvHeads, headDim, layers, normEps } = model.config;
  const named = new Map(model.namedParameters());
  const matrix = async (path: string): Promise<Rows> => {
    const parameter = named.get(`${path}.weight`)!;
    return rowsOf(await parameter.data(), parameter.shape.at(-1)!);
  };
  const linear = async (path: string, x: Rows): Promise<Rows> => {
    const W = await matrix(path);
    return x.map((row) => W.map((one) => dot(one, row)));
  };
  const norm = async (path: string, x: Rows): Promise<Rows> => {
    const [w] = await matrix(path);
    return x.map((row) =>
      row.map((value, i) => (value / Math.sqrt(dot(row, row) / row.length + normEps)) * w![i]!),
    );
  };
  const turned = (row: readonly number[], position: number): number[] =>
    row.map((value, at) => {
      const [head, i] = [Math.floor(at / headDim) * headDim, at % headDim];
      const half = headDim / 2;
      const angle = position * 10_000 ** (-(2 * (i % half)) / headDim);
      const other = i < half ? -row[head + i + half]! : row[head + i - half]!;
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  const table = await matrix("model.embed_tokens");
  let x: Rows = ids.map((id) => table[id]!);
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    const inner = await norm(`${at}.input_layernorm`, x);
    const [frontK, frontV] = await front(layer);
    const n = frontK.length;
    const q = (await linear(`${at}.self_attn.q_proj`, inner)).map((row, t) => turned(row, t + n));
    const k = [
      ...frontK,
      ...(await linear(`${at}.self_attn.k_proj`, inner)).map((row, t) => turned(row, t + n)),
    ];
    const v = [...frontV, ...(await linear(`${at}.self_attn.v_proj`, inner))];
    const seen = q.map((row, t) =>
      Array.from({ length: heads }, (_, h) => {
        const part = (one: readonly number[], head: number): number[] =>
          one.slice(head * headDim, (head + 1) * headDim);
        const own = Math.floor((h * kvHeads) / heads);
        const scores = k
          .slice(0, n + t + 1)
          .map((key) => dot(part(row, h), part(key, own)) / Math.sqrt(headDim));
        const shares = scores.map((score) => Math.exp(score - Math.max(...scores)));
        const total = shares.reduce((a, b) => a + b);
        return Array.from({ length: headDim }, (_unused, i) =>
          shares.reduce((sum, share, s) => sum + (share / total) * part(v[s]!, own)[i]!, 0),
        );
      }).flat(),
    );
    const out = await linear(`${at}.self_attn.o_proj`, seen);
    x = x.map((row, t) => row.map((value, i) => value + out[t]![i]!));
    const mid = await norm(`${at}.post_attention_layernorm`, x);
    const [gate, up] = [await linear(`${at}.mlp.gate_proj`, mid), await linear(`${at}.mlp.up_proj`, mid)];
    const down = await linear(
      `${at}.mlp.down_proj`,
      gate.map((row, t) => row.map((g, i) => (g / (1 + Math.exp(-g))) * up[t]![i]!)),
    );
    x = x.map((row, t) => row.map((value, i) => value + down[t]![i]!));
  }
  return (await linear("lm_head", await norm("model.norm", x))).flat();
}

const rowsOf = (values: ArrayLike<number>, width: number): Rows =>
  Array.from({ length: values.length / width }, (_, i) =>
    Array.from(values).slice(i * width, (i + 1) * width),
  );

const frontOf =
  (adapter: Adapter) =>
  async (layer: number): Promise<[Rows, Rows]> => {
    const of = async (name: string): Promise<Rows> =>
      rowsOf(await adapter.parameter(`model.layers.${layer}.self_attn.${name}.prefix`).data(), 4);
    return [await of("k_proj"), await of("v_proj")];
  };

async function opened(
  files: Contents,
): Promise<{ shape: readonly number[]; values: Float32Array; names: string[] }> {
  const file = await openSafetensors(
    bytesSource(files.get("adapter_model.safetensors") as Uint8Array, "adapter"),
  );
  const name = "prompt_embeddings";
  return { shape: file.entries.get(name)!.shape, values: decodeF32(await file.read(name), "adapter", name), names: [...file.entries.keys()] }; // prettier-ignore
}

suite("prefix tuning", () => {
  test("is what plain loops compute, in float64", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.prefixTuning({ length: 3 })), 4, 0.8);
    const logits = await logitsOf(model);
    const wanted = (await Promise.all(IDS.map((ids) => llamaLoops(model, ids, frontOf(adapter))))).flat();
    assert.ok(distance(logits, wanted) < 1e-5, `${distance(logits, wanted)}`);
    const base = await adaptersOf(model).disabled(() => logitsOf(model));
    assert.ok(distance(base, (await Promise.all(IDS.map((ids) => llamaLoops(model, ids, () => Promise.resolve([[], []]))))).flat()) < 1e-5); // prettier-ignore
    assert.ok(distance(base, logits) > 0.01);
  });

  test("has 2 · layers · length · width parameters, and trains these alone", async () => {
    const linears = linearSpecs(preset("llama-2-7b")!);
    assert.equal(
      countParameters(linears, methods.prefixTuning({ length: 20 })).trainable,
      2 * 32 * 20 * 4096,
    );
    for (const model of [tinyLlama(), tinyGpt2()]) {
      for (const options of [{ length: 2 }, { length: 2, projection: 5 }]) {
        const adapter = adapt(model, methods.prefixTuning(options));
        const optimizer = optim.adamW(adapter.parameters(), { lr: 0.03 });
        const first = await lossOf(model).item();
        for (let step = 0; step < 4; step++) optimizer.step(lossOf(model));
        assert.ok((await lossOf(model).item()) < first);
        adapter.detach();
      }
    }
  });

  for (const [name, make] of Object.entries({ tinyLlama, tinyGpt2 })) {
    test(`answers with a cache, padding and packed rows as without, on ${name}`, async () => {
      const model = make();
      randomize(adapt(model, methods.prefixTuning({ length: 3 })), 4, 0.8);
      const [first, second] = IDS.map((row) => [...row]) as [number[], number[]];
      const last = async (ids: number[]): Promise<number[]> => [...(await model.forward([ids]).narrow(1, ids.length - 1, 1).data())]; // prettier-ignore
      const cache = new KvCache(model.config, model.device, [0, 2], 8);
      const read = model.forward([first, [0, 0, ...second.slice(2)]], { cache });
      cache.commit([read]);
      const next = model.forward([[7], [8]], { cache });
      cache.commit([next]);
      const wanted = [...(await last([...first, 7])), ...(await last([...second.slice(2), 8]))];
      assert.ok(distance(await next.data(), wanted) < 1e-5);
      const packed = await model
        .forward([[...first, ...second]], { segments: [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]] })
        .data();
      assert.ok(distance(packed, await logitsOf(model)) < 1e-5);
      let greedy = [...first];
      for (let i = 0; i < 4; i++) {
        const scores = await last(greedy);
        greedy = [...greedy, scores.indexOf(Math.max(...scores))];
      }
      const tokens: number[] = [];
      for await (const [token] of generateTokens(model, [first], { maxTokens: 4 })) tokens.push(token!);
      assert.deepEqual(tokens, greedy.slice(5));
    });

    test(`goes into peft's file and comes back, on ${name}`, async () => {
      const model = make();
      const adapter = randomize(adapt(model, methods.prefixTuning({ length: 3 })), 4, 0.8);
      const logits = await logitsOf(model);
      const files = await collect(adapterFiles(adapter, "peft"));
      const { shape, values, names } = await opened(files);
      const width = name === "tinyLlama" ? 4 : 8;
      assert.deepEqual([names, [...shape]], [["prompt_embeddings"], [3, 3 * 2 * width]]);
      // peft's view [n, layers · 2, heads, head width]: keys of layer l at 2l, values at 2l + 1
      if (name === "tinyLlama") {
        const [k, v] = await frontOf(adapter)(1);
        assert.deepEqual(rowsOf(values, 24)[2]!.slice(8, 16), [...k[2]!, ...v[2]!]);
      }
      const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
      const wanted = { peft_type: "PREFIX_TUNING", num_virtual_tokens: 3, token_dim: width, num_layers: 3, num_attention_heads: 2, prefix_projection: false }; // prettier-ignore
      for (const [field, value] of Object.entries(wanted)) assert.deepEqual(config[field], value, field);
      const again = make();
      const loaded = await loadAdapterFiles(again, asFiles(files));
      assert.deepEqual(await logitsOf(again), logits);
      assert.deepEqual(await collect(adapterFiles(loaded, "peft")), files);
    });
  }

  test("computed by a network, peft's file holds the results, and the native one the network", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.prefixTuning({ length: 3, projection: 5 })), 4, 0.8);
    const logits = await logitsOf(model);
    for (const format of ["peft", "native"] as const) {
      const again = tinyLlama();
      await loadAdapterFiles(again, asFiles(await collect(adapterFiles(adapter, format))));
      assert.ok(distance(await logitsOf(again), logits) < 1e-6);
    }
  });

  test("is refused where it cannot be", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.prefixTuning({ target: { modules: "all-linear", layers: [0, 2] } }));
    assert.throws(() => adapterFiles(adapter, "peft"), /all 3 layers, and this adapter for 2/);
    await assert.rejects(adaptersOf(model).merge(), /which no weight can hold; keep the adapter/);
    assert.throws(
      () => adaptersOf(model).mixed(["default", "__base__"], () => model.forward(IDS)),
      /cannot be mixed with others/,
    );
    adapter.detach();
    assert.throws(() => adapt(model, methods.prefixTuning({ target: ["o_proj"] })), /o_proj does not make keys or values alone; leave out the target/); // prettier-ignore
    adapt(model, methods.prefixTuning({ target: ["k_proj"] }));
    assert.throws(() => model.forward(IDS), /keys and 0 values in front/);
    const dynamic = tinyLlama(model.device, {
      max_position_embeddings: 8,
      head_dim: 4,
      rope_scaling: { rope_type: "dynamic", factor: 2 },
    });
    adapt(dynamic, methods.prefixTuning());
    assert.throws(() => dynamic.forward(IDS), /rotations depend on the length/);
  });
});
