import assert from "node:assert/strict";
import { after, before as beforeAll, describe, test } from "node:test";
import fc from "fast-check";
import { cpu } from "@tiedlora/backend-cpu";
import { Device, key, operandsOfStep, reference } from "@tiedlora/core";
import { type Executable, type Program, ReferenceBackend } from "@tiedlora/core";
import { KvCache } from "../src/cache.ts";
import { configFrom } from "../src/config.ts";
import type { Decoder } from "../src/decoder.ts";
import { generateText, generateTokens, streamText } from "../src/generate.ts";
import { createModel } from "../src/load.ts";
import { loadPretrained } from "../src/node.ts";
import type { Pretrained } from "../src/pretrained.ts";
import { checkSampling, sampleToken } from "../src/sampling.ts";
import { needsShared, sharedPath } from "./support/shared.ts";
import { SMALL, SMALL_GPT2 } from "./support/generation.ts";

type Options = Parameters<typeof generateTokens>[2];

/** All tokens of each row. */
async function tokens(model: Decoder, prompts: number[][], options?: Options): Promise<number[][]> {
  const rows: number[][] = prompts.map(() => []);
  for await (const step of generateTokens(model, prompts, options)) {
    for (const [row, token] of step.entries()) if (token !== null) rows[row]!.push(token);
  }
  return rows;
}

/** The most likely token after each position, from one pass over the whole sequence. */
async function mostLikely(model: Decoder, ids: readonly number[]): Promise<number[]> {
  const { vocab } = model.config;
  const logits = await model.forward([ids]).data();
  return ids.map((_, t) => {
    const scores = logits.slice(t * vocab, (t + 1) * vocab);
    return scores.indexOf(Math.max(...scores));
  });
}

const MODELS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: SMALL_GPT2,
  llama: { ...SMALL, model_type: "llama" },
  "mistral, window of 4": { ...SMALL, model_type: "mistral", sliding_window: 4 },
  olmo2: { ...SMALL, model_type: "olmo2" },
  "gemma2, tight limits": {
    ...SMALL,
    model_type: "gemma2",
    head_dim: 6,
    sliding_window: 4,
    attn_logit_softcapping: 1.5,
    final_logit_softcapping: 2,
  },
  gemma3_text: {
    ...SMALL,
    model_type: "gemma3_text",
    head_dim: 6,
    sliding_window: 4,
    sliding_window_pattern: 2,
    rope_local_base_freq: 50,
  },
  olmoe: { ...SMALL, model_type: "olmoe", num_experts: 4, num_experts_per_tok: 2 },
  phi3: { ...SMALL, model_type: "phi3", sliding_window: 5 },
  smollm3: { ...SMALL, model_type: "smollm3", no_rope_layer_interval: 2 },
};

/** Scalings that depend on the length of the sequence. */
const CHANGING: Readonly<Record<string, Record<string, unknown>>> = {
  dynamic: { rope_type: "dynamic", factor: 2 },
  longrope: {
    rope_type: "longrope",
    short_factor: [1, 1.1],
    long_factor: [2, 3],
    original_max_position_embeddings: 22,
  },
};

describe("generation with a cache", () => {
  const prompts = [[3, 1, 4, 1, 5], [9], Array.from({ length: 17 }, (_, i) => (i * 7) % 29)];
  const options = { maxTokens: 60, stopTokens: [] };

  for (const [name, raw] of Object.entries(MODELS)) {
    test(`gives what the whole sequence would, also for unequal prompts: ${name}`, async () => {
      const device = reference();
      const model = createModel(configFrom(raw), { device, seed: 5 });
      const rows = await tokens(model, prompts, options);
      for (const [i, prompt] of prompts.entries()) {
        const all = await mostLikely(model, [...prompt, ...rows[i]!]);
        assert.deepEqual(rows[i], all.slice(prompt.length - 1, -1));
      }
      assert.deepEqual(await tokens(model, [prompts[1]!], options), [rows[1]]);
      device.close();
    });
  }

  for (const [name, scaling] of Object.entries(CHANGING)) {
    test(`reads the sequence anew when rotary frequencies change: ${name}`, async () => {
      const device = await cpu();
      const raw = { ...MODELS["llama"], max_position_embeddings: 24, rope_scaling: scaling };
      const model = createModel(configFrom(raw), { device, seed: 5 });
      const rows = await tokens(model, prompts, { ...options, maxTokens: 22 });
      for (const [i, prompt] of prompts.entries()) {
        const ids = [...prompt];
        for (let n = 0; n < 22; n++) ids.push((await mostLikely(model, ids)).at(-1)!);
        assert.deepEqual(rows[i], ids.slice(prompt.length));
      }
      device.close();
    });
  }

  test("refuses to continue a cache whose rotary frequencies would change", async () => {
    const device = reference();
    const raw = { ...MODELS["llama"], rope_scaling: CHANGING["longrope"] };
    const model = createModel(configFrom(raw), { device, seed: 5 });
    const cache = new KvCache(model.config, device, [0], 32);
    const read = (ids: number[]): void => cache.commit([model.forward([ids], { cache })]);
    read(Array<number>(21).fill(1));
    read([2]);
    assert.equal(cache.stale, true);
    assert.throws(() => read([3]), /with 23 tokens this model's rotary frequencies change.*new cache/);
    device.close();
  });

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

  test("compiles few programs, whatever the lengths of prompts and texts", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["mistral, window of 4"]!), { device, seed: 5 });
    const run = async (...cases: [length: number, maxTokens: number][]): Promise<number> => {
      for (const [length, maxTokens] of cases)
        await tokens(model, [Array<number>(length).fill(3)], { maxTokens, stopTokens: [] });
      return device.memory().cachedPrograms;
    };
    assert.equal(await run([1, 4]), 2, "one to read a prompt, one to decode");
    assert.equal(await run([2, 9], [7, 3], [15, 20]), 2, "padded to 16, with 64 slots");
    assert.equal(await run([16, 20]), 3, "without padding: another one reads, the same decodes");
    assert.equal(await run([17, 20], [20, 11], [31, 2]), 5, "padded to 24 and to 32");
    assert.equal(await run([10, 70], [20, 100]), 7, "128 slots: one to make room, one to decode");
    device.close();
  });

  test("compiles no kernels for prompts of new lengths", async (t) => {
    let functions = 0;
    const { Module } = WebAssembly;
    class Counted extends Module {
      constructor(bytes: BufferSource) {
        super(bytes);
        functions += Module.exports(this).length;
      }
    }
    WebAssembly.Module = Counted;
    t.after(() => (WebAssembly.Module = Module));
    const device = await cpu({ threads: 1 });
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const read = async (...lengths: number[]): Promise<number> => {
      const before = functions;
      for (const length of lengths)
        await tokens(model, [Array<number>(length).fill(3)], { maxTokens: 3, stopTokens: [] });
      return functions - before;
    };
    const first = await read(5, 20, 60, 100);
    assert.ok(first > 10, `${first} functions`);
    assert.ok((await read(16, 24)) <= 4, "prompts without padding have no mask");
    assert.equal(await read(3, 30, 33, 40, 47, 90, 96, 120), 0);
    device.close();
  });

  test("writes one slot a step, in place", async () => {
    const programs: Program[] = [];
    class Recorder extends ReferenceBackend {
      override compile(program: Program): Executable {
        programs.push(program);
        return super.compile(program);
      }
    }
    const device = new Device(new Recorder());
    const model = createModel(configFrom(MODELS["mistral, window of 4"]!), { device, seed: 5 });
    await tokens(model, [[1, 2, 3], [4]], { maxTokens: 12, stopTokens: [] });
    const decoding = programs.at(-1)!;
    assert.equal(programs.length, 2, "one reads the prompts, one decodes");
    const outputs = decoding.buffers.filter(({ kind }) => kind === "output");
    assert.deepEqual(outputs.filter(({ aliasOf }) => aliasOf === undefined).map(({ bytes }) => bytes), [2 * 29 * 4], "the logits"); // prettier-ignore
    const caches = new Set(outputs.flatMap(({ aliasOf }) => aliasOf ?? []));
    assert.equal(caches.size, 4, "keys and values of two layers");
    const slot = 2 * 2 * 4; // rows, heads, numbers of a head
    for (const step of decoding.steps) {
      if (!operandsOfStep(step).writes.some(({ buffer }) => caches.has(buffer))) continue;
      assert.ok(step.type === "loop", "a loop writes them");
      const points = [...step.outer, ...step.inner].reduce((a, b) => a * b, 1);
      assert.ok(points <= slot, `${points} numbers are written, of ${slot}`);
    }
    device.close();
  });

  test("gives its memory back, also when it is left early", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const options = { maxTokens: 3, stopTokens: [] };
    const leave = async (): Promise<number> => {
      const texts = generateTokens(model, [[1, 2, 3]], options);
      await texts.next();
      await texts.return();
      await device.sync();
      return device.memory().liveBytes;
    };
    await tokens(model, [[1, 2, 3]], options);
    const before = await leave();
    for (let i = 0; i < 5; i++) await leave();
    // A cache has 2 layers of keys and values: 2 · 2 · 64 slots · 2 heads · 4 numbers of 4 bytes.
    const grown = (await leave()) - before;
    assert.ok(grown < 8192, `${grown} bytes more after six more texts`);
    device.close();
  });

  test("refuses what cannot work, with what was expected", async () => {
    const device = reference();
    const model = createModel(configFrom({ ...MODELS["gpt2"], n_positions: 8 }), { device, seed: 5 });
    const fails = (prompts: number[][], options: Options, message: RegExp): Promise<void> =>
      assert.rejects(tokens(model, prompts, options), message);
    await fails([[]], {}, /a prompt is empty/);
    await fails([], {}, /a prompt is empty/);
    await fails([[1, 2, 3]], { maxTokens: 7 }, /prompt of 3 tokens and 7 new ones exceed the 8 positions/);
    await fails([[1]], { maxTokens: 0 }, /maxTokens: 0 was given/);
    await fails([[1]], { maxTokens: 2, temperature: -1 }, /temperature: -1 was given/);
    await fails([[99]], { maxTokens: 2 }, /99 in row 0/);
    device.close();
  });
});

describe("sampling", () => {
  test("the lowest of temperatures takes the most likely token, as 0 does", () => {
    for (const temperature of [5e-324, 1e-310, 1e-38, 1e-7])
      for (let seed = 0; seed < 20; seed++)
        assert.equal(sampleToken([0, 3, -2, 2.9], { temperature }, [], key(seed)), 1, String(temperature));
  });

  test("scores that are infinite are an error, not the last token", () => {
    for (const scores of [
      [0, Infinity],
      [-Infinity, -Infinity],
      [0, NaN],
    ])
      // prettier-ignore
      assert.throws(() => sampleToken(scores, { temperature: 1 }, [], key(0)), /logits are not numbers/);
    assert.equal(sampleToken([-Infinity, 0], { temperature: 1 }, [], key(0)), 1);
  });

  const logits = fc.array(fc.float({ min: -9, max: 9, noNaN: true }), { minLength: 1, maxLength: 20 });

  test("temperature 0 takes the first of the largest", () => {
    fc.assert(
      fc.property(logits, (scores) => {
        assert.equal(sampleToken(scores, {}, [], key(1)), scores.indexOf(Math.max(...scores)));
      }),
    );
  });

  test("penalties are of what was generated, each time or once; biases are added", () => {
    const choose = (options: Parameters<typeof sampleToken>[1], seen: number[], prompt: number): number =>
      sampleToken([3, 2, 1.6], options, seen, key(0), prompt);
    assert.equal(choose({ presencePenalty: 1.2 }, [0, 0], 2), 0, "the prompt is not penalized");
    assert.equal(choose({ presencePenalty: 1.2 }, [0, 0, 0], 2), 1);
    assert.equal(choose({ presencePenalty: 0.9 }, [0, 0, 0], 0), 0, "once, not three times");
    assert.equal(choose({ frequencyPenalty: 0.9 }, [0], 0), 0);
    assert.equal(choose({ frequencyPenalty: 0.9 }, [0, 0, 1], 0), 2);
    assert.equal(choose({ logitBias: new Map([[2, 1.5]]) }, [], 0), 2);
    assert.throws(() => choose({ logitBias: new Map([[3, 1]]) }, [], 0), /3 was given; need ids below 3/);
    assert.throws(() => choose({ presencePenalty: NaN }, [], 0), /presencePenalty: NaN was given/);
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
  beforeAll(async () => {
    device = await cpu();
    pretrained = await loadPretrained(sharedPath("models/stories260K"), { device });
  });
  after(() => device.close());

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
