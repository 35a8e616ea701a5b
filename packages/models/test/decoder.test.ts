import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Device, grad, key, nn, normalArray, reference } from "@tiedlora/core";
import { configFrom } from "../src/config.ts";
import { Decoder } from "../src/decoder.ts";
import { parameterSpecs } from "../src/modules.ts";
import { naiveLogits, type Weights } from "./support/naive.ts";
import { maxDifference } from "./support/shared.ts";

const SMALL = {
  vocab_size: 23,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};
const GPT2 = { model_type: "gpt2", vocab_size: 23, n_embd: 12, n_layer: 2, n_head: 3, n_positions: 16 };
const LLAMA = { ...SMALL, model_type: "llama" };
const longrope = { short_factor: [1, 1.1], long_factor: [2, 3], original_max_position_embeddings: 8 };

/** Each a difference from its neighbours that the decoder has to know of. */
const MODELS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: GPT2,
  "gpt2, scaled by layer": { ...GPT2, scale_attn_by_inverse_layer_idx: true, activation_function: "gelu" },
  "gpt2, untied": { ...GPT2, tie_word_embeddings: false, n_inner: 20, activation_function: "relu" },
  llama: LLAMA,
  "llama, tied, biased": { ...LLAMA, tie_word_embeddings: true, attention_bias: true, mlp_bias: true },
  "llama, one head for keys": { ...LLAMA, num_key_value_heads: 1, head_dim: 6 },
  "llama, linear rope": { ...LLAMA, rope_scaling: { type: "linear", factor: 2 } },
  "llama, dynamic rope": {
    ...LLAMA,
    max_position_embeddings: 6,
    rope_scaling: { type: "dynamic", factor: 2 },
  },
  "llama, llama3 rope": {
    ...LLAMA,
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    },
  },
  "llama, yarn rope": {
    ...LLAMA,
    rope_parameters: { rope_type: "yarn", factor: 4, rope_theta: 100, original_max_position_embeddings: 8 },
  },
  "llama, longrope": { ...LLAMA, rope_scaling: { rope_type: "longrope", ...longrope } },
  "mistral, window of 3": { ...SMALL, model_type: "mistral", sliding_window: 3 },
  qwen2: { ...SMALL, model_type: "qwen2" },
  "qwen2, windows above": {
    ...SMALL,
    model_type: "qwen2",
    use_sliding_window: true,
    sliding_window: 2,
    max_window_layers: 1,
  },
  qwen3: { ...SMALL, model_type: "qwen3", head_dim: 6 },
  smollm3: { ...SMALL, model_type: "smollm3", no_rope_layer_interval: 2 },
  nemotron: { ...SMALL, model_type: "nemotron" },
  nemo_gpt: { ...SMALL, model_type: "nemo_gpt", partial_rotary_factor: 0.5, norm_bias: true },
};

function randomModel(raw: Record<string, unknown>, device: Device): { model: Decoder; weights: Weights } {
  const config = configFrom(raw);
  const weights = new Map(
    parameterSpecs(config).map(({ path, shape }) => {
      const isNorm = shape.length === 1 && path.endsWith(".weight");
      const mean = isNorm && config.norm !== "layer1p" ? 1 : 0;
      const values = normalArray(
        key(7).fold(path),
        shape.reduce((a, b) => a * b),
        mean,
        isNorm ? 0.2 : 0.3,
      );
      return [path, { shape, values }];
    }),
  );
  const source = (path: string): nn.Parameter => {
    const { shape, values } = weights.get(path)!;
    return nn.Parameter.from(device, values, shape, "f32", path);
  };
  return { model: new Decoder(config, device, source), weights };
}

const IDS = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5],
  [22, 0, 7, 11, 13, 17, 19, 2, 8],
];

describe("the decoder computes what the architecture says", () => {
  for (const [name, raw] of Object.entries(MODELS)) {
    test(name, async () => {
      const device = reference();
      const { model, weights } = randomModel(raw, device);
      const logits = await model.forward(IDS).data();
      const expected = IDS.flatMap((ids) => naiveLogits(model.config, weights, ids).flat());
      assert.ok(maxDifference(logits, expected) < 2e-5, `difference ${maxDifference(logits, expected)}`);
      device.close();
    });
  }
});

describe("the modules", () => {
  test("sit at the paths of transformers; a tied head is an alias", () => {
    const device = reference();
    const { model } = randomModel({ ...LLAMA, tie_word_embeddings: true }, device);
    const paths = [...model.namedModules()].map(([path]) => path);
    for (const path of [
      "model.embed_tokens",
      "model.layers.1.self_attn.q_proj",
      "model.layers.2.mlp",
      "model.norm",
      "lm_head",
    ]) {
      assert.ok(paths.includes(path), path);
    }
    assert.deepEqual([...model.aliases()], [["lm_head.weight", "model.embed_tokens.weight"]]);
    assert.deepEqual(
      new Set(model.stateDict().keys()),
      new Set(parameterSpecs(model.config).map(({ path }) => path)),
    );
    assert.equal(model.linear("model.layers.0.mlp.down_proj")!.inFeatures, 12);
    assert.equal(model.linear("model.layers.0.mlp"), undefined);
    const { model: gpt2 } = randomModel(GPT2, device);
    const linear = gpt2.linear("transformer.h.1.attn.c_attn")!;
    assert.deepEqual([linear.inFeatures, linear.outFeatures, linear.layout], [12, 36, "inOut"]);
    device.close();
  });

  test("an adapter on a linear changes the output, and its removal restores it exactly", async () => {
    const device = reference();
    const { model } = randomModel(LLAMA, device);
    const before = await model.forward(IDS).data();
    const linear = model.linear("model.layers.1.self_attn.v_proj")!;
    linear.adapter = { apply: (_x, y) => y.mul(2) };
    assert.ok(maxDifference(await model.forward(IDS).data(), before) > 1e-3);
    linear.adapter = null;
    assert.deepEqual(await model.forward(IDS).data(), before);
    device.close();
  });
});

describe("padding", () => {
  for (const name of ["gpt2", "llama", "mistral, window of 3", "smollm3"]) {
    test(`on either side changes nothing: ${name}`, async () => {
      const device = reference();
      const { model } = randomModel(MODELS[name]!, device);
      const vocab = model.config.vocab;
      const ids = IDS[0]!;
      const alone = await model.forward([ids]).data();
      for (const [left, right] of [
        [3, 0],
        [0, 3],
        [2, 1],
      ] as const) {
        const pad = (n: number, value: number): number[] => Array<number>(n).fill(value);
        const padded = [...pad(left, 9), ...ids, ...pad(right, 9)];
        const attentionMask = [[...pad(left, 0), ...pad(ids.length, 1), ...pad(right, 0)]];
        const logits = await model.forward([padded], { attentionMask }).data();
        assert.ok(maxDifference(logits.slice(left * vocab, (left + ids.length) * vocab), alone) < 1e-5);
      }
      device.close();
    });
  }
});

describe("the loss", () => {
  test("is the mean over masked tokens of -log p, each predicted by the one before", async () => {
    const device = reference();
    const { model, weights } = randomModel(LLAMA, device);
    const mask = [
      [1, 0, 0, 1, 1, 0, 1, 1, 0],
      [0, 1, 1, 1, 0, 0, 0, 0, 1],
    ];
    const terms = IDS.flatMap((ids, row) => {
      const logits = naiveLogits(model.config, weights, ids);
      return ids.flatMap((id, t) => {
        if (t === 0 || mask[row]![t] === 0) return [];
        const before = logits[t - 1]!;
        return [Math.log(before.reduce((sum, x) => sum + Math.exp(x), 0)) - before[id]!];
      });
    });
    const expected = terms.reduce((a, b) => a + b) / terms.length;
    const loss = await model.loss({ inputIds: IDS, mask }).item();
    assert.ok(Math.abs(loss - expected) < 1e-6, `${loss} ${expected}`);
    device.close();
  });

  test("with checkpointing has the same gradients", async () => {
    const device = reference();
    const { model } = randomModel({ ...LLAMA, tie_word_embeddings: true }, device);
    const parameters = model.parameters();
    const gradients = async (): Promise<ArrayLike<number>[]> =>
      Promise.all(grad(model.loss({ inputIds: IDS }), parameters).map((g) => g.data()));
    const plain = await gradients();
    model.checkpointing = true;
    const checkpointed = await gradients();
    for (const [i, g] of plain.entries()) assert.ok(maxDifference(g, checkpointed[i]!) < 1e-9);
    device.close();
  });
});

describe("wrong inputs are refused with what was expected", () => {
  const device = reference();
  const { model } = randomModel(GPT2, device);
  const cases: [string, () => unknown, RegExp][] = [
    ["rows of two lengths", () => model.forward([[1, 2], [3]]), /row 1 has 1 entries, row 0 has 2; pad/],
    ["no tokens", () => model.forward([]), /empty; need at least one row/],
    [
      "an id beyond the vocabulary",
      () => model.forward([[1], [23]]),
      /23 in row 1, position 0; the vocabulary has 23/,
    ],
    ["an id that is no id", () => model.forward([[-1]]), /-1 in row 0/],
    [
      "too many positions",
      () => model.forward([Array<number>(17).fill(1)]),
      /17 positions; the model has learned 16/,
    ],
    [
      "a mask of another shape",
      () => model.forward([[1, 2]], { attentionMask: [[1]] }),
      /attentionMask: \[1, 1\] was given; need \[1, 2\]/,
    ],
    [
      "a loss mask of another shape",
      () => model.loss({ inputIds: [[1, 2]], mask: [[1, 1, 1]] }),
      /mask: \[1, 3\] was given for ids \[1, 2\]/,
    ],
    ["a single token to learn from", () => model.loss({ inputIds: [[1]] }), /need at least 2/],
    [
      "a tensor of floats",
      () => model.forward(device.tensor([[1, 2]])),
      /f32 \[1, 2\] was given; need i32 \[batch, length\]/,
    ],
  ];
  for (const [what, run, message] of cases) test(what, () => assert.throws(run, message));
});
