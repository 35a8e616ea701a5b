import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { reference } from "@tiedlora/core";
import { Arrangement, NO_ADAPTER, rowsFor } from "../src/batching/arrangement.ts";
import { ContinuousBatch } from "../src/batching/continuous-batch.ts";
import type { SequenceRequest, TokenStream } from "../src/batching/sequence.ts";
import { configFrom } from "../src/config.ts";
import type { Decoder } from "../src/decoder.ts";
import { generateTokens } from "../src/generate.ts";
import { createModel } from "../src/load.ts";
import { logprobsOf } from "../src/logprobs.ts";
import { SMALL, SMALL_GPT2 } from "./support/generation.ts";

const MODELS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: SMALL_GPT2,
  llama: { ...SMALL, model_type: "llama" },
  "mistral, window of 4": { ...SMALL, model_type: "mistral", sliding_window: 4 },
  "llama, frequencies that change": { ...SMALL, model_type: "llama", max_position_embeddings: 24, rope_scaling: { rope_type: "dynamic", factor: 2 } }, // prettier-ignore
};

async function read(stream: TokenStream): Promise<number[]> {
  const ids: number[] = [];
  for await (const { token } of stream) ids.push(token);
  return ids;
}

async function alone(model: Decoder, prompt: number[], options: SequenceRequest): Promise<number[]> {
  const ids: number[] = [];
  for await (const [token] of generateTokens(model, [prompt], options))
    if (typeof token === "number") ids.push(token);
  return ids;
}

const ramp = (length: number, by: number): number[] => Array.from({ length }, (_, i) => (i * by + 3) % 29);

describe("a continuous batch", () => {
  for (const [name, raw] of Object.entries(MODELS)) {
    test(`gives each sequence what it gets alone, whenever it joins and whoever leaves: ${name}`, async () => {
      const device = reference();
      const model = createModel(configFrom(raw), { device, seed: 5 });
      const batch = new ContinuousBatch(model, { rows: 3 });
      const cases: [prompt: number[], options: SequenceRequest][] = [
        [ramp(3, 2), { maxTokens: 30 }],
        [ramp(17, 7), { maxTokens: 4, temperature: 1, seed: 3 }],
        [ramp(1, 5), { maxTokens: 12 }],
        [ramp(5, 3), { maxTokens: 9, temperature: 0.7, topK: 5, seed: 8 }],
        [ramp(9, 4), { maxTokens: 1 }],
        [ramp(6, 11), { maxTokens: 20, repetitionPenalty: 1.3 }],
      ];
      const results: Promise<number[]>[] = [];
      for (const [prompt, options] of cases) {
        const stream = batch.generate(prompt, { ...options, stopTokens: [] });
        const first = (await stream.next()).value!.token;
        results.push(read(stream).then((rest) => [first, ...rest]));
      }
      for (const [i, [prompt, options]] of cases.entries())
        assert.deepEqual(await results[i], await alone(model, prompt, { ...options, stopTokens: [] }), `sequence ${i}`); // prettier-ignore
      device.close();
    });
  }

  test("goes on where the ring of slots has turned, and when it grows after that", async () => {
    const device = reference();
    const raw = { ...MODELS["llama"]!, num_hidden_layers: 1 };
    const model = createModel(configFrom(raw), { device, seed: 5 });
    const batch = new ContinuousBatch(model, { rows: 2 });
    const options = { maxTokens: 55, stopTokens: [] };
    const cases: [prompt: number[], options: SequenceRequest][] = [
      [ramp(3, 2), options], // slots up to the 71st of 64
      [ramp(4, 7), { ...options, maxTokens: 40 }],
      [ramp(5, 3), { ...options, maxTokens: 110 }], // joins at the 56th slot: the ring turns before it grows
      [ramp(18, 5), { ...options, maxTokens: 60 }],
      [ramp(2, 11), { ...options, maxTokens: 30 }],
    ];
    const results = await Promise.all(cases.map(([prompt, own]) => read(batch.generate(prompt, own))));
    for (const [i, [prompt, own]] of cases.entries())
      assert.deepEqual(results[i], await alone(model, prompt, own), `sequence ${i}`);
    device.close();
  });

  test("passes the place of a sequence whose reader leaves on, and gives its memory back", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const batch = new ContinuousBatch(model, { rows: 1 });
    const endless = batch.generate([3, 1, 4], { maxTokens: 190, stopTokens: [] });
    await endless.next();
    const next = batch.generate([9, 2], { maxTokens: 5, stopTokens: [] });
    const never = batch.generate([9, 2], { maxTokens: 5, stopTokens: [] });
    await never.return();
    assert.equal(batch.active, 1);
    await endless.return();
    assert.deepEqual(await read(next), await alone(model, [9, 2], { maxTokens: 5, stopTokens: [] }));
    assert.deepEqual(await read(never), []);
    await batch.between(() => undefined);
    assert.deepEqual([batch.active, batch.waiting], [0, 0]);
    device.close();
  });

  test("ends a sequence at its stop token, which is not given, and says how likely its tokens were", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const batch = new ContinuousBatch(model);
    const free = await read(batch.generate([3, 1, 4], { maxTokens: 10, stopTokens: [] }));
    const cut = await read(batch.generate([3, 1, 4], { maxTokens: 10, stopTokens: [free[4]!] }));
    assert.deepEqual(cut, free.slice(0, free.indexOf(free[4]!)));
    const { value } = await batch.generate([3, 1, 4], { maxTokens: 1, stopTokens: [], logprobs: 3 }).next();
    const logits = Array.from(await model.forward([[3, 1, 4]]).data()).slice(2 * 29);
    const total = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
    const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!);
    assert.deepEqual([value!.token, ...value!.top!.map(({ token }) => token)], [order[0], ...order.slice(0, 3)]); // prettier-ignore
    for (const { token, logprob } of value!.top!) assert.ok(Math.abs(logprob - (logits[token]! - total)) < 1e-5); // prettier-ignore
    assert.equal(value!.logprob, value!.top![0]!.logprob);
    device.close();
  });

  test("runs few programs, whatever the lengths and the numbers of sequences", async () => {
    const device = reference();
    const model = createModel(configFrom(MODELS["llama"]!), { device, seed: 5 });
    const batch = new ContinuousBatch(model, { rows: 4 });
    const run = async (lengths: readonly number[]): Promise<number> => {
      const options = { maxTokens: 6, stopTokens: [] };
      await Promise.all(lengths.map((length) => read(batch.generate(ramp(length, 3), options))));
      return device.memory().cachedPrograms;
    };
    const lengths = [3, 5, 9, 12];
    const once = await run(lengths);
    assert.ok(once <= 2, `${once} programs: one reads four prompts, one decodes`);
    assert.equal(await run([2, 4, 8, 13]), once);
    assert.equal(await run([2, 4, 8]), once, "three take the rows of four");
    device.close();
  });

  test("refuses what cannot work before it takes a place, and goes on", async () => {
    const device = reference();
    const model = createModel(configFrom({ ...MODELS["gpt2"], n_positions: 8 }), { device, seed: 5 });
    const batch = new ContinuousBatch(model);
    assert.throws(() => batch.generate([]), /a prompt is empty/);
    assert.throws(() => batch.generate([1, 99], { maxTokens: 1 }), /id 99 at position 1; the vocabulary has 29/); // prettier-ignore
    assert.throws(() => batch.generate([1, 2], { maxTokens: 9 }), /exceed the 8 positions/);
    assert.throws(() => batch.generate([1], { maxTokens: 2, topP: 2 }), /topP: 2 was given/);
    assert.throws(() => batch.generate([1], { maxTokens: 2, logprobs: -1 }), /logprobs: -1 was given/);
    assert.throws(() => new ContinuousBatch(model, { rows: 0 }), /rows: 0 was given/);
    const unknown = batch.generate([1], { maxTokens: 2, adapter: "none" });
    await assert.rejects(read(unknown), /the model has no adapters/);
    assert.equal((await read(batch.generate([1], { maxTokens: 2, stopTokens: [] }))).length, 2);
    device.close();
  });
});

describe("rows of several adapters", () => {
  const names = fc.array(fc.constantFrom("a", "b", "c", NO_ADAPTER), { minLength: 1, maxLength: 20 });

  test("keep their adapters; groups but the largest have sizes of powers of two", () => {
    fc.assert(
      fc.property(names, fc.func(fc.boolean()), (given, gone) => {
        const size = rowsFor(given);
        const rows = Array.from({ length: size }, (_, i) => given[i] ?? null);
        for (const [i] of given.entries()) if (i > 0 && gone(i)) rows[i] = null; // some have ended
        const choice = new Arrangement().of(rows);
        const kinds = new Set(rows.filter((name) => name !== null));
        if (kinds.size === 1) {
          const [only] = [...kinds];
          assert.deepEqual(choice, only === NO_ADAPTER ? [] : only);
          return;
        }
        const all = (choice as { readonly rows: readonly string[] }).rows;
        for (const [i, name] of rows.entries()) if (name !== null) assert.equal(all[i], name);
        const sizes = [...kinds].map((kind) => all.filter((name) => name === kind).length);
        assert.equal(sizes.reduce((a, b) => a + b), size); // prettier-ignore
        const largest = sizes.indexOf(Math.max(...sizes));
        for (const [i, n] of sizes.entries()) assert.ok(i === largest || Number.isInteger(Math.log2(n)), String(sizes)); // prettier-ignore
      }),
    );
  });

  test("log-probabilities of equal tokens come in the order of their ids", () => {
    const { logprob, top } = logprobsOf([0, 0, -Infinity, 0], 1, 2);
    assert.ok(Math.abs(logprob - Math.log(1 / 3)) < 1e-12);
    assert.deepEqual(top.map(({ token }) => token), [0, 1]); // prettier-ignore
  });
});
