/** Norm tuning: which norms are trained, and peft's LN_TUNING files, both ways. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, openSafetensors } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import { adapt, adapterFiles, loadAdapterFiles, methods } from "../src/index.ts";
import { asFiles, collect, type Contents, randomize, withConfig } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const namesIn = async (files: Contents): Promise<string[]> => {
  const bytes = files.get("adapter_model.safetensors") as Uint8Array;
  return [...(await openSafetensors(bytesSource(bytes, "norms"))).entries.keys()];
};
const configOf = (files: Contents): Record<string, unknown> =>
  JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;

const MODELS: Readonly<Record<string, [make: () => Decoder, some: string[], all: string[]]>> = {
  tinyLlama: [() => tinyLlama(), ["input_layernorm"], ["input_layernorm", "post_attention_layernorm", "norm"]], // prettier-ignore
  tinyGpt2: [() => tinyGpt2(), ["ln_1", "ln_f"], ["ln_1", "ln_2", "ln_f"]],
};

suite("norm tuning", () => {
  for (const [name, [make, some, all]] of Object.entries(MODELS)) {
    test(`goes into peft's file and comes back, all norms or those of the target, on ${name}`, async () => {
      for (const target of [undefined, some]) {
        const model = make();
        const adapter = randomize(adapt(model, methods.normTuning(target ? { target } : {})), 4, 0.8);
        const logits = await logitsOf(model);
        const files = await collect(adapterFiles(adapter, "peft"));
        const wanted = [...model.namedModules()]
          .map(([path]) => path)
          .filter((path) => (target ?? all).some((one) => path.endsWith(`.${one}`)))
          .flatMap((path) => (name === "tinyGpt2" ? ["weight", "bias"] : ["weight"]).map((field) => `base_model.model.${path}.ln_tuning_layers.${field}`)); // prettier-ignore
        assert.deepEqual((await namesIn(files)).sort(), wanted.sort());
        const config = configOf(files);
        assert.deepEqual(new Set(config["target_modules"] as string[]), new Set(target ?? all));
        assert.deepEqual([config["peft_type"], config["modules_to_save"]], ["LN_TUNING", null]);
        const unnamed = withConfig(files, (one) => (one["target_modules"] = null));
        for (const contents of target ? [files] : [files, unnamed]) {
          const again = make();
          const loaded = await loadAdapterFiles(again, asFiles(contents));
          assert.deepEqual(await logitsOf(again), logits);
          assert.deepEqual(await collect(adapterFiles(loaded, "peft")), files);
        }
      }
    });
  }

  test("keeps modules that are saved beside the norms", async () => {
    const model = tinyLlama();
    const method = methods.normTuning({ target: ["norm"], modulesToSave: ["lm_head"] });
    const adapter = randomize(adapt(model, method), 4, 0.8);
    const files = await collect(adapterFiles(adapter, "peft"));
    const names = ["lm_head.weight", "model.norm.ln_tuning_layers.weight"].map((one) => `base_model.model.${one}`); // prettier-ignore
    assert.deepEqual((await namesIn(files)).sort(), names);
    assert.deepEqual(configOf(files)["modules_to_save"], ["lm_head"]);
    const again = tinyLlama();
    await loadAdapterFiles(again, asFiles(files));
    assert.ok(distance(await logitsOf(again), await logitsOf(model)) === 0);
  });

  test("refuses what is no norm, and what peft's file has no place for", () => {
    const model = tinyLlama();
    const wrong = methods.normTuning({ target: ["q_proj"] });
    assert.throws(() => adapt(model, wrong), /"q_proj" matches no norm; the model has input_layernorm, post_attention_layernorm, norm/); // prettier-ignore
    const spec = { modules: "all-linear", layers: [0] } as const;
    assert.throws(() => methods.normTuning({ target: spec }), /give names of norms or ends of their paths/);
    assert.throws(() => methods.full({ target: spec }), /this method trains all parameters; leave them out/);
    const biased = adapt(tinyGpt2(), methods.normTuning({ bias: "all" }));
    assert.throws(() => adapterFiles(biased, "peft"), /LN_TUNING has the biases of its norms alone/);
    for (const [method, remedy] of [[methods.normTuning(), "export as peft"], [methods.full(), "keep the native file"]] as const) // prettier-ignore
      assert.throws(() => adapterFiles(adapt(tinyLlama(), method), "peft-lora"), new RegExp(`copies of the model's own parameters alone, and peft's LoRA needs a module with A and B; ${remedy}`)); // prettier-ignore
  });
});
