/** Models of every architecture as llama.cpp's converter writes them compute, converted back, what they computed before. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytesSource, memoryFiles, reference } from "@tiedlora/core";
import { convertGguf } from "../src/gguf/convert.ts";
import { loadModelFrom } from "../src/load.ts";
import { contentsOf, ggufBytes, type GgufTensorToWrite, type Meta } from "./support/gguf.ts";
import { FAMILIES, IDS, MODELS, randomModel } from "./support/models.ts";
import type { Weights } from "./support/naive.ts";
import { assertNear } from "./support/near.ts";

type Raw = Readonly<Record<string, unknown>>;

/** llama.cpp's names of the modules in a layer; [several]: those with norms after attention and the MLP, too. */
const NAMES: Readonly<Record<string, string | readonly [several: string, plain: string]>> = {
  input_layernorm: "attn_norm",
  post_attention_layernorm: ["post_attention_norm", "ffn_norm"],
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "mlp.gate": "ffn_gate_inp",
};
const TOP: Readonly<Record<string, string>> = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
};

const f32 = (shape: readonly number[], values: ArrayLike<number>): GgufTensorToWrite => ({
  type: 0,
  shape,
  bytes: new Uint8Array(Float32Array.from(values).buffer),
});

/** The tensors of a file: 1 is added to Gemma's norms, and the experts of a layer are one tensor. */
function tensorsOf(weights: Weights, isGemma: boolean): Record<string, GgufTensorToWrite> {
  const tensors: Record<string, GgufTensorToWrite> = {};
  const stacks = new Map<string, { shape: readonly number[]; values: number[] }>();
  const several = [...weights.keys()].some((path) => path.includes("post_feedforward_layernorm"));
  for (const [path, { shape, values }] of weights) {
    const [, whole, part] = /^(.*)\.(weight|bias)$/.exec(path)!;
    const [, block, module] = /^model\.layers\.(\d+)\.(.+)$/.exec(whole!) ?? [];
    if (block === undefined) {
      tensors[`${TOP[whole!]!}.${part}`] = f32(shape, isGemma && whole!.endsWith("norm") ? Array.from(values, (x) => x + 1) : values); // prettier-ignore
      continue;
    }
    const expert = /^mlp\.experts\.\d+\.(gate|up|down)_proj$/.exec(module!);
    if (expert) {
      const name = `blk.${block}.ffn_${expert[1]}_exps.${part}`;
      const stack = stacks.get(name) ?? { shape, values: [] };
      stack.values.push(...Array.from(values));
      stacks.set(name, stack);
      continue;
    }
    const known = NAMES[module!]!;
    const name = typeof known === "string" ? known : known[several ? 0 : 1];
    const added = isGemma && name.endsWith("norm") ? 1 : 0;
    tensors[`blk.${block}.${name}.${part}`] = f32(
      shape,
      Array.from(values, (x) => x + added),
    );
  }
  for (const [name, { shape, values }] of stacks)
    tensors[name] = f32([values.length / (shape[0]! * shape[1]!), ...shape], values);
  return tensors;
}

function metadataOf(
  architecture: string,
  raw: Raw,
  own: Readonly<Record<string, Meta>>,
): Record<string, Meta> {
  const u32 = (name: string): Meta => ({ u32: raw[name] as number });
  const of: Record<string, Meta> = {
    embedding_length: u32("hidden_size"),
    block_count: u32("num_hidden_layers"),
    feed_forward_length: u32("intermediate_size"),
    context_length: u32("max_position_embeddings"),
    "attention.head_count": u32("num_attention_heads"),
    "attention.head_count_kv": u32("num_key_value_heads"),
    "attention.layer_norm_rms_epsilon": { f32: raw["rms_norm_eps"] as number },
    ...(raw["head_dim"] !== undefined && { "attention.key_length": u32("head_dim"), "attention.value_length": u32("head_dim") }), // prettier-ignore
    ...own,
  };
  return {
    "general.architecture": { text: architecture },
    ...Object.fromEntries(Object.entries(of).map(([key, value]) => [`${architecture}.${key}`, value])),
  };
}

const { mlp_only_layers: _, ...QWEN3_MOE } = FAMILIES["qwen3_moe"]!;
const { sliding_window_pattern: __, rope_local_base_freq: ___, ...GEMMA3 } = FAMILIES["gemma3_text"]!;

/** By llama.cpp's name: a config, and what the metadata say beside the usual sizes. */
const CASES: readonly [string, Raw, Readonly<Record<string, Meta>>][] = [
  ["qwen2", MODELS["qwen2"]!, {}],
  ["qwen3", MODELS["qwen3"]!, {}],
  ["olmo2", FAMILIES["olmo2"]!, {}],
  ["qwen3moe", QWEN3_MOE, { expert_count: { u32: 5 }, expert_used_count: { u32: 2 }, expert_feed_forward_length: { u32: 7 } }], // prettier-ignore
  ["olmoe", FAMILIES["olmoe"]!, { expert_count: { u32: 4 }, expert_used_count: { u32: 3 } }],
  ["phi3", FAMILIES["phi3"]!, { "attention.sliding_window": { u32: 4 } }],
  ["phi3", FAMILIES["phi3, partial longrope"]!, { "rope.dimension_count": { u32: 4 }, "rope.scaling.original_context_length": { u32: 8 } }], // prettier-ignore
  ["gemma2", { ...FAMILIES["gemma2"]!, query_pre_attn_scalar: 6 }, { "attention.sliding_window": { u32: 3 }, attn_logit_softcapping: { f32: 1.5 }, final_logit_softcapping: { f32: 2 } }], // prettier-ignore
  ["gemma3", { ...GEMMA3, query_pre_attn_scalar: 6 }, { "attention.sliding_window": { u32: 3 }, "rope.freq_base": { f32: 1e6 }, "rope.scaling.type": { text: "linear" }, "rope.scaling.factor": { f32: 8 } }], // prettier-ignore
];

describe("a file of each architecture computes the logits of the model that it was made of", () => {
  for (const [architecture, config, own] of CASES) {
    const isLong = config["rope_scaling"] !== undefined && architecture === "phi3";
    test(isLong ? "phi3, with factors for short and long texts" : architecture, async () => {
      const device = reference();
      const raw = { ...config, rms_norm_eps: 1e-5 };
      const { model, weights } = randomModel(raw, device);
      const isGemma = architecture.startsWith("gemma");
      const tensors = tensorsOf(weights, isGemma);
      if (isLong) {
        tensors["rope_factors_short.weight"] = f32([2], [1, 1.1]);
        tensors["rope_factors_long.weight"] = f32([2], [2, 3]);
      }
      const bytes = ggufBytes(metadataOf(architecture, raw, own), tensors);
      const converted = await convertGguf(bytesSource(bytes, "model.gguf"));
      const files = await contentsOf(converted.files);
      await converted.close();
      const back = await loadModelFrom(memoryFiles(files), { device });
      assert.equal(back.config.modelType, model.config.modelType);
      for (const ids of [IDS[0]!, IDS[0]!.slice(0, 4)]) {
        const [found, wanted] = [await back.forward([ids]).data(), await model.forward([ids]).data()];
        if (isGemma) assertNear(found, wanted, 1e-5, architecture);
        else assert.deepEqual(found, wanted);
      }
      device.close();
    });
  }
});
