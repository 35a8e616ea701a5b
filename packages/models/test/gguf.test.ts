/** GGUF files: blocks are the formulas' values to the bit, converted models are the models they were, and damage is named. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytesSource, decodeF32, FormatError, memoryFiles, openWeights, reference } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { affineBlocks, decodeBlocks } from "../src/gguf/blocks.ts";
import { convertGguf, type ConvertOptions } from "../src/gguf/convert.ts";
import { loadModelFrom } from "../src/load.ts";
import { loadModel, loadTokenizer } from "../src/node.ts";
import { loadTokenizerFrom } from "../src/tokenizer.ts";
import { blockValues, contentsOf, ggufBytes, type GgufTensorToWrite, interleave, type Meta, randomBlocks } from "./support/gguf.ts"; // prettier-ignore
import { randoms } from "./support/quantized.ts";
import { needsShared, sharedPath } from "./support/shared.ts";

/** Zeros without their sign, which differs where a bias makes them. */
const unsigned = (values: Float32Array): Float32Array => values.map((x) => x + 0);

const LINEAR = { 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K", 13: "Q5_K" } as const; // prettier-ignore

describe("blocks", () => {
  test("values are the formulas' to the bit", () => {
    for (const type of [2, 3, 6, 7, 8, 12, 13, 14] as const) {
      const bytes = randomBlocks(type, 4096, type);
      assert.deepEqual(unsigned(decodeBlocks(type, bytes)), unsigned(blockValues(type, bytes))); // prettier-ignore
    }
  });

  test("the linear ones are the same numbers as words with scales and biases", () => {
    for (const type of [2, 3, 6, 7, 8, 12, 13] as const) {
      const bytes = randomBlocks(type, 2048, 99 + type);
      const { words, scales, biases } = affineBlocks(type, bytes);
      const bits = [2, 3, 12].includes(type) ? 4 : 8;
      const values = Float32Array.from({ length: 2048 }, (_, i) => {
        const at = Math.floor((i * bits) / 32);
        const q = Number((BigInt(words[at]!) >> BigInt((i * bits) % 32)) & BigInt(2 ** bits - 1));
        return Math.fround(scales[Math.floor(i / 32)]! * q) + biases[Math.floor(i / 32)]!;
      });
      assert.deepEqual(unsigned(values), unsigned(blockValues(type, bytes)), LINEAR[type]); // prettier-ignore
    }
  });
});

const f32 = (shape: readonly number[], seed: number): GgufTensorToWrite => {
  const values = randoms(seed, shape.reduce((a, b) => a * b, 1)); // prettier-ignore
  return { type: 0, shape, bytes: new Uint8Array(values.buffer) };
};
const blocks = (type: number, shape: readonly number[], seed: number): GgufTensorToWrite => ({ type, shape, bytes: randomBlocks(type, shape.reduce((a, b) => a * b, 1), seed) }); // prettier-ignore

const META: Record<string, Meta> = {
  "general.architecture": { text: "llama" },
  "llama.embedding_length": { u32: 256 },
  "llama.block_count": { u32: 1 },
  "llama.feed_forward_length": { u32: 256 },
  "llama.attention.head_count": { u32: 4 },
  "llama.attention.head_count_kv": { u32: 2 },
  "llama.attention.layer_norm_rms_epsilon": { f32: 1e-5 },
  "llama.context_length": { u32: 64 },
  "llama.rope.freq_base": { f32: 500000 },
  "tokenizer.ggml.model": { text: "gpt2" },
  "tokenizer.ggml.pre": { text: "unheard-of" },
  "tokenizer.ggml.tokens": { texts: ["a", "b"] },
};

const TENSORS: Record<string, GgufTensorToWrite> = {
  "token_embd.weight": blocks(14, [8, 256], 1),
  "blk.0.attn_norm.weight": f32([256], 2),
  "blk.0.attn_q.weight": blocks(12, [256, 256], 3),
  "blk.0.attn_k.weight": blocks(8, [128, 256], 4),
  "blk.0.attn_v.weight": blocks(14, [128, 256], 5),
  "blk.0.attn_output.weight": blocks(3, [256, 256], 6),
  "blk.0.ffn_norm.weight": f32([256], 7),
  "blk.0.ffn_gate.weight": blocks(12, [256, 256], 8),
  "blk.0.ffn_up.weight": blocks(13, [256, 256], 9),
  "blk.0.ffn_down.weight": blocks(14, [256, 256], 10),
  "output_norm.weight": f32([256], 11),
};

/** The content of a converted file. */
async function converted(
  bytes: Uint8Array,
  options: ConvertOptions = {},
): Promise<{
  files: Map<string, Uint8Array | string>;
  noTokenizer: string | null;
  kinds: [string, number][];
}> {
  const model = await convertGguf(bytesSource(bytes, "model.gguf"), options);
  const contents = await contentsOf(model.files);
  await model.close();
  return { files: contents, noTokenizer: model.noTokenizer, kinds: [...model.kinds] };
}

describe("a converted model", () => {
  test("in one precision, it has the values of the blocks, and queries and keys in the order of halves", async () => {
    const { files, kinds } = await converted(ggufBytes(META, TENSORS), { dtype: "f32" });
    assert.deepEqual(kinds, [["f32", 8]]);
    const weights = await openWeights(memoryFiles(files));
    const found = async (name: string): Promise<number[]> => [
      ...unsigned(decodeF32(await weights.read(name), "", "")),
    ];
    const rowsOf = (tensor: GgufTensorToWrite): number[][] => {
      const values = unsigned(blockValues(tensor.type, tensor.bytes));
      return Array.from({ length: tensor.shape[0]! }, (_, r) => [...values.subarray(r * 256, r * 256 + 256)]);
    };
    const rows = async (name: string): Promise<number[][]> => {
      const values = await found(name);
      return Array.from({ length: values.length / 256 }, (_, r) => values.slice(r * 256, r * 256 + 256));
    };
    const layer = "model.layers.0";
    assert.deepEqual(await rows(`${layer}.mlp.down_proj.weight`), rowsOf(TENSORS["blk.0.ffn_down.weight"]!));
    assert.deepEqual(await rows("model.embed_tokens.weight"), rowsOf(TENSORS["token_embd.weight"]!));
    const q = await rows(`${layer}.self_attn.q_proj.weight`);
    assert.deepEqual(interleave(q, 4), rowsOf(TENSORS["blk.0.attn_q.weight"]!));
    const k = await rows(`${layer}.self_attn.k_proj.weight`);
    assert.deepEqual(interleave(k, 2), rowsOf(TENSORS["blk.0.attn_k.weight"]!));
    assert.deepEqual(await found("model.norm.weight"), [...randoms(11, 256)]);
  });

  test("its config says what the metadata say, and which modules have how many bits", async () => {
    const { files, kinds, noTokenizer } = await converted(ggufBytes(META, TENSORS));
    assert.deepEqual(kinds, [["f16", 3], ["4 bits", 3], ["8 bits", 2]]); // prettier-ignore
    assert.match(noTokenizer!, /scheme "unheard-of"/);
    assert.equal(files.has("tokenizer.json"), false);
    const config = JSON.parse(files.get("config.json") as string) as Record<string, unknown>;
    const expected = {
      model_type: "llama",
      hidden_size: 256,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-5,
      rope_theta: 500000,
      tie_word_embeddings: true,
      quantization: {
        group_size: 32,
        bits: 4,
        "model.layers.0.mlp.up_proj": { group_size: 32, bits: 8 },
        "model.layers.0.self_attn.k_proj": { group_size: 32, bits: 8 },
      },
    };
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(config[key], value, key);
  });

  test("frequencies of Llama 3 become its scaling, others factors", async () => {
    const of = async (factors: readonly number[]): Promise<unknown> => {
      const tensor = {
        type: 0,
        shape: [factors.length],
        bytes: new Uint8Array(Float32Array.from(factors).buffer),
      };
      const { files } = await converted(ggufBytes(META, { ...TENSORS, "rope_freqs.weight": tensor }));
      return (JSON.parse(files.get("config.json") as string) as Record<string, unknown>)["rope_scaling"];
    };
    const llama3 = Array.from({ length: 32 }, (_, i) => {
      const wavelength = 2 * Math.PI * 500000 ** ((2 * i) / 64);
      if (wavelength < 8192 / 4) return 1;
      if (wavelength > 8192) return 32;
      const smooth = (8192 / wavelength - 1) / 3;
      return 1 / ((1 - smooth) / 32 + smooth);
    });
    assert.deepEqual(await of(llama3), { rope_type: "llama3", factor: 32, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }); // prettier-ignore
    const other = llama3.map((f) => f + 1);
    const scaling = (await of(other)) as Record<string, unknown>;
    assert.equal(scaling["rope_type"], "longrope");
    assert.deepEqual(scaling["long_factor"], other.map(Math.fround));
    await assert.rejects(of(llama3.slice(1)), /"rope_freqs.weight": found 31 factors.*expected 32/);
  });
});

describe("stories260K", { skip: needsShared }, () => {
  /** The model's tensors as llama.cpp's converter writes them. */
  async function stories(): Promise<Record<string, GgufTensorToWrite>> {
    const weights = await openWeights(await directoryFiles(sharedPath("models/stories260K")));
    const names = { q_proj: "attn_q", k_proj: "attn_k", v_proj: "attn_v", o_proj: "attn_output", gate_proj: "ffn_gate", up_proj: "ffn_up", down_proj: "ffn_down", input_layernorm: "attn_norm", post_attention_layernorm: "ffn_norm" }; // prettier-ignore
    const tensors: Record<string, GgufTensorToWrite> = {};
    for (const [name, { shape }] of weights.entries) {
      const [, layer, module] = /layers\.(\d+)\.(?:\w+\.)?(\w+)\.weight$/.exec(name) ?? [];
      const to = layer === undefined ? (name === "model.norm.weight" ? "output_norm.weight" : "token_embd.weight") : `blk.${layer}.${names[module as "q_proj"]}.weight`; // prettier-ignore
      let { bytes } = await weights.read(name);
      if (module === "q_proj" || module === "k_proj") {
        const rows = Array.from({ length: shape[0]! }, (_, r) => bytes.subarray(r * 256, r * 256 + 256));
        bytes = Buffer.concat(interleave(rows, module === "q_proj" ? 8 : 4));
      }
      tensors[to] = { type: 0, shape, bytes };
    }
    await weights.close();
    return tensors;
  }

  const META_STORIES: Record<string, Meta> = {
    "general.architecture": { text: "llama" },
    "llama.embedding_length": { u32: 64 },
    "llama.block_count": { u32: 5 },
    "llama.feed_forward_length": { u32: 172 },
    "llama.attention.head_count": { u32: 8 },
    "llama.attention.head_count_kv": { u32: 4 },
    "llama.attention.layer_norm_rms_epsilon": { f32: 1e-5 },
    "llama.context_length": { u32: 512 },
  };

  test("converted, it computes the same logits to the bit", async () => {
    const device = reference();
    const { files } = await converted(ggufBytes(META_STORIES, await stories()));
    const [model, original] = [
      await loadModelFrom(memoryFiles(files), { device }),
      await loadModel(sharedPath("models/stories260K"), { device }),
    ];
    const ids = [[1, 403, 407, 261, 378]];
    assert.deepEqual(await model.forward(ids).data(), await original.forward(ids).data());
    device.close();
  });

  test("its vocabulary and scores make a tokenizer that gives the same tokens", async () => {
    const original = await loadTokenizer(sharedPath("models/stories260K"));
    const tokens = Array.from({ length: original.size }, (_, id) => original.token(id)!);
    const meta: Record<string, Meta> = {
      ...META_STORIES,
      "tokenizer.ggml.model": { text: "llama" },
      "tokenizer.ggml.tokens": { texts: tokens },
      // as SentencePiece trains them: merges by falling score, in the order of the vocabulary, then letters
      "tokenizer.ggml.scores": { f32s: tokens.map((_, id) => (id < 259 ? 0 : 259 - id)) },
      "tokenizer.ggml.token_type": { i32s: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)) }, // prettier-ignore
      "tokenizer.ggml.bos_token_id": { u32: 1 },
      "tokenizer.ggml.eos_token_id": { u32: 2 },
      "tokenizer.chat_template": { text: "{{ messages[0].content }}" },
    };
    const { files, noTokenizer } = await converted(ggufBytes(meta, await stories()));
    assert.equal(noTokenizer, null);
    const tokenizer = await loadTokenizerFrom(memoryFiles(files));
    for (const text of ["Once upon a time, there was a little girl.", 'Zoë\'s 3 cats: "no" (été)!', "a"]) {
      assert.deepEqual(tokenizer.encode(text), original.encode(text));
      assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
    }
    assert.deepEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.hasChatTemplate], [1, 2, true]);
  });
});

describe("byte-level vocabularies", { skip: needsShared }, () => {
  test("GPT-2's tokens and merges give the tokens of its tokenizer.json", async () => {
    const source = await directoryFiles(sharedPath("models/gpt2-tokenizer"));
    const original = await loadTokenizerFrom(source);
    const text = (await source.open("tokenizer.json"))!;
    const json = JSON.parse(new TextDecoder().decode(await text.read(0, text.size))) as {
      model: { vocab: Record<string, number>; merges: (string | string[])[] };
    };
    await text.close?.();
    const tokens = Object.entries(json.model.vocab).toSorted(([, a], [, b]) => a - b).map(([token]) => token); // prettier-ignore
    const merges = json.model.merges.map((pair) => (typeof pair === "string" ? pair : pair.join(" ")));
    const meta: Record<string, Meta> = {
      ...META,
      "tokenizer.ggml.pre": { text: "gpt-2" },
      "tokenizer.ggml.tokens": { texts: tokens },
      "tokenizer.ggml.merges": { texts: merges },
      "tokenizer.ggml.token_type": { i32s: tokens.map((_, id) => (id === tokens.length - 1 ? 3 : 1)) },
      "tokenizer.ggml.eos_token_id": { u32: tokens.length - 1 },
    };
    const { files } = await converted(ggufBytes(meta, TENSORS));
    const tokenizer = await loadTokenizerFrom(memoryFiles(files));
    for (const sample of ["Hello world, it's 2024!", "  spaces\n\nand émoji 🎉", "<|endoftext|>"])
      assert.deepEqual(tokenizer.encode(sample), original.encode(sample), sample);
  });
});

describe("damage is named", () => {
  const whole = ggufBytes(META, TENSORS);
  const refused = async (bytes: Uint8Array, message: RegExp): Promise<void> =>
    assert.rejects(convertGguf(bytesSource(bytes, "model.gguf")), (error: unknown) => {
      assert.ok(error instanceof FormatError && error.file === "model.gguf");
      assert.match(error.message, message);
      return true;
    });
  const changed = (at: number, ...bytes: number[]): Uint8Array => {
    const copy = whole.slice();
    copy.set(bytes, at);
    return copy;
  };

  test("files that are cut short, of another format or version, with counts beyond all bounds", async () => {
    await refused(whole.subarray(0, 3), /header that does not end within 3 bytes/);
    await refused(whole.subarray(0, 1000), /header that does not end within 1000 bytes.*cut short/);
    await refused(whole.subarray(0, whole.length - 1), /"output_norm.weight": found bytes .*cut short/);
    await refused(changed(0, 0x50), /starts with 0x46554750; expected GGUF/);
    await refused(changed(4, 1), /"version": found 1; expected version 2 or 3/);
    await refused(changed(4, 0, 0, 0, 3), /big-endian/);
    await refused(changed(8, 255, 255, 255, 255, 255, 255, 255, 255), /"tensors": found a count of 18446744073709551615; expected at most/); // prettier-ignore
    await refused(changed(16, 0, 0, 0, 0, 1), /"entries of metadata": found a count of/);
  });

  const without = (name: string): Record<string, GgufTensorToWrite> => {
    const { [name]: _, ...rest } = TENSORS;
    return rest;
  };
  const of = (meta: Record<string, Meta>, tensors: Record<string, GgufTensorToWrite>): Uint8Array =>
    ggufBytes({ ...META, ...meta }, { ...TENSORS, ...tensors });
  const q = TENSORS["blk.0.attn_q.weight"]!;
  const cases: [string, Uint8Array, RegExp][] = [
    ["another architecture", of({ "general.architecture": { text: "mamba" } }, {}), /"general.architecture": found "mamba"; expected one of llama, qwen2/], // prettier-ignore
    ["a type that is not read", of({}, { "blk.0.attn_q.weight": { ...q, type: 10 } }), /"blk.0.attn_q.weight": found blocks of type Q2_K; expected F32, F16, Q4_0/], // prettier-ignore
    ["rows that blocks do not divide", of({}, { "blk.0.attn_q.weight": { ...q, shape: [512, 128] } }), /rows of 128 elements; expected a multiple of 256/], // prettier-ignore
    ["a shape that does not fit", of({}, { "blk.0.attn_q.weight": { ...q, shape: [128, 512] } }), /"blk.0.attn_q.weight": found shape \[128, 512\]; expected \[256, 256\]/], // prettier-ignore
    ["a tensor that is missing", ggufBytes(META, without("blk.0.ffn_up.weight")), /"model.layers.0.mlp.up_proj.weight": found no tensor for it/], // prettier-ignore
    [
      "no embedding",
      ggufBytes(META, without("token_embd.weight")),
      /"token_embd.weight": found no such tensor/,
    ],
    ["a tensor that is not known", of({}, { "blk.0.ffn_gate_inp.weight": f32([4], 1) }), /"blk.0.ffn_gate_inp.weight": found a tensor that is not known/], // prettier-ignore
    ["a layer too many", of({}, { "blk.1.attn_norm.weight": f32([256], 1) }), /"blk.1.attn_norm.weight": found a tensor without a use/], // prettier-ignore
    ["a size that is text", of({ "llama.block_count": { text: "one" } }, {}), /"llama.block_count": found "one"; expected a whole/], // prettier-ignore
    ["part of a head that is rotated", of({ "llama.rope.dimension_count": { u32: 32 } }, {}), /"llama.rope.dimension_count": found 32; expected 64/], // prettier-ignore
    [
      "an unknown scaling",
      of({ "llama.rope.scaling.type": { text: "su" } }, {}),
      /"llama.rope.scaling.type": found "su"/,
    ],
  ];
  for (const [what, bytes, message] of cases) test(what, () => refused(bytes, message));

  test("a scale that is not a number, or too large for f16", async () => {
    for (const [bits, message] of [
      [0x7e00, /"blk.0.attn_k.weight": found NaN.*damaged/],
      [0x7bff, /"blk.0.attn_k.weight": found -8384512.*--dtype f32/],
    ] as const) {
      // prettier-ignore
      const k = TENSORS["blk.0.attn_k.weight"]!;
      const bytes = k.bytes.slice();
      bytes.set([bits & 255, bits >> 8], 34 * 5);
      await assert.rejects(converted(of({}, { "blk.0.attn_k.weight": { ...k, bytes } })), message);
    }
  });
});
