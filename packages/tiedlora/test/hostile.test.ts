/** Adapter files that would make their reader compute or allocate without bound: loading throws at once, and names the field. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FormatError, reference } from "@tiedlora/core";
import { adapt, adaptersOf, loadAdapterFiles, methods, nativeFiles, peftLoraFiles, peftVeraFiles } from "../src/index.ts"; // prettier-ignore
import { asFiles, collect, type Contents, withConfig } from "./support/files.ts";
import { tinyLlama } from "./support/tiny.ts";

const LORA = await collect(peftLoraFiles(adapt(tinyLlama(), methods.lora({ rank: 2, target: ["q_proj"] }))));
const VERA = await collect(peftVeraFiles(adapt(tinyLlama(), methods.vera({ rank: 2, target: ["q_proj"] }))));
const NATIVE = await collect(nativeFiles(adapt(tinyLlama(), methods.tl6({ rank: 2 }))));

const numbers = (count: number, key: (i: number) => string): Record<string, number> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [key(i), 2]));
const recipe = (options: object) => (config: Record<string, unknown>) => {
  config["recipe"] = { method: "tied-lora", options: { trained: ["B"], rank: 2, ...options } };
};

const CASES: readonly (readonly [string, Contents, (config: Record<string, unknown>) => void, RegExp])[] = [
  ["VeRA drawn of a rank beyond all", VERA, (c) => Object.assign(c, { r: 200_000, save_projection: false }), /"r": found 200000; expected at most 1024/],
  ["100,000 names with ranks", LORA, (c) => (c["rank_pattern"] = numbers(100_000, (i) => `m${i}`)), /"rank_pattern": .* expected at most 10000/],
  ["9,000 patterns with scales", LORA, (c) => (c["alpha_pattern"] = numbers(9000, (i) => `.*(a|b)+c{${i % 900}}`)), /"alpha_pattern": .*too large together/],
  ["a scale that f32 rounds to 0", LORA, (c) => (c["lora_alpha"] = 1e-320), /"lora_alpha": found 1e-320/],
  ["a target that hangs others", LORA, (c) => (c["target_modules"] = "(?=".repeat(40) + "a" + ".*)".repeat(40)), /"target_modules": found/],
  ["names that are no list", NATIVE, recipe({ target: 5 }), /"recipe": found target 5; expected names of modules/],
  ["trained factors that are none", NATIVE, recipe({ trained: { a: 1 } }), /"recipe": found trained .* expected a list of names/],
  ["no word of what is trained", NATIVE, recipe({ trained: undefined }), /"recipe": found tied-lora: trained: nothing; expected a list of/],
  ["a tie that is none", NATIVE, recipe({ tied: { blocks: 0 } }), /"recipe": found tied .* expected true, false/],
  ["a target that the model has not", NATIVE, recipe({ target: ["nothing"] }), /"recipe": found target \["nothing"\] matches no linear module/],
]; // prettier-ignore

suite("adapter files that ask for too much", () => {
  for (const [what, files, edit, message] of CASES) {
    test(what, async () => {
      const model = tinyLlama(reference());
      const before = process.cpuUsage();
      await assert.rejects(loadAdapterFiles(model, asFiles(withConfig(files, edit))), (error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        assert.ok(error.file.startsWith("adapter") && error.place !== null);
        return true;
      });
      assert.ok(process.cpuUsage(before).user < 2e6, "more than 2 s");
      assert.deepEqual(adaptersOf(model).names, []);
    });
  }

  test("as many names as a model can have modules are read in linear time", async () => {
    const names = numbers(10_000, (i) => `model.layers.${i}.mlp.up_proj`);
    const files = withConfig(LORA, (config) => (config["rank_pattern"] = names));
    const before = process.cpuUsage();
    await loadAdapterFiles(tinyLlama(reference()), asFiles(files));
    assert.ok(process.cpuUsage(before).user < 2e6, "more than 2 s");
  });
});
