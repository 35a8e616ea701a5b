import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError } from "@tiedlora/core";
import { ARCHITECTURES } from "../src/architectures.ts";
import { configFrom, configToJson, parseConfig } from "../src/config.ts";
import { countParameters, linearSpecs, moduleSpecs, parameterSpecs } from "../src/modules.ts";
import { preset } from "../src/presets.ts";
import { ropeFrequencies } from "../src/rope.ts";

const LLAMA = {
  model_type: "llama",
  vocab_size: 101,
  hidden_size: 32,
  intermediate_size: 56,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
const GPT2 = { model_type: "gpt2", vocab_size: 101, n_embd: 24, n_layer: 3, n_head: 3 };

describe("config.json", () => {
  test("v4 and v5 fields give one config", () => {
    const scaling = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    };
    const v4 = configFrom({
      ...LLAMA,
      rope_theta: 5e5,
      rope_scaling: { rope_type: "llama3", ...scaling },
      torch_dtype: "bfloat16",
    });
    const v5 = configFrom({
      ...LLAMA,
      rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...scaling },
      dtype: "bfloat16",
    });
    assert.deepEqual({ ...v5, raw: null }, { ...v4, raw: null });
    assert.equal(v4.dtype, "bf16");
    assert.deepEqual(v4.rope, {
      theta: 5e5,
      dim: 8,
      scaling: { type: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, original: 32 },
    });
  });

  test("what is written is read back as the same config, in v4 fields", () => {
    for (const raw of [
      LLAMA,
      GPT2,
      { ...LLAMA, rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 3e4 }, dtype: "float16" },
      {
        ...LLAMA,
        model_type: "nemotron",
        rope_parameters: { rope_type: "default", rope_theta: 1e4, partial_rotary_factor: 0.5 },
      },
      { ...LLAMA, model_type: "smollm3", no_rope_layers: [1, 0, 1] },
    ]) {
      const config = configFrom(raw);
      const json = configToJson(config);
      assert.deepEqual({ ...parseConfig(json), raw: null }, { ...config, raw: null });
      const fields = Object.keys(JSON.parse(json) as object);
      assert.deepEqual(
        fields.filter((name) => name === "rope_parameters" || name === "dtype"),
        [],
      );
    }
  });

  test("silence means what transformers assumes", () => {
    const llama = configFrom(LLAMA);
    assert.deepEqual(
      [llama.tied, llama.qkvBias, llama.normEps, llama.maxPositions, llama.headDim, llama.activation],
      [false, false, 1e-6, 2048, 8, "silu"],
    );
    const { num_key_value_heads: _, ...silent } = LLAMA;
    assert.equal(configFrom(silent).kvHeads, 4);
    assert.equal(configFrom({ ...LLAMA, num_key_value_heads: null }).kvHeads, 4);
    const gpt2 = configFrom(GPT2);
    assert.deepEqual(
      [gpt2.tied, gpt2.intermediate, gpt2.maxPositions, gpt2.activation, gpt2.rope, gpt2.qkvBias],
      [true, 96, 1024, "gelu_tanh", null, true],
    );
    assert.equal(configFrom({ ...GPT2, n_inner: null }).intermediate, 96);
    assert.equal(configFrom({ ...LLAMA, model_type: "qwen3" }).headDim, 128);
    assert.equal(configFrom({ ...LLAMA, model_type: "smollm3" }).tied, true);
    assert.equal(configFrom({ ...LLAMA, model_type: "nemotron" }).rope!.dim, 4);
    assert.deepEqual(configFrom({ ...LLAMA, eos_token_id: [2, 3] }).eos, [2, 3]);
  });

  test("biases are where each family has them", () => {
    const biased = (raw: object): string[] =>
      linearSpecs(configFrom(raw as Record<string, unknown>))
        .filter(({ path, bias }) => bias && path.includes(".0."))
        .map(({ path }) => path.split(".").at(-1)!);
    assert.deepEqual(biased(LLAMA), []);
    assert.deepEqual(biased({ ...LLAMA, attention_bias: true }), ["q_proj", "k_proj", "v_proj", "o_proj"]);
    assert.deepEqual(biased({ ...LLAMA, mlp_bias: true }), ["gate_proj", "up_proj", "down_proj"]);
    assert.deepEqual(biased({ ...LLAMA, model_type: "qwen2" }), ["q_proj", "k_proj", "v_proj"]);
    assert.deepEqual(biased({ ...LLAMA, model_type: "qwen3" }), []);
    assert.deepEqual(biased(GPT2), ["c_attn", "c_proj", "c_fc", "c_proj"]);
  });

  test("layers with a window, and layers without positions", () => {
    const windows = (raw: object): readonly (number | null)[] =>
      configFrom(raw as Record<string, unknown>).windows;
    assert.deepEqual(windows({ ...LLAMA, model_type: "mistral", sliding_window: 7 }), [7, 7, 7]);
    assert.deepEqual(windows({ ...LLAMA, model_type: "mistral", sliding_window: null }), [null, null, null]);
    assert.deepEqual(windows({ ...LLAMA, model_type: "mistral" }), [4096, 4096, 4096]);
    assert.deepEqual(windows({ ...LLAMA, model_type: "qwen2", sliding_window: 7 }), [null, null, null]);
    const qwen = { ...LLAMA, model_type: "qwen2", sliding_window: 7, use_sliding_window: true };
    assert.deepEqual(windows({ ...qwen, max_window_layers: 2 }), [null, null, 7]);
    const types = ["sliding_attention", "full_attention", "full_attention"];
    assert.deepEqual(windows({ ...qwen, layer_types: types }), [7, null, null]);
    const smol = configFrom({ ...LLAMA, model_type: "smollm3", no_rope_layer_interval: 2 });
    assert.deepEqual(smol.ropeLayers, [true, false, true]);
    assert.deepEqual(
      configFrom({ ...LLAMA, model_type: "smollm3", no_rope_layers: [0, 1, 1, 0] }).ropeLayers,
      [false, true, true],
    );
  });

  test("Gemma 2 scales embeddings by √hidden in their precision, limits scores and logits, and alternates windows", () => {
    const config = preset("gemma-2-2b")!;
    assert.equal(config.embedScale, 48);
    assert.deepEqual(
      [config.attentionSoftcap, config.logitSoftcap, config.attentionScales[0]],
      [50, 30, 1 / 16],
    );
    assert.deepEqual(config.windows.slice(0, 3), [4096, null, 4096]);
    const nine = { ...config.raw, hidden_size: 3584 }; // √3584 = 59.867
    assert.equal(configFrom(nine).embedScale, 59.75);
    assert.equal(configFrom({ ...nine, torch_dtype: "float32" }).embedScale, Math.fround(Math.sqrt(3584)));
    assert.equal(configFrom({ ...nine, final_logit_softcapping: null }).logitSoftcap, null);
    assert.equal(configFrom(LLAMA).embedScale, 1);
  });

  test("Gemma 3 has a window and a rotary base of its own in five of six layers", () => {
    const config = preset("gemma-3-1b")!;
    assert.deepEqual(config.windows.slice(0, 7), [512, 512, 512, 512, 512, null, 512]);
    assert.deepEqual([config.rope!.theta, config.localRope!.theta], [1_000_000, 10_000]);
    assert.deepEqual([config.attentionSoftcap, config.logitSoftcap, config.embedScale], [null, null, 34]);
    const json = configToJson(
      configFrom({
        ...config.raw,
        rope_parameters: {
          full_attention: { rope_type: "linear", factor: 8, rope_theta: 3e5 },
          sliding_attention: { rope_type: "default", rope_theta: 500 },
        },
      }),
    );
    const again = parseConfig(json);
    assert.deepEqual(again.rope, { theta: 3e5, dim: 256, scaling: { type: "linear", factor: 8 } });
    assert.equal(again.localRope!.theta, 500);
  });

  test("layers with experts: every second one, but not those that are listed", () => {
    const qwen = { ...LLAMA, model_type: "qwen3_moe", num_hidden_layers: 6, decoder_sparse_step: 2 };
    const config = configFrom({ ...qwen, mlp_only_layers: [3], num_local_experts: 3 });
    assert.deepEqual(config.experts, {
      count: 3,
      perToken: 3,
      width: 768,
      normalized: false,
      layers: [false, true, false, false, false, true],
    });
    const linears = linearSpecs(config).map(({ path }) => path);
    assert.ok(linears.includes("model.layers.1.mlp.experts.2.down_proj"));
    assert.ok(linears.includes("model.layers.3.mlp.down_proj"));
    assert.ok(!linears.some((path) => path.endsWith("mlp.gate")), "the router is no linear");
  });

  const refused: [string, Record<string, unknown>, RegExp][] = [
    [
      "an unknown model",
      { ...LLAMA, model_type: "mamba" },
      /"model_type": found "mamba"; expected one of gpt2, llama/,
    ],
    ["no model type", {}, /"model_type": found nothing/],
    [
      "an unknown activation",
      { ...LLAMA, hidden_act: "mish" },
      /"hidden_act": found "mish"; expected one of silu/,
    ],
    [
      "an unknown rope type",
      { ...LLAMA, rope_scaling: { rope_type: "ntk", factor: 2 } },
      /"rope_scaling.rope_type": found "ntk"; expected one of default, linear/,
    ],
    [
      "rope of several kinds",
      { ...LLAMA, rope_parameters: { full_attention: { rope_type: "default" }, factor: 1 } },
      /"rope_parameters.rope_type": found nothing/,
    ],
    [
      "a rope factor of 0",
      { ...LLAMA, rope_scaling: { type: "linear", factor: 0 } },
      /"rope_scaling.factor": found 0; expected a number above 0/,
    ],
    [
      "a rope factor that is nearly 0",
      { ...LLAMA, rope_scaling: { type: "linear", factor: 1e-320 } },
      /"rope_scaling.factor": found 1e-320; expected a number above 0, from 1e-12/,
    ],
    [
      "an epsilon that f32 rounds to 0",
      { ...LLAMA, rms_norm_eps: 1e-310 },
      /"rms_norm_eps": found 1e-310; expected a number above 0, from 1e-12/,
    ],
    [
      "scores scaled by layer where only GPT-2 does",
      { ...LLAMA, scale_attn_by_inverse_layer_idx: true },
      /"scale_attn_by_inverse_layer_idx": found true; expected false for this architecture/,
    ],
    [
      "scores that are not scaled where only GPT-2 does without",
      { ...LLAMA, scale_attn_weights: false },
      /"scale_attn_weights": found false; expected true for this architecture/,
    ],
    [
      "sizes that are possible each, but not together",
      {
        ...LLAMA,
        vocab_size: 2 ** 31 - 1,
        hidden_size: 2 ** 30,
        num_attention_heads: 2 ** 20,
        num_key_value_heads: 2 ** 20,
      },
      /sizes that make about .* parameters; expected at most/,
    ],
    ["a head beyond all", { ...LLAMA, head_dim: 1e9 }, /"head_dim": found 1000000000; .* to 65536/],
    ["a token id beyond all", { ...LLAMA, eos_token_id: 1e12 }, /"eos_token_id": found 1000000000000/],
    [
      "a missing size",
      { ...LLAMA, hidden_size: undefined },
      /"hidden_size": found nothing; expected a whole number from 1/,
    ],
    ["a size that is none", { ...LLAMA, num_hidden_layers: -1 }, /"num_hidden_layers": found -1/],
    [
      "more layers than anyone could hold",
      { ...LLAMA, num_hidden_layers: 2e9 },
      /"num_hidden_layers": found 2000000000; expected a whole number from 1 to 10000/,
    ],
    ["a size beyond all", { ...LLAMA, vocab_size: 1e12 }, /"vocab_size": found 1000000000000/],
    [
      "heads that do not divide",
      { ...LLAMA, num_key_value_heads: 3 },
      /"num_key_value_heads": found 3; expected a divisor of the 4 heads/,
    ],
    [
      "heads that do not divide the width",
      { ...LLAMA, num_attention_heads: 3, num_key_value_heads: 3 },
      /"head_dim": found nothing; expected a size/,
    ],
    [
      "a rotary scaling that Phi-3 does not have",
      { ...LLAMA, model_type: "phi3", rope_scaling: { type: "linear", factor: 2 } },
      /"rope_scaling.type": found "linear"; expected one of default, longrope for this architecture/,
    ],
    [
      "a limit of scores where the family has none",
      { ...LLAMA, attn_logit_softcapping: 50 },
      /"attn_logit_softcapping": found 50; expected no such setting for this architecture/,
    ],
    [
      "attention in both directions",
      { ...LLAMA, model_type: "gemma2", use_bidirectional_attention: true },
      /"use_bidirectional_attention": found true/,
    ],
    [
      "a rotary base of layers with a window where the family has none",
      { ...LLAMA, rope_local_base_freq: 1e4 },
      /"rope_local_base_freq": found 10000; expected no such setting/,
    ],
    [
      "a rotary scaling of layers with a window",
      {
        ...LLAMA,
        model_type: "gemma3_text",
        rope_parameters: { full_attention: {}, sliding_attention: { rope_type: "linear", factor: 2 } },
      },
      /"rope_parameters.sliding_attention.rope_type": found "linear"; expected default/,
    ],
    [
      "experts where the family has none",
      { ...LLAMA, num_experts: 4 },
      /"num_experts": found 4; expected no such setting for this architecture/,
    ],
    [
      "more experts for a token than there are",
      { ...LLAMA, model_type: "olmoe", num_experts: 4, num_experts_per_tok: 5 },
      /"num_experts_per_tok": found 5; expected a whole number from 1 to 4/,
    ],
    [
      "more experts than anyone could hold",
      { ...LLAMA, model_type: "olmoe", num_experts: 1e6 },
      /"num_experts": found 1000000; expected a whole number from 1 to 66666/,
    ],
    [
      "clipped queries",
      { ...LLAMA, model_type: "olmoe", clip_qkv: 8 },
      /"clip_qkv": found 8; expected no such setting/,
    ],
    [
      "a loss of the router",
      { ...LLAMA, model_type: "qwen3_moe", output_router_logits: true },
      /"output_router_logits": found true/,
    ],
    ["an odd head", { ...LLAMA, head_dim: 7 }, /"head_dim": found 7; expected an even size/],
    [
      "partial rotation where the family has none",
      { ...LLAMA, partial_rotary_factor: 0.5 },
      /"partial_rotary_factor": found 0.5; expected 1/,
    ],
    [
      "a model that another program has quantized",
      { ...LLAMA, quantization_config: { quant_method: "awq", bits: 4 } },
      /"quantization_config.quant_method": found "awq"; expected "bitsandbytes"/,
    ],
    ["cross attention", { ...GPT2, add_cross_attention: true }, /"add_cross_attention": found true/],
    [
      "a classifier",
      { ...LLAMA, architectures: ["LlamaForSequenceClassification"] },
      /"architectures": found/,
    ],
    [
      "an unknown type",
      { ...LLAMA, torch_dtype: "int8" },
      /"torch_dtype": found "int8"; expected one of float32/,
    ],
    [
      "a flag that is none",
      { ...LLAMA, tie_word_embeddings: "yes" },
      /"tie_word_embeddings": found "yes"; expected true or false/,
    ],
    [
      "an unknown layer type",
      { ...LLAMA, model_type: "mistral", layer_types: ["linear_attention"] },
      /"layer_types": found/,
    ],
  ];
  for (const [what, raw, message] of refused) {
    test(`${what} is refused by name`, () => {
      assert.throws(
        () => configFrom(raw),
        (error: Error) => {
          assert.ok(error instanceof FormatError, String(error));
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }
});

describe("any config", () => {
  const names =
    `hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size intermediate_size hidden_act
     rms_norm_eps rope_theta rope_scaling rope_parameters dtype torch_dtype layer_types sliding_window use_sliding_window
     no_rope_layers eos_token_id partial_rotary_factor max_position_embeddings tie_word_embeddings architectures n_inner`.split(
      /\s+/,
    );
  const scaling = fc.record(
    {
      rope_type: fc.constantFrom("default", "linear", "dynamic", "llama3", "yarn", "longrope", "su", "mrope"),
      factor: fc.oneof(fc.double({ min: 0.01, max: 1e9 }), fc.jsonValue()),
      original_max_position_embeddings: fc.oneof(fc.integer(), fc.jsonValue()),
      low_freq_factor: fc.double(),
      high_freq_factor: fc.double(),
      short_factor: fc.array(fc.double(), { maxLength: 6 }),
      mscale: fc.double(),
      mscale_all_dim: fc.double(),
    },
    { requiredKeys: [] },
  );
  const value = fc.oneof(fc.integer({ min: -2, max: 80 }), fc.jsonValue(), scaling, fc.constant(undefined));

  test("is read, or refused in an error that names the file and the field; never anything else", () => {
    const base = fc.constantFrom<Record<string, unknown>>(
      ...Object.keys(ARCHITECTURES).map((type) => ({
        ...(type === "gpt2" ? GPT2 : LLAMA),
        model_type: type,
      })),
    );
    const changes = fc.dictionary(fc.constantFrom(...names), value, { minKeys: 1, maxKeys: 4 });
    fc.assert(
      fc.property(base, changes, (raw, change) => {
        try {
          const config = configFrom({ ...raw, ...change });
          assert.ok(countParameters(config) > 0, "a model without parameters");
          if (config.rope) {
            const { perPosition, attentionFactor } = ropeFrequencies(config.rope, 9);
            const numbers = [...perPosition, attentionFactor];
            assert.ok(
              numbers.every(Number.isFinite),
              `${numbers.join(" ")} of ${JSON.stringify(config.rope)}`,
            );
          }
          configToJson(config);
        } catch (error) {
          assert.ok(error instanceof FormatError, String(error instanceof Error ? error.stack : error));
          assert.match(error.message, /config\.json/);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe("what a model is made of", () => {
  test("Llama-2-7B has 6,738,415,616 parameters, and linears named as in transformers", () => {
    const config = preset("llama-2-7b")!;
    assert.equal(countParameters(config), 6_738_415_616);
    const linears = linearSpecs(config);
    assert.equal(linears.length, 32 * 7 + 1);
    assert.deepEqual(linears[1], {
      path: "model.layers.0.self_attn.k_proj",
      kind: "linear",
      in: 4096,
      out: 4096,
      bias: false,
    });
  });

  test("TinyLlama has 1,100,048,384 parameters", () => {
    assert.equal(countParameters(preset("tinyllama-1.1b")!), 1_100_048_384);
  });

  test("presets have the number of parameters that their models are published with", () => {
    const published = {
      "gemma-2-2b": 2_614_341_888,
      "qwen2.5-0.5b": 494_032_768,
      "qwen3-30b-a3b": 30_532_122_624,
      "olmoe-1b-7b": 6_919_161_856,
      "gemma-3-1b": 999_885_952,
      "phi-3-mini": 3_821_079_552,
      "olmo-2-1b": 1_484_916_736,
      "phi-4": 14_659_507_200,
      "llama-3.2-3b": 3_212_749_824,
      "smollm2-360m": 361_821_120,
    };
    for (const [name, count] of Object.entries(published))
      assert.equal(countParameters(preset(name)!), count, name);
  });

  test("GPT-2B-001 has queries, keys and values of 2048 features in 24 layers", () => {
    const config = preset("gpt-2b-001")!;
    assert.equal(
      linearSpecs(config).filter(
        ({ path, in: from, out }) => /[qkv]_proj$/.test(path) && from === 2048 && out === 2048,
      ).length,
      72,
    );
    assert.equal(config.rope!.dim, 128);
  });

  test("known counts: GPT-2 124M, SmolLM2-135M, Qwen2.5-0.5B", () => {
    const count = (raw: Record<string, unknown>): number => countParameters(configFrom(raw));
    assert.equal(
      count({ model_type: "gpt2", vocab_size: 50257, n_embd: 768, n_layer: 12, n_head: 12 }),
      124_439_808,
    );
    const smol = {
      ...LLAMA,
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      tie_word_embeddings: true,
    };
    assert.equal(count(smol), 134_515_008);
    const qwen = {
      model_type: "qwen2",
      vocab_size: 151936,
      hidden_size: 896,
      intermediate_size: 4864,
      num_hidden_layers: 24,
      num_attention_heads: 14,
      num_key_value_heads: 2,
      tie_word_embeddings: true,
    };
    assert.equal(count(qwen), 494_032_768);
  });

  test("GPT-2's linears are stored as [in, out], its output embedding is not", () => {
    const specs = new Map(
      parameterSpecs({ ...configFrom(GPT2), tied: false }).map(({ path, shape }) => [path, shape]),
    );
    assert.deepEqual(specs.get("transformer.h.2.attn.c_attn.weight"), [24, 72]);
    assert.deepEqual(specs.get("transformer.h.2.mlp.c_proj.weight"), [96, 24]);
    assert.deepEqual(specs.get("lm_head.weight"), [101, 24]);
    assert.equal(
      parameterSpecs(configFrom(GPT2)).find(({ path }) => path === "lm_head.weight"),
      undefined,
    );
  });

  test("every module has a path of its own", () => {
    for (const type of [
      "gpt2",
      "llama",
      "mistral",
      "qwen2",
      "qwen3",
      "olmo2",
      "smollm3",
      "nemotron",
      "nemo_gpt",
    ]) {
      const config = configFrom({ ...(type === "gpt2" ? GPT2 : LLAMA), model_type: type });
      const paths = moduleSpecs(config).map(({ path }) => path);
      assert.equal(new Set(paths).size, paths.length, type);
    }
  });
});
