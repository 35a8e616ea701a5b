import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import {
  FormatError,
  memoryFiles,
  openWeights,
  reference,
  serialize,
  type TensorToWrite,
} from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { configFrom } from "../src/config.ts";
import { createModel, loadModelFrom } from "../src/load.ts";
import { loadConfig, loadModel, loadPretrained, saveModel } from "../src/node.ts";
import { needsShared, sharedPath } from "./support/shared.ts";

const temporary = mkdtempSync(join(tmpdir(), "tiedlora-models-"));
after(() => rmSync(temporary, { recursive: true }));

describe("saving", { skip: needsShared }, () => {
  test("saved and loaded again, sharded or not, they are the same bytes and the same config", async () => {
    for (const name of ["tiny-gpt2", "tiny-llama-bf16", "tiny-llama-f16"]) {
      for (const maxShardBytes of [1e9, 30_000]) {
        const device = reference();
        const source = sharedPath("fixtures/peft", name);
        const out = join(temporary, `${name}-${maxShardBytes}`);
        const model = await loadModel(source, { device });
        await saveModel(model, out, { maxShardBytes });
        const [before, restored] = [
          await openWeights(await directoryFiles(source)),
          await openWeights(await directoryFiles(out)),
        ];
        assert.deepEqual(new Set(restored.entries.keys()), new Set(before.entries.keys()));
        for (const tensor of before.entries.keys())
          assert.deepEqual(await restored.read(tensor), await before.read(tensor));
        assert.equal(restored.metadata.get("format"), "pt");
        await Promise.all([before.close(), restored.close()]);
        assert.deepEqual(
          { ...(await loadConfig(out)), raw: null },
          { ...(await loadConfig(source)), raw: null },
        );
        assert.equal(
          readdirSync(out).some((file) => file.startsWith("model-00001-of-")),
          maxShardBytes < 1e6,
        );
        device.close();
      }
    }
  });

  test("a save over another one leaves no file that would be read instead", async () => {
    const device = reference();
    const out = join(temporary, "over");
    const [gpt2, llama] = await Promise.all(
      ["tiny-gpt2", "tiny-llama"].map((name) => loadModel(sharedPath("fixtures/peft", name), { device })),
    );
    for (const [model, maxShardBytes] of [
      [gpt2!, 1e9],
      [llama!, 30_000],
      [gpt2!, 1e9],
    ] as const) {
      await saveModel(model, out, { maxShardBytes });
      const again = await loadModel(out, { device });
      assert.equal(again.config.modelType, model.config.modelType);
      assert.deepEqual(
        readdirSync(out).filter((file) => file.endsWith(".tmp")),
        [],
      );
    }
    device.close();
  });
});

describe("files that do not fit", () => {
  const LLAMA = {
    model_type: "llama",
    vocab_size: 5,
    hidden_size: 4,
    intermediate_size: 3,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    tie_word_embeddings: true,
  };
  const device = reference();
  after(() => device.close());
  type Tensors = Map<string, TensorToWrite>;

  /** The files of a valid model, after `change`. */
  async function files(
    raw: Record<string, unknown>,
    change: (tensors: Tensors) => void = () => undefined,
  ): ReturnType<typeof load> {
    const tensors: Tensors = new Map();
    for (const [name, parameter] of createModel(configFrom(raw), { device, seed: 1 }).stateDict()) {
      const values = (await parameter.data()) as Float32Array;
      tensors.set(name, {
        name,
        dtype: "F32",
        shape: parameter.shape,
        bytes: () => new Uint8Array(values.buffer),
      });
    }
    change(tensors);
    return load(raw, await serialize(tensors.values()));
  }
  const load = async (raw: object, weights: Uint8Array) =>
    loadModelFrom(
      memoryFiles(
        new Map<string, Uint8Array | string>([
          ["config.json", JSON.stringify(raw)],
          ["model.safetensors", weights],
        ]),
      ),
      { device },
    );
  const rename = (tensors: Tensors, to: (name: string) => string): void => {
    for (const [name, tensor] of Array.from(tensors)) {
      tensors.delete(name);
      tensors.set(to(name), { ...tensor, name: to(name) });
    }
  };
  const zeros = (
    name: string,
    shape: number[],
    dtype: TensorToWrite["dtype"] = "F32",
    bytes = 4,
  ): TensorToWrite => ({
    name,
    dtype,
    shape,
    bytes: () => new Uint8Array(shape.reduce((a, b) => a * b, bytes)),
  });

  const cases: [string, (tensors: Tensors) => void, RegExp][] = [
    [
      "a missing tensor",
      (t) => t.delete("model.norm.weight"),
      /1 missing: model\.norm\.weight.*expected exactly the 11 tensors of a llama model/,
    ],
    [
      "an unexpected tensor",
      (t) => t.set("model.extra", zeros("model.extra", [1])),
      /1 unexpected: model\.extra/,
    ],
    [
      "a wrong shape",
      (t) => t.set("model.norm.weight", zeros("model.norm.weight", [5])),
      /"model\.norm\.weight": found shape \[5\]; expected \[4\]/,
    ],
    [
      "an integer weight",
      (t) => t.set("model.norm.weight", zeros("model.norm.weight", [4], "I32")),
      /"model\.norm\.weight": found I32; expected F32/,
    ],
    ["many missing tensors", (t) => t.clear(), /11 missing: .*and 6 more/],
  ];
  for (const [what, change, message] of cases) {
    test(`${what} is named`, async () => {
      await assert.rejects(files(LLAMA, change), (error: Error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      });
    });
  }

  test("a missing head says how a tied one is declared", async () => {
    const untied = { ...LLAMA, tie_word_embeddings: false };
    await assert.rejects(
      files(untied, (t) => t.delete("lm_head.weight")),
      /lm_head\.weight.*"tie_word_embeddings": true/,
    );
  });

  test("missing files are named", async () => {
    await assert.rejects(loadModelFrom(memoryFiles(new Map()), { device }), /no config\.json/);
    const config = new Map([["config.json", JSON.stringify(LLAMA)]]);
    await assert.rejects(
      loadModelFrom(memoryFiles(config), { device }),
      /no weights; expected model\.safetensors/,
    );
  });

  test("a failed load leaves no memory behind", async () => {
    const before = device.memory().liveBytes;
    const broken = { ...LLAMA };
    const model = createModel(configFrom(broken), { device, seed: 1 });
    const bytes = await serialize([...model.stateDict()].map(([name, p]) => zeros(name, [...p.shape])));
    for (const p of model.parameters()) p.storage.buffer.free();
    const source = memoryFiles(
      new Map<string, Uint8Array | string>([
        ["config.json", JSON.stringify(broken)],
        ["model.safetensors", bytes],
      ]),
    );
    const failing = {
      name: "failing",
      open: async (name: string) => {
        const file = await source.open(name);
        if (!file || name === "config.json") return file;
        return {
          ...file,
          read: async (at: number, n: number) =>
            at > bytes.length / 2 ? new Uint8Array(0) : file.read(at, n),
        };
      },
    };
    await assert.rejects(loadModelFrom(failing, { device }), /cut short/);
    assert.equal(device.memory().liveBytes, before);
  });

  test("what old and partial files carry is taken: no prefix, buffers, a head although tied", async () => {
    const gpt2 = { model_type: "gpt2", vocab_size: 5, n_embd: 4, n_layer: 1, n_head: 2, n_positions: 8 };
    const ids = [[1, 2, 3]];
    const plain = await (await files(gpt2)).forward(ids).data();
    const bare = await files(gpt2, (t) => {
      rename(t, (name) => name.replace("transformer.", ""));
      t.set("h.0.attn.bias", zeros("h.0.attn.bias", [1, 1, 8, 8]));
      t.set("h.0.attn.masked_bias", zeros("h.0.attn.masked_bias", []));
    });
    assert.deepEqual(await bare.forward(ids).data(), plain);
    const llama = await (await files(LLAMA)).forward(ids).data();
    const carried = await files(LLAMA, (t) => {
      t.set("lm_head.weight", zeros("lm_head.weight", [5, 4]));
      t.set(
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        zeros("model.layers.0.self_attn.rotary_emb.inv_freq", [1]),
      );
    });
    assert.deepEqual(await carried.forward(ids).data(), llama);
    const headOnly = await files(LLAMA, (t) =>
      rename(t, (name) => name.replace("model.embed_tokens", "lm_head")),
    );
    assert.deepEqual(await headOnly.forward(ids).data(), llama);
  });

  test("float64 weights become f32; norms of NeMo's GPT have a bias where the file has one", async () => {
    const nemo = { ...LLAMA, model_type: "nemo_gpt" };
    const without = await files(nemo);
    assert.equal(without.config.normBias, false);
    const biased = await files(nemo, (t) => {
      for (const name of [
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
        "model.norm",
      ]) {
        t.set(`${name}.bias`, zeros(`${name}.bias`, [4]));
      }
    });
    assert.equal(biased.config.normBias, true);
    assert.deepEqual(await biased.forward([[1, 2]]).data(), await without.forward([[1, 2]]).data());
    const wide = await files(LLAMA, (t) => {
      const values = Float64Array.of(1, 0.5, 0.1, 3);
      t.set("model.norm.weight", {
        name: "model.norm.weight",
        dtype: "F64",
        shape: [4],
        bytes: () => new Uint8Array(values.buffer),
      });
    });
    assert.deepEqual(
      await wide.stateDict().get("model.norm.weight")!.data(),
      Float32Array.of(1, 0.5, 0.1, 3),
    );
  });
});

test("the same seed makes the same new model; another one another", async () => {
  const device = reference();
  const config = configFrom({
    model_type: "gpt2",
    vocab_size: 9,
    n_embd: 8,
    n_layer: 1,
    n_head: 2,
    n_positions: 8,
  });
  const logits = async (seed: number): Promise<ArrayLike<number>> =>
    createModel(config, { device, seed })
      .forward([[1, 2, 3]])
      .data();
  assert.deepEqual(await logits(3), await logits(3));
  assert.notDeepEqual(await logits(3), await logits(4));
  device.close();
});

test("saving copies the tokenizer along", { skip: needsShared }, async () => {
  const device = reference();
  const source = sharedPath("models/stories260K");
  const { model } = await loadPretrained(source, { device });
  const out = join(temporary, "stories");
  await saveModel(model, out, { copyFrom: source });
  assert.deepEqual(readFileSync(join(out, "tokenizer.json")), readFileSync(join(source, "tokenizer.json")));
  assert.equal((await loadPretrained(out, { device })).tokenizer.bosId, 1);
  device.close();
});
