import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { type Device, key, reference } from "@tiedlora/core";
import { configFrom } from "../src/config.ts";
import type { Decoder } from "../src/decoder.ts";
import { generateText, generateTokens, streamText } from "../src/generate.ts";
import { createModel } from "../src/load.ts";
import { loadPretrained } from "../src/node.ts";
import type { Pretrained } from "../src/pretrained.ts";
import { checkSampling, sampleToken } from "../src/sampling.ts";
import { needsShared, sharedJson, sharedPath } from "./support/shared.ts";

type Options = Parameters<typeof generateTokens>[2];

/** All tokens of each row. */
async function tokens(model: Decoder, prompts: number[][], options?: Options): Promise<number[][]> {
  const rows: number[][] = prompts.map(() => []);
  for await (const step of generateTokens(model, prompts, options)) {
    for (const [row, token] of step.entries()) if (token !== null) rows[row]!.push(token);
  }
  return rows;
}

/** The same without a cache: all of the sequence through the model for each token. */
async function greedyWithoutCache(model: Decoder, prompt: number[], count: number): Promise<number[]> {
  const ids = [...prompt];
  const { vocab } = model.config;
  for (let i = 0; i < count; i++) {
    const logits = (await model.forward([ids]).data()).slice(-vocab);
    ids.push(logits.indexOf(Math.max(...logits)));
  }
  return ids.slice(prompt.length);
}

const SMALL = {
  vocab_size: 29,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 200,
  initializer_range: 0.5,
};
const MODELS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: {
    model_type: "gpt2",
    vocab_size: 29,
    n_embd: 12,
    n_layer: 2,
    n_head: 3,
    n_positions: 200,
    initializer_range: 0.5,
  },
  llama: { ...SMALL, model_type: "llama" },
  "mistral, window of 4": { ...SMALL, model_type: "mistral", sliding_window: 4 },
  smollm3: { ...SMALL, model_type: "smollm3", no_rope_layer_interval: 2 },
};

describe("generation with a cache", () => {
  for (const [name, raw] of Object.entries(MODELS)) {
    test(`gives what the whole sequence would, also for unequal prompts: ${name}`, async () => {
      const device = reference();
      const model = createModel(configFrom(raw), { device, seed: 5 });
      const prompts = [[3, 1, 4, 1, 5], [9], Array.from({ length: 17 }, (_, i) => (i * 7) % 29)];
      const expected = await Promise.all(prompts.map((prompt) => greedyWithoutCache(model, prompt, 40)));
      assert.deepEqual(await tokens(model, prompts, { maxTokens: 40, stopTokens: [] }), expected);
      assert.deepEqual(await tokens(model, [prompts[1]!], { maxTokens: 40, stopTokens: [] }), [expected[1]]);
      device.close();
    });
  }

  test("ends each row at its own end-of-text token, which is not given out", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const prompts = [
      [3, 1, 4],
      [9, 2, 6, 5],
    ];
    const free = await tokens(model, prompts, { maxTokens: 30, stopTokens: [] });
    const stop = free[0]![10]!;
    const cut = (row: number[]): number[] => (row.includes(stop) ? row.slice(0, row.indexOf(stop)) : row);
    assert.deepEqual(await tokens(model, prompts, { maxTokens: 30, stopTokens: [stop] }), free.map(cut));
    device.close();
  });

  test("gives its memory back, also when it is left early", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    await tokens(model, [[1, 2, 3]], { maxTokens: 3 });
    const before_ = device.memory().liveBytes;
    for await (const _step of generateTokens(model, [[1, 2, 3]], { maxTokens: 100, stopTokens: [] })) break;
    await device.sync();
    assert.ok(device.memory().liveBytes <= before_ + 1000, `${device.memory().liveBytes} after ${before_}`);
    device.close();
  });

  test("refuses what cannot work, with what was expected", async () => {
    const device = reference();
    const model = createModel(configFrom({ ...MODELS["gpt2"], n_positions: 8 }), { device, seed: 5 });
    const fails = (prompts: number[][], options: Options, message: RegExp): Promise<void> =>
      assert.rejects(tokens(model, prompts, options), message);
    await fails([[]], {}, /empty prompt/);
    await fails([], {}, /empty prompt/);
    await fails([[1, 2, 3]], { maxTokens: 7 }, /prompt of 3 tokens and 7 new ones exceed the 8 positions/);
    await fails([[1]], { maxTokens: 0 }, /maxTokens: 0 was given/);
    await fails([[1]], { maxTokens: 2, temperature: -1 }, /temperature: -1 was given/);
    await fails([[99]], { maxTokens: 2 }, /99 in row 0/);
    device.close();
  });
});

describe("sampling", () => {
  const logits = fc.array(fc.float({ min: -9, max: 9, noNaN: true }), { minLength: 1, maxLength: 20 });

  test("temperature 0 takes the first of the largest", () => {
    fc.assert(
      fc.property(logits, (scores) => {
        assert.equal(sampleToken(scores, {}, [], key(1)), scores.indexOf(Math.max(...scores)));
      }),
    );
  });

  test("topK 1 and a tiny topP take the most likely, whatever the temperature", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: -50, max: 50 }), { minLength: 1 }),
        fc.nat(),
        (scores, seed) => {
          const best = scores.indexOf(Math.max(...scores));
          assert.equal(sampleToken(scores, { temperature: 2, topK: 1 }, [], key(seed)), best);
          assert.equal(sampleToken(scores, { temperature: 2, topP: 1e-9 }, [], key(seed)), best);
        },
      ),
    );
  });

  test("frequencies follow softmax(logits / temperature), cut to topK and topP", () => {
    const scores = [1, 2, 3, 0];
    const counts = (options: Parameters<typeof sampleToken>[1]): number[] => {
      const found = [0, 0, 0, 0];
      for (let i = 0; i < 4000; i++) found[sampleToken(scores, options, [], key(1).fold(i))]!++;
      return found.map((n) => n / 4000);
    };
    const near = (actual: number[], kept: number[], temperature: number): void => {
      const weights = scores.map((s, i) => (kept.includes(i) ? Math.exp(s / temperature) : 0));
      const total = weights.reduce((a, b) => a + b);
      for (const [i, w] of weights.entries()) {
        const p = w / total;
        assert.ok(
          Math.abs(actual[i]! - p) <= 4 * Math.sqrt((p * (1 - p)) / 4000),
          `${i}: ${actual[i]} for ${p}`,
        );
      }
    };
    near(counts({ temperature: 1 }), [0, 1, 2, 3], 1);
    near(counts({ temperature: 3 }), [0, 1, 2, 3], 3);
    near(counts({ temperature: 1, topK: 2 }), [1, 2], 1);
    near(counts({ temperature: 1, topP: 0.7 }), [1, 2], 1); // 0.64 + 0.24
    near(counts({ temperature: 1, topP: 0.6 }), [2], 1);
  });

  test("a repetition penalty makes tokens that occurred less likely, for positive and negative scores", () => {
    assert.equal(sampleToken([2, 3], { repetitionPenalty: 2 }, [1], key(0)), 0);
    assert.equal(sampleToken([-3, -2], { repetitionPenalty: 2 }, [1, 1], key(0)), 0);
    assert.equal(sampleToken([-3, -2], { repetitionPenalty: 2 }, [0], key(0)), 1);
  });

  test("options out of range and broken logits are refused", () => {
    for (const options of [
      { temperature: NaN },
      { topK: 0 },
      { topK: 1.5 },
      { topP: 0 },
      { topP: 1.1 },
      { repetitionPenalty: 0 },
    ]) {
      assert.throws(() => checkSampling(options), RangeError);
    }
    assert.throws(() => sampleToken([1, NaN], {}, [], key(0)), /not numbers \(NaN\)/);
  });
});

describe("stories260K writes", { skip: needsShared }, () => {
  let device: Device;
  let pretrained: Pretrained;
  const golden = needsShared
    ? null
    : sharedJson<{ prompt: string; greedy_ids: number[]; prompt_ids: number[] }>(
        "models/stories260K/golden.json",
      );

  before(async () => {
    device = reference();
    pretrained = await loadPretrained(sharedPath("models/stories260K"), { device });
  });
  after(() => device.close());

  test("the golden greedy continuation", async () => {
    const { greedy_ids: all, prompt_ids: prompt } = golden!;
    const continued = await tokens(pretrained.model, [prompt], { maxTokens: 60 });
    assert.deepEqual([...prompt, ...continued[0]!], all.slice(0, prompt.length + 60));
  });

  test("the same text in one piece and in many; nothing of a stop string", async () => {
    const { model, tokenizer } = pretrained;
    const whole = await pretrained.complete("Once upon a time", { maxTokens: 40 });
    assert.match(whole, /^, there was a little girl named Lily\./);
    let streamed = "";
    for await (const piece of streamText(model, tokenizer, "Once upon a time", { maxTokens: 40 }))
      streamed += piece;
    assert.equal(streamed, whole);
    for (const stop of ["girl", " named Li", "Lily."]) {
      const [text] = await generateText(model, tokenizer, ["Once upon a time"], {
        maxTokens: 40,
        stop: [stop, "never"],
      });
      assert.equal(text, whole.slice(0, whole.indexOf(stop)));
    }
  });

  test("the same sample for the same seed, another for another; a batch as its rows alone", async () => {
    const { model, tokenizer } = pretrained;
    const sample = (prompts: string[], seed: number): Promise<string[]> =>
      generateText(model, tokenizer, prompts, { maxTokens: 20, temperature: 1, topP: 0.9, seed });
    const prompts = ["Once upon a time", "The dog"];
    assert.deepEqual(await sample(prompts, 1), await sample(prompts, 1));
    assert.notDeepEqual(await sample(prompts, 1), await sample(prompts, 2));
    assert.deepEqual((await sample(prompts.slice(0, 1), 1))[0], (await sample(prompts, 1))[0]);
  });
});
