/** Quantized checkpoints, and weights that are quantized while they are loaded, compute what their numbers compute. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, memoryFiles, reference, serialize } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { configFrom } from "../src/config.ts";
import type { Decoder } from "../src/decoder.ts";
import { createModel, loadModelFrom, type LoadOptions } from "../src/load.ts";
import { dequantize } from "../src/quantized/form.ts";
import { quantizeInt8 } from "../src/quantized/int8.ts";
import { quantizeNf4 } from "../src/quantized/nf4.ts";
import { modelFiles } from "../src/save.ts";
import { bitsandbytesTensors, mlxTensors, Parts } from "./support/quantized.ts";

const device = reference();
const devices = [device, await cpu({ threads: 2 })];
after(() => devices.forEach((one) => one.close()));

const LLAMA = {
  model_type: "llama",
  vocab_size: 40,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  torch_dtype: "bfloat16",
};
const IDS = [[1, 7, 3, 39, 0, 12]];
const isLinear = (name: string): boolean => name.endsWith("_proj.weight");

type Raw = Readonly<Record<string, unknown>>;

/** A model with random weights: its tensors as a file holds them, and their values. */
async function random(raw: Raw): Promise<{ parts: Parts; values: Map<string, Float32Array> }> {
  const [parts, values] = [new Parts(), new Map<string, Float32Array>()];
  for (const [name, parameter] of createModel(configFrom(raw), { device, seed: 5 }).stateDict()) {
    const numbers = (await parameter.data()) as Float32Array;
    values.set(name, numbers);
    parts.replace(name, "F32", parameter.shape, new Uint8Array(numbers.buffer));
  }
  return { parts, values };
}

async function load(raw: Raw, parts: Parts, options: Partial<LoadOptions> = {}): Promise<Decoder> {
  const files = new Map<string, Uint8Array | string>([
    ["config.json", JSON.stringify(raw)],
    ["model.safetensors", await serialize(parts.values())],
  ]);
  return loadModelFrom(memoryFiles(files), { device, ...options });
}

/** The model of these values, not quantized. */
async function plain(raw: Raw, values: ReadonlyMap<string, Float32Array>, on: Device): Promise<Decoder> {
  const shapes = new Map([...createModel(configFrom(raw), { device, seed: 5 }).stateDict()].map(([name, { shape }]) => [name, shape])); // prettier-ignore
  const parts = new Parts();
  for (const [name, numbers] of values) parts.replace(name, "F32", shapes.get(name)!, new Uint8Array(numbers.buffer)); // prettier-ignore
  return load(raw, parts, { device: on });
}

/** The logits are those of the dequantized weights: to the bit where sums are in float64, else nearly. */
async function sameLogits(quantized: Decoder, other: Decoder): Promise<void> {
  const logits = async (model: Decoder): Promise<number[]> => [...(await model.forward(IDS).data())];
  const [a, b] = [await logits(quantized), await logits(other)];
  const error = a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
  const largest = b.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  assert.ok(error <= largest * 1e-5, `${error} of ${largest}`);
  assert.ok(largest > 1e-3);
}

const quantizedPaths = (model: Decoder): string[] =>
  [...model.stateDict()].filter(([, p]) => p instanceof nn.QuantizedParameter).map(([path]) => path); // prettier-ignore

function merge(into: Parts, from: Parts): void {
  for (const [name, tensor] of from) into.set(name, tensor);
}

describe("checkpoints of other programs", () => {
  test("bitsandbytes: linears in NF4, nested or not, the rest as it is", async () => {
    for (const nested of [false, true]) {
      const raw = { ...LLAMA, intermediate_size: 64, quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" } }; // prettier-ignore
      const { parts, values } = await random({ ...LLAMA, intermediate_size: 64 });
      let seed = 1;
      for (const [name, { shape }] of Array.from(parts))
        if (isLinear(name)) {
          const made = bitsandbytesTensors(name, shape as [number, number], seed++, { nested, scale: 0.1 });
          merge(parts, made.parts);
          values.set(name, made.expected);
        }
      for (const on of devices) {
        const model = await load(raw, parts, { device: on });
        assert.deepEqual(quantizedPaths(model), [...values.keys()].filter(isLinear));
        await sameLogits(model, await plain({ ...LLAMA, intermediate_size: 64 }, values, on));
      }
      if (!nested) continue;
      // the embeddings, which bitsandbytes leaves as they are, in eight bits
      const embeddings = ["model.embed_tokens.weight", "lm_head.weight"];
      for (const path of embeddings) values.set(path, dequantize(quantizeInt8(values.get(path)!, [40, 64], 64))); // prettier-ignore
      const model = await load(raw, parts, { quantize: "nf4+int8" });
      const expected = [...values.keys()].filter((path) => isLinear(path) || embeddings.includes(path));
      assert.deepEqual(quantizedPaths(model), expected);
      for (const path of embeddings) assert.deepEqual(await model.stateDict().get(path)!.data(), values.get(path)); // prettier-ignore
      await sameLogits(model, await plain({ ...LLAMA, intermediate_size: 64 }, values, device));
      for (const stream of [false, true])
        await assert.rejects(load(raw, parts, { quantize: "nf4", stream }), /bitsandbytes has quantized; expected one to quantize to nf4.*or with nf4\+int8/); // prettier-ignore
    }
  });

  test("MLX: embedding and head too, with settings of single modules, tied or not", async () => {
    const own = "model.layers.1.mlp.up_proj";
    for (const tied of [false, true]) {
      const base = { ...LLAMA, tie_word_embeddings: tied };
      const quantization = {
        group_size: 32,
        bits: 4,
        [own]: { group_size: 64, bits: 8 },
        "model.norm": false,
      };
      const { parts, values } = await random(base);
      let seed = 1;
      for (const [name, { shape }] of Array.from(parts))
        if (shape.length > 1) {
          const module = name.replace(/\.weight$/, "");
          const settings = module === own ? { group: 64, bits: 8 as const } : { group: 32, bits: 4 as const };
          const made = mlxTensors(module, shape as [number, number], settings, seed % 2 ? "f16" : "bf16", seed++, 0.02); // prettier-ignore
          merge(parts, made.parts);
          values.set(name, made.expected);
        }
      for (const on of devices) {
        const model = await load({ ...base, quantization }, parts, { device: on });
        assert.equal(quantizedPaths(model).length, tied ? 15 : 16);
        await sameLogits(model, await plain(base, values, on));
      }
    }
  });
});

describe("quantized while loading", () => {
  const encoders = { nf4: quantizeNf4, int8: quantizeInt8 } as const;
  for (const kind of ["nf4", "int8"] as const)
    test(`${kind}: linears become the encoder's numbers; embeddings, head and norms stay`, async () => {
      const { parts, values } = await random(LLAMA);
      const stored = new Map(values);
      for (const [name, { shape }] of parts)
        if (isLinear(name)) {
          const group = shape[1]! % 64 === 0 ? 64 : 32; // 96 inputs: groups of 32
          values.set(name, dequantize(encoders[kind](values.get(name)!, shape, group)));
        }
      for (const on of devices) {
        const model = await load(LLAMA, parts, { device: on, quantize: kind });
        assert.deepEqual(quantizedPaths(model), [...values.keys()].filter(isLinear));
        for (const [path, parameter] of model.stateDict()) {
          const numbers = (await parameter.data()) as Float32Array;
          assert.deepEqual(numbers, isLinear(path) ? values.get(path) : stored.get(path), path);
        }
        await sameLogits(model, await plain(LLAMA, values, on));
      }
    });

  test("a matrix whose rows no group divides stays as it is", async () => {
    const raw = { ...LLAMA, intermediate_size: 44 };
    const { parts, values } = await random(raw);
    const model = await load(raw, parts, { quantize: "nf4" });
    const stays = quantizedPaths(model).filter((path) => path.includes("down_proj"));
    assert.deepEqual(stays, []);
    const path = "model.layers.0.mlp.down_proj.weight";
    assert.deepEqual(await model.stateDict().get(path)!.data(), values.get(path));
  });

  test("saved, the model has plain weights in the config's precision, and no word of quantization", async () => {
    const { parts } = await random(LLAMA);
    const model = await load(LLAMA, parts, { quantize: "nf4" });
    const files = new Map<string, Uint8Array | string>();
    for (const [name, content] of modelFiles(model)) {
      const pieces: Uint8Array[] = [];
      if (typeof content !== "string") for await (const piece of content) pieces.push(piece);
      files.set(name, typeof content === "string" ? content : Buffer.concat(pieces));
    }
    assert.doesNotMatch(files.get("config.json") as string, /quantiz/);
    const again = await loadModelFrom(memoryFiles(files), { device });
    const path = "model.layers.1.self_attn.o_proj.weight";
    const weight = again.stateDict().get(path)!;
    assert.equal(weight.dtype, "bf16");
    const numbers = await model.stateDict().get(path)!.data();
    const back = await weight.data();
    numbers.forEach((x, i) => assert.ok(Math.abs(back[i]! - x) <= Math.abs(x) * 2 ** -8));
  });
});

describe("what is refused", () => {
  const cases: [string, Raw, Partial<LoadOptions>, RegExp][] = [
    ["another method", { quantization_config: { quant_method: "gptq", bits: 4 } }, {}, /"quantization_config.quant_method": found "gptq"; expected "bitsandbytes", or the quantization of MLX.*--quantize nf4/], // prettier-ignore
    ["eight bits of bitsandbytes", { quantization_config: { quant_method: "bitsandbytes", load_in_8bit: true } }, {}, /NF4 can be read.*--quantize int8/], // prettier-ignore
    ["FP4", { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "fp4" } }, {}, /"fp4"; expected "nf4"/], // prettier-ignore
    ["a mode of MLX that is not affine", { quantization: { group_size: 32, bits: 4, mode: "mxfp4" } }, {}, /"quantization.mode": found "mxfp4"; expected "affine"/], // prettier-ignore
    [
      "three bits",
      { quantization: { group_size: 64, bits: 3 } },
      {},
      /"quantization.bits": found 3; expected 4 or 8/,
    ],
    ["a group of MLX that is none", { quantization: { group_size: 48, bits: 4 } }, {}, /"quantization.group_size": found 48; expected one of 32, 64, 128/], // prettier-ignore
    ["a module's settings", { quantization: { group_size: 64, bits: 4, "model.norm": { bits: 5 } } }, {}, /"quantization.model.norm.bits": found 5/], // prettier-ignore
    ["quantization twice", { quantization: { group_size: 64, bits: 4 } }, { quantize: "nf4" }, /a model that MLX has quantized; expected one to quantize to nf4.*without --quantize/], // prettier-ignore
    ["a form that is none", {}, { quantize: "int4" as "nf4" }, /quantize: "int4" is no form of weights; give nf4 or int8/], // prettier-ignore
  ];
  for (const [what, fields, options, message] of cases)
    test(what, async () => {
      const { parts } = await random(LLAMA);
      await assert.rejects(load({ ...LLAMA, ...fields }, parts, options), message);
    });

  test("weights of GPT-2, whose rows are inputs", async () => {
    const gpt2 = { model_type: "gpt2", vocab_size: 8, n_embd: 64, n_layer: 1, n_head: 2, n_positions: 8 };
    const { parts } = await random(gpt2);
    await assert.rejects(
      load(gpt2, parts, { quantize: "nf4" }),
      /matrices of gpt2.*\[in, out\].*without --quantize/,
    );
  });

  test("codes in a model whose config does not say what they are, and values that are not finite", async () => {
    const { parts } = await random(LLAMA);
    const name = "model.layers.0.self_attn.q_proj.weight";
    const infinite = new Float32Array(64 * 64).fill(1);
    infinite[5] = Infinity;
    const codes = new Parts(parts);
    codes.replace(name, "U8", [64, 64], new Uint8Array(64 * 64));
    await assert.rejects(
      load(LLAMA, codes),
      /q_proj.weight": found U8; expected F32.*config.json must say how/,
    );
    parts.replace(name, "F32", [64, 64], new Uint8Array(infinite.buffer));
    await assert.rejects(load(LLAMA, parts, { quantize: "int8" }), /q_proj.weight": found a value that is not finite/); // prettier-ignore
  });
});
