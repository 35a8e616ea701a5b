/** Tests for every backend: the logits of all architectures, from files that Python wrote, and a golden text. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Device } from "@tiedlora/core";
import { generateText, generateTokens } from "../../src/generate.ts";
import { loadModel, loadPretrained } from "../../src/node.ts";
import type { Pretrained } from "../../src/pretrained.ts";
import { expectedLogits, IDS, MODELS, randomModel } from "./models.ts";
import { assertNear } from "./near.ts";
import { registerPacking } from "./packing.ts";
import { needsShared, sharedJson, sharedPath } from "./shared.ts";

interface Expected {
  readonly input_ids: number[][];
  readonly base_logits: number[];
  readonly base_logits_bf16_weights_f32_math: number[];
  readonly base_logits_f16_weights_f32_math: number[];
}

interface Golden {
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly logits_last: number[];
  readonly logits_first8_per_position: number[][];
  readonly mean_nll_prompt: number;
  readonly greedy_ids: number[];
  readonly paragraph0: string;
  readonly paragraph0_ids: number[];
  readonly paragraph0_mean_nll: number;
}

export interface ParityOptions {
  /** The number of tokens to compare of the golden continuation, which has 195. */
  readonly tokens: number;
  readonly skip?: string | false;
  /** The models whose packed rows are computed. Default: all. */
  readonly packed?: typeof MODELS;
}

/** Registers the tests for a backend. */
export function registerParity(
  name: string,
  makeDevice: () => Device | Promise<Device>,
  { tokens, skip = false, packed = MODELS }: ParityOptions,
): void {
  describe(name, { skip }, () => {
    let device: Device;
    before(async () => {
      device = await makeDevice();
    });
    after(() => device.close());
    const get = (): Device => device;
    registerArchitectures(get);
    registerPacking(get, packed);
    registerFixtures(get);
    registerStories(get, tokens);
  });
}

function registerArchitectures(device: () => Device): void {
  describe("computes what the architecture says", () => {
    for (const [name, raw] of Object.entries(MODELS)) {
      test(name, async () => {
        const { model, weights } = randomModel(raw, device());
        const logits = await model.forward(IDS).data();
        const expected = IDS.flatMap((ids) => expectedLogits(raw, model, weights, ids).flat());
        assertNear(logits, expected, 2e-5, "logits");
      });
    }
  });
}

function registerFixtures(device: () => Device): void {
  describe("reads models that Python wrote", { skip: needsShared }, () => {
    for (const base of ["tiny-gpt2", "tiny-llama"]) {
      for (const [suffix, field, dtype] of [
        ["", "base_logits", "f32"],
        ["-sharded", "base_logits", "f32"],
        ["-f16", "base_logits_f16_weights_f32_math", "f16"],
        ["-bf16", "base_logits_bf16_weights_f32_math", "bf16"],
      ] as const) {
        test(`${base}${suffix}: logits within 2e-5 of transformers, weights kept as ${dtype}`, async () => {
          const model = await loadModel(sharedPath("fixtures/peft", base + suffix), { device: device() });
          const expected = sharedJson("fixtures/peft", base, "expected.json") as Expected;
          assertNear(await model.forward(expected.input_ids).data(), expected[field], 2e-5, "logits");
          assert.deepEqual([...new Set(model.parameters().map((p) => p.dtype))], [dtype]);
        });
      }
    }
  });
}

function registerStories(device: () => Device, count: number): void {
  describe("stories260K", { skip: needsShared }, () => {
    let pretrained: Pretrained;
    const golden = needsShared ? null : (sharedJson("models/stories260K/golden.json") as Golden);
    before(async () => {
      pretrained = await loadPretrained(sharedPath("models/stories260K"), { device: device() });
    });

    test("logits within 1e-4 of the golden ones; losses; tokens", async () => {
      const { model, tokenizer } = pretrained;
      const { prompt, prompt_ids: ids, paragraph0, paragraph0_ids: paragraph } = golden!;
      assert.deepEqual(tokenizer.encode(prompt), ids);
      assert.deepEqual(tokenizer.encode(paragraph0), paragraph);
      const logits = await model.forward([ids]).data();
      assertNear(logits.slice(-512), golden!.logits_last, 1e-4, "logits of the last position");
      for (const [t, first] of golden!.logits_first8_per_position.entries()) {
        assertNear(logits.slice(t * 512, t * 512 + 8), first, 1e-4, `logits of position ${t}`);
      }
      const loss = async (row: number[]): Promise<number> => model.loss({ inputIds: [row] }).item();
      assertNear([await loss(ids)], [golden!.mean_nll_prompt], 1e-5, "loss of the prompt");
      assertNear([await loss(paragraph)], [golden!.paragraph0_mean_nll], 1e-5, "loss of a paragraph");
    });

    test(`${count} tokens of the golden greedy continuation`, async () => {
      const { greedy_ids: all, prompt_ids: prompt } = golden!;
      const ids = [...prompt];
      for await (const [token] of generateTokens(pretrained.model, [prompt], { maxTokens: count }))
        if (token !== null) ids.push(token!);
      assert.deepEqual(ids, all.slice(0, prompt.length + count));
    });

    test("the sample of a seed that every backend gives", async () => {
      const { model, tokenizer } = pretrained;
      const options = { maxTokens: 12, temperature: 1, topP: 0.95, topK: 100, seed: 3 };
      const texts = await generateText(model, tokenizer, ["Once upon a time", "The dog"], options);
      assert.deepEqual(texts, SAMPLES);
    });
  });
}

const SAMPLES: readonly string[] = [
  ", there was a little boy named Timmy. Timmy",
  " was very lazy and the little tlu",
];
