/**
 * peft's files for methods other than LoRA and VeRA: names, shapes and settings as published; the update of a module, computed by peft's
 * formula in float64 from the numbers in the file; and the way back.
 */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  bytesSource,
  decodeF32,
  openSafetensors,
  reference,
  serialize,
  type TensorFile,
} from "@tiedlora/core";
import { dividedSize } from "../src/methods/lokr.ts";
import { adapt, type Adapter, adapterFiles, loadAdapterFiles, type Method, methods } from "../src/index.ts";
import { asFiles, collect, type Contents, randomize, withConfig } from "./support/files.ts";
import { distance, logitsOf, tinyLlama } from "./support/tiny.ts";

const device = reference();
const PATH = "model.layers.1.self_attn.k_proj"; // [4, 8]
const [IN, OUT, RANK] = [8, 4, 2];
const target = ["q_proj", "k_proj", "down_proj"];

/** The tensors of a file's module by their last names. */
type Tensors = (name: string) => Promise<readonly number[]>;
const sum = (n: number, term: (i: number) => number): number =>
  Array.from({ length: n }, (_, i) => term(i)).reduce((a, b) => a + b, 0);

interface Kind {
  readonly method: Method;
  /** Shapes of the module's tensors by name. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly config: Readonly<Record<string, unknown>>;
  /** The new weight [out][in] of k_proj, from peft's formula. */
  readonly weight: (
    t: Tensors,
    W: readonly number[],
    all: Tensors,
  ) => Promise<(o: number, i: number) => number>;
}

const KINDS: Readonly<Record<string, Kind>> = {
  IA3: {
    method: methods.ia3({ target }),
    shapes: { ia3_l: [OUT, 1] },
    config: { feedforward_modules: ["down_proj"] },
    weight: async (t, W) => {
      const l = await t("ia3_l");
      return (o, i) => l[o]! * W[o * IN + i]!;
    },
  },
  ADALORA: {
    method: methods.adaLora({ target, rank: RANK, alpha: 3 }),
    shapes: { lora_A: [RANK, IN], lora_E: [RANK, 1], lora_B: [OUT, RANK] },
    config: { init_r: RANK, lora_alpha: 3.000015 },
    weight: async (t, W) => {
      const [A, E, B] = [await t("lora_A"), await t("lora_E"), await t("lora_B")];
      const scale = (3 * (RANK + 1e-5)) / RANK / (RANK + 1e-5); // lora_alpha / (ranknum + 1e-5)
      return (o, i) => W[o * IN + i]! + scale * sum(RANK, (k) => B[o * RANK + k]! * A[k * IN + i]! * E[k]!);
    },
  },
  HRA: {
    method: methods.hra({ target, rank: RANK }),
    shapes: { hra_u: [IN, RANK] },
    config: { r: RANK, apply_GS: false },
    weight: async (t, W) => {
      const u = await t("hra_u");
      let H = Array.from({ length: IN }, (_, i) => Array.from({ length: IN }, (__, j) => Number(i === j)));
      for (let k = 0; k < RANK; k++) {
        const unit = Array.from(
          { length: IN },
          (_, i) => u[i * RANK + k]! / Math.sqrt(sum(IN, (j) => u[j * RANK + k]! ** 2)),
        );
        H = H.map((row) => row.map((one, j) => one - 2 * sum(IN, (e) => row[e]! * unit[e]!) * unit[j]!));
      }
      return (o, i) => sum(IN, (e) => W[o * IN + e]! * H[e]![i]!);
    },
  },
  OFT: {
    method: methods.oft({ target, block: 4 }),
    shapes: { "oft_R.weight": [IN / 4, 6] },
    config: { oft_block_size: 4, r: 0, use_cayley_neumann: true, num_cayley_neumann_terms: 5 },
    weight: async (t, W) => {
      const upper = await t("oft_R.weight");
      const R = [0, 1].map((block) => {
        const Q = Array.from({ length: 4 }, () => [0, 0, 0, 0]);
        let next = block * 6;
        for (let i = 0; i < 4; i++)
          for (let j = i + 1; j < 4; j++) {
            Q[i]![j] = upper[next]!;
            Q[j]![i] = -upper[next++]!;
          }
        const times = (a: number[][], b: number[][]): number[][] =>
          a.map((row) => b.map((_, j) => sum(4, (e) => row[e]! * b[e]![j]!)));
        const [Q2, Q3, Q4] = [times(Q, Q), times(times(Q, Q), Q), times(times(Q, Q), times(Q, Q))];
        return Q.map((row, i) =>
          row.map((one, j) => Number(i === j) + 2 * (one + Q2[i]![j]! + Q3[i]![j]!) + Q4[i]![j]!),
        );
      });
      // x R in each block, so W R^T
      return (o, i) =>
        sum(4, (c) => W[o * IN + 4 * Math.floor(i / 4) + c]! * R[Math.floor(i / 4)]![i % 4]![c]!);
    },
  },
  LOHA: {
    method: methods.loha({ target, rank: RANK, alpha: 3 }),
    shapes: { hada_w1_a: [OUT, RANK], hada_w1_b: [RANK, IN], hada_w2_a: [OUT, RANK], hada_w2_b: [RANK, IN] },
    config: { r: RANK, alpha: 3 },
    weight: async (t, W) => {
      const [a1, b1, a2, b2] = [
        await t("hada_w1_a"),
        await t("hada_w1_b"),
        await t("hada_w2_a"),
        await t("hada_w2_b"),
      ];
      const product = (a: readonly number[], b: readonly number[], o: number, i: number): number =>
        sum(RANK, (k) => a[o * RANK + k]! * b[k * IN + i]!);
      return (o, i) => W[o * IN + i]! + 1.5 * product(a1, b1, o, i) * product(a2, b2, o, i);
    },
  },
  LOKR: {
    method: methods.lokr({ target, rank: 1, alpha: 3 }),
    shapes: { lokr_w1: [2, 2], lokr_w2_a: [2, 1], lokr_w2_b: [1, 4] },
    config: { r: 1, alpha: 3, decompose_factor: -1, decompose_both: false },
    weight: async (t, W) => {
      const [w1, a, b] = [await t("lokr_w1"), await t("lokr_w2_a"), await t("lokr_w2_b")];
      return (o, i) =>
        W[o * IN + i]! + 3 * w1[2 * Math.floor(o / 2) + Math.floor(i / 4)]! * a[o % 2]! * b[i % 4]!;
    },
  },
  RANDLORA: {
    method: methods.randLora({ target: ["q_proj", "k_proj"], rank: RANK, alpha: 3 }),
    // smaller sides 8 and 4, so the model has 4 bases of rank 2, of which k_proj uses 2
    shapes: { randlora_lambda: [RANK, 2], randlora_gamma: [2, OUT] },
    config: { r: RANK, randlora_alpha: 3, save_projection: true },
    weight: async (t, W, all) => {
      const [lambda, gamma] = [await t("randlora_lambda"), await t("randlora_gamma")];
      const [A, B] = [await all("base_model.randlora_A"), await all("base_model.randlora_B")]; // [2, 1, 8], [8, 4, 2]
      // peft flattens B [larger, bases, rank] and A [rank, bases, smaller] and multiplies them along the flat axis
      const update = (wide: number, narrow: number): number =>
        sum(
          4,
          (k) =>
            B[wide * 8 + k]! *
            lambda[k]! *
            A[Math.floor(k / 2) * 8 + narrow]! *
            gamma[(k % 2) * OUT + narrow]!,
        );
      return (o, i) => W[o * IN + i]! + 1.5 * update(i, o);
    },
  },
  VBLORA: {
    method: methods.vbLora({ target, rank: RANK, vectors: 5, length: 4, topK: 2 }),
    shapes: { vblora_logits_A: [RANK, IN / 4, 5], vblora_logits_B: [OUT / 4, RANK, 5] },
    config: { r: RANK, num_vectors: 5, vector_length: 4, topk: 2, save_only_topk_weights: false },
    weight: async (t, W, all) => {
      const [a, b, bank] = [
        await t("vblora_logits_A"),
        await t("vblora_logits_B"),
        await all("base_model.vblora_vector_bank"),
      ];
      const piece = (logits: readonly number[], at: number): ((i: number) => number) => {
        const own = logits.slice(at * 5, at * 5 + 5).map((logit, v) => [logit, v] as const);
        const top = own.sort(([p], [q]) => q - p).slice(0, 2);
        const total = top.reduce((n, [logit]) => n + Math.exp(logit), 0);
        return (i) => top.reduce((n, [logit, v]) => n + (Math.exp(logit) / total) * bank[v * 4 + i]!, 0);
      };
      const A = (k: number, i: number): number => piece(a, k * (IN / 4) + Math.floor(i / 4))(i % 4);
      const B = (o: number, k: number): number => piece(b, Math.floor(o / 4) * RANK + k)(o % 4);
      return (o, i) => W[o * IN + i]! + sum(RANK, (k) => B(o, k) * A(k, i));
    },
  },
};

async function opened(files: Contents): Promise<TensorFile> {
  return openSafetensors(bytesSource(files.get("adapter_model.safetensors") as Uint8Array, "adapter"));
}
const configOf = (files: Contents): Record<string, unknown> =>
  JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;

async function make(
  method: Method,
  std = 0.2,
): Promise<{ adapter: Adapter; files: Contents; logits: number[] }> {
  const model = tinyLlama(device);
  const adapter = randomize(await adapt(model, method), 3, std);
  return { adapter, files: await collect(adapterFiles(adapter, "peft")), logits: await logitsOf(model) };
}

for (const [type, kind] of Object.entries(KINDS)) {
  suite(type, () => {
    test("is written as peft writes it, and computes the same from there", async () => {
      const { files } = await make(kind.method);
      const config = configOf(files);
      assert.equal(config["peft_type"], type);
      const adapted = kind.method.target as string[];
      assert.deepEqual([...(config["target_modules"] as string[])].sort(), [...adapted].sort());
      for (const [field, value] of Object.entries(kind.config)) assert.deepEqual(config[field], value, field);
      const file = await opened(files);
      const at = `base_model.model.${PATH}.`;
      const shapes = [...file.entries]
        .filter(([name]) => name.startsWith(at))
        .map(([name, { shape }]) => [name.slice(at.length), [...shape]]);
      assert.deepEqual(Object.fromEntries(shapes), kind.shapes);
      const read: Tensors = async (name) => [...decodeF32(await file.read(name), file.name, name)];

      const model = tinyLlama(device);
      const host = model.linear(PATH)!;
      const weight = await kind.weight((name) => read(at + name), [...(await host.weight.data())], read);
      await loadAdapterFiles(model, asFiles(files));
      const units = device.tensor(
        Float32Array.from({ length: IN * IN }, (_, i) => Number(i % (IN + 1) === 0)),
        { shape: [IN, IN] },
      );
      const columns = await host.forward(units).data(); // [in, out]
      const expected = Array.from({ length: IN * OUT }, (_, k) => weight(k % OUT, Math.floor(k / OUT)));
      assert.ok(distance(columns, expected) < 2e-6, String(distance(columns, expected)));
    });

    test("comes back with equal logits, and an equal file", async () => {
      const { files, logits } = await make(kind.method);
      const again = tinyLlama(device);
      const loaded = await loadAdapterFiles(again, asFiles(files));
      assert.ok(distance(await logitsOf(again), logits) < 1e-6);
      assert.deepEqual(await collect(adapterFiles(loaded, "peft")), files);
    });
  });
}

test("LoKr divides sizes as peft does, and decomposes both sides if asked to", async () => {
  const sizes = [[256, -1, 16, 16], [128, -1, 8, 16], [127, -1, 1, 127], [128, 4, 4, 32], [12, -1, 3, 4], [12, 5, 3, 4]] as const; // prettier-ignore
  for (const [size, factor, m, n] of sizes)
    assert.deepEqual(dividedSize(size, factor), [m, n], `${size}, ${factor}`);
  const { files, logits } = await make(methods.lokr({ target, rank: 1, factor: 4, both: true }));
  const file = await opened(files);
  const at = "base_model.model.model.layers.1.mlp.down_proj.";
  const found = [...file.entries].filter(([name]) => name.startsWith(at));
  // 8 = 4 · 2 outputs and 12 = 4 · 3 inputs: rank 1 is below half of 4 and of 3
  assert.deepEqual(
    Object.fromEntries(found.map(([name, { shape }]) => [name.slice(at.length), [...shape]])),
    {
      lokr_w1_a: [4, 1],
      lokr_w1_b: [1, 4],
      lokr_w2_a: [2, 1],
      lokr_w2_b: [1, 3],
    },
  );
  assert.equal(configOf(files)["decompose_both"], true);
  const again = tinyLlama(device);
  await loadAdapterFiles(again, asFiles(files));
  assert.ok(distance(await logitsOf(again), logits) < 1e-6);
  assert.throws(() => methods.lokr({ rank: 2, rankPattern: { q_proj: 4 } }), /rankPattern/);
});

test("the rows of trained tokens are those of the embedding in peft's file, and come back as differences", async () => {
  const method = methods.trainedTokens({ tokens: [5, 3], rank: 4, alpha: 2, target: ["embed_tokens"] });
  const { adapter, files, logits } = await make(method);
  const config = configOf(files);
  assert.deepEqual([config["peft_type"], config["token_indices"], config["target_modules"]], ["TRAINABLE_TOKENS", [5, 3], ["embed_tokens"]]); // prettier-ignore
  const file = await opened(files);
  assert.deepEqual([...file.entries.keys()], ["base_model.model.model.embed_tokens.trainable_tokens_delta"]);
  const rows = decodeF32(await file.read([...file.entries.keys()][0]!), file.name, "rows");
  const table = await tinyLlama(device)
    .embed([[5, 3]])
    .data();
  const delta = await adapter.parameter("model.embed_tokens.rows").data(); // [8, 2]
  rows.forEach((value, i) => {
    const wanted = table[i]! + 0.5 * delta[(i % 8) * 2 + Math.floor(i / 8)]!;
    assert.ok(Math.abs(value - wanted) < 1e-6, `${value}, not ${wanted}`);
  });
  const unnamed = withConfig(files, (one) => (one["target_modules"] = null));
  for (const contents of [files, unnamed]) {
    const again = tinyLlama(device);
    await loadAdapterFiles(again, asFiles(contents));
    assert.ok(distance(await logitsOf(again), logits) < 1e-5);
  }
  await assert.rejects(loadAdapterFiles(tinyLlama(device, { tie_word_embeddings: true }), asFiles(files)), /tied to the input embedding, and peft changes the rows of both/); // prettier-ignore
});

test("VB-LoRA's files of the largest weights alone are written, and read", async () => {
  const { adapter, logits } = await make(KINDS["VBLORA"]!.method);
  const small = await collect(adapterFiles(adapter, "peft-topk"));
  assert.equal(configOf(small)["save_only_topk_weights"], true);
  const file = await opened(small);
  const at = `base_model.model.${PATH}.vblora_logits_A`;
  assert.deepEqual(file.entries.get(`${at}_topk_indices`)?.shape, [RANK, IN / 4, 2]);
  assert.deepEqual(file.entries.get(`${at}_topk_weights`)?.shape, [RANK, IN / 4, 1]);
  const model = tinyLlama(device);
  await loadAdapterFiles(model, asFiles(small));
  assert.ok(distance(await logitsOf(model), logits) < 1e-5);
  const other = adapt(tinyLlama(device), methods.lora({ rank: 2 }));
  assert.throws(
    () => adapterFiles(other, "peft-topk"),
    /holds the largest weights of VB-LoRA, and this adapter is of lora/,
  );
});

test("VB-LoRA's files of the largest weights alone are read as Python's peft writes them", async () => {
  const { files, logits } = await make(KINDS["VBLORA"]!.method);
  const file = await opened(files);
  const tensors = [];
  for (const [name, { shape }] of file.entries) {
    const values = decodeF32(await file.read(name), file.name, name);
    if (!name.includes("logits")) {
      tensors.push({
        name,
        dtype: "F32" as const,
        shape,
        bytes: () => Promise.resolve(new Uint8Array(values.slice().buffer)),
      });
      continue;
    }
    const rows = values.length / 5;
    const [indices, weights] = [new Uint8Array(rows * 2), new Float32Array(rows)];
    for (let row = 0; row < rows; row++) {
      const order = [0, 1, 2, 3, 4].sort((a, b) => values[row * 5 + b]! - values[row * 5 + a]!).slice(0, 2);
      indices.set(order, row * 2);
      const [p, q] = order.map((at) => Math.exp(values[row * 5 + at]!)) as [number, number];
      weights[row] = p / (p + q);
    }
    const at = shape.slice(0, 2);
    tensors.push({
      name: `${name}_topk_indices`,
      dtype: "U8" as const,
      shape: [...at, 2],
      bytes: () => Promise.resolve(indices),
    });
    tensors.push({
      name: `${name}_topk_weights`,
      dtype: "F32" as const,
      shape: [...at, 1],
      bytes: () => Promise.resolve(new Uint8Array(weights.buffer)),
    });
  }
  const small: Contents = new Map([...files, ["adapter_model.safetensors", await serialize(tensors, [])]]);
  const model = tinyLlama(device);
  await loadAdapterFiles(model, asFiles(small));
  assert.ok(distance(await logitsOf(model), logits) < 1e-5);
});

suite("what cannot be read or written says why", () => {
  test("settings with which something else is computed", async () => {
    const { files } = await make(KINDS["HRA"]!.method);
    const other = withConfig(files, (config) => (config["apply_GS"] = true));
    await assert.rejects(
      loadAdapterFiles(tinyLlama(device), asFiles(other)),
      /"apply_GS": found true; expected false/,
    );
    const odd = withConfig(files, (config) => (config["r"] = 3));
    await assert.rejects(
      loadAdapterFiles(tinyLlama(device), asFiles(odd)),
      /rank 3 given; expected an even number/,
    );
  });

  test("methods that peft does not have, and targets that it cannot have", async () => {
    const rasa = adapt(tinyLlama(device), methods.rasa({ target, rank: 2 }));
    assert.throws(() => adapterFiles(rasa, "peft"), /peft has no kind of its own for rasa.*peft-lora/);
    const fused = adapt(tinyLlama(device), methods.ia3());
    assert.throws(
      () => adapterFiles(fused, "peft"),
      /qkv is adapted as one target of 3 modules.*target of names/,
    );
    const uneven = adapt(tinyLlama(device), methods.oft({ target, block: 8 }));
    assert.throws(() => adapterFiles(uneven, "peft"), /one block size for all modules/);
  });

  test("AdaLoRA's pruned ranks are read, and a module without any is an error", async () => {
    const { files } = await make(methods.adaLora({ target, rank: RANK, rankPattern: { [PATH]: 1 } }));
    const pattern = configOf(files)["rank_pattern"] as Record<string, boolean[]>;
    assert.deepEqual(pattern[`${PATH}.lora_E`], [true]);
    const loaded = await loadAdapterFiles(tinyLlama(device), asFiles(files));
    assert.equal(loaded.plan.sites.find(({ site }) => site.path === PATH)!.dims.rank, 1);
    const none = withConfig(
      files,
      (config) => (config["rank_pattern"] = { [`${PATH}.lora_E`]: [false, false] }),
    );
    await assert.rejects(loadAdapterFiles(tinyLlama(device), asFiles(none)), /no triplet kept/);
  });
});
