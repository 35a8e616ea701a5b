import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FormatError, key, reference } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { adapt, adaptersOf, moduleInfos, adaptableModules, type LinearInfo, loadAdapterFiles, methods, peftLoraFiles } from "../src/index.ts"; // prettier-ignore
import { parsePeftLora } from "../src/files/peft/config.ts";
import { savedModules, shortNames, targetPaths } from "../src/files/peft/targets.ts";
import { asFiles, collect, randomize, withConfig } from "./support/files.ts";
import { logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const device = reference();
const infos = (paths: readonly string[]): LinearInfo[] => paths.map((path) => ({ path, in: 1, out: 1 }));

/** Which of `paths` a config of peft adapts. */
function adapted(paths: readonly string[], config: Record<string, unknown>): string[] {
  const { targets } = parsePeftLora(config, "adapter_config.json");
  try {
    return targetPaths(tinyLlama(device), infos(paths), targets, "adapter_config.json");
  } catch (error) {
    if (error instanceof FormatError && error.message.includes("matches none")) return [];
    throw error;
  }
}

suite("which modules a config of peft means", () => {
  const cases: [what: string, path: string, config: Record<string, unknown>, matches: boolean][] = [
    ["a name is a whole last segment", "foo.bar", { target_modules: ["bar"] }, true],
    ["and no part of one", "foo.q_proj", { target_modules: ["proj"] }, false],
    ["a path without dots is a name", "foo", { target_modules: ["foo"] }, true],
    ["several segments may be given", "h.0.attn.c_proj", { target_modules: ["attn.c_proj"] }, true],
    ["which must be the last", "h.0.mlp.c_proj", { target_modules: ["attn.c_proj"] }, false],
    ["a pattern matches the whole path", "foo", { target_modules: "foo" }, true],
    ["not a part of it", "foo.bar", { target_modules: "bar" }, false],
    ["with wildcards", "foo.bar", { target_modules: ".*ar" }, true],
    ["alternatives", "a.v_proj", { target_modules: ".*\\.(q|v)_proj" }, true],
    ["Python's groups", "a.3.v_proj", { target_modules: "(?P<p>.*)\\.\\d\\.v_proj" }, true],
    [
      "exclusion by name comes first",
      "foo.bar",
      { target_modules: ["bar"], exclude_modules: ["bar"] },
      false,
    ],
    ["exclusion by pattern", "foo.bar", { target_modules: ["bar"], exclude_modules: "foo.*" }, false],
    ["exclusion of something else", "foo.bar", { target_modules: ["bar"], exclude_modules: ["baz"] }, true],
    [
      "saved modules are not adapted",
      "foo.bar",
      { target_modules: ["bar"], modules_to_save: ["bar"] },
      false,
    ],
    ["nor what is inside", "foo.mlp.bar", { target_modules: ["bar"], modules_to_save: ["mlp"] }, false],
    ["a layer", "foo.bar.1.baz", { target_modules: ["baz"], layers_to_transform: [1] }, true],
    ["layer 0", "foo.bar.0.baz", { target_modules: ["baz"], layers_to_transform: 0 }, true],
    ["not another", "foo.bar.1.baz", { target_modules: ["baz"], layers_to_transform: [0] }, false],
    ["10 is not 1", "foo.bar.10.baz", { target_modules: ["baz"], layers_to_transform: [1] }, false],
    ["leading zeros count as the number", "foo.bar.001.baz", { target_modules: ["baz"], layers_to_transform: [1] }, true], // prettier-ignore
    ["a path without a number is in no layer", "foo.bar.baz", { target_modules: ["baz"], layers_to_transform: [1] }, false], // prettier-ignore
    [
      "an empty list of layers is none",
      "foo.bar.7.baz",
      { target_modules: ["baz"], layers_to_transform: [] },
      true,
    ],
    ["the first number counts", "a.blocks.1.experts.7.baz", { target_modules: ["baz"], layers_to_transform: [7] }, false], // prettier-ignore
    ["or the one after a pattern", "a.blocks.1.experts.7.baz", { target_modules: ["baz"], layers_to_transform: [7], layers_pattern: "experts" }, true], // prettier-ignore
    ["one of several patterns", "foo.h.2.baz", { target_modules: ["baz"], layers_to_transform: [2], layers_pattern: ["layers", "h"] }, true], // prettier-ignore
    ["a pattern that is not there", "foo.bar.1.baz", { target_modules: ["baz"], layers_to_transform: [1], layers_pattern: ["x"] }, false], // prettier-ignore
    ["a whole path counts in any layer", "foo.bar.1.baz", { target_modules: ["foo.bar.1.baz"], layers_to_transform: [0] }, true], // prettier-ignore
  ];
  for (const [what, path, config, matches] of cases) {
    test(`${what}: ${path} ${JSON.stringify(config)}`, () => {
      assert.equal(adapted([path], config).length === 1, matches);
    });
  }

  test("all-linear is every linear but the output embedding, also in capitals", () => {
    const hosts = [...adaptableModules(tinyGpt2(device))].map(([path]) => path);
    const linears = moduleInfos(adaptableModules(tinyGpt2(device)));
    for (const target_modules of ["all-linear", "All-Linear"]) {
      const { targets } = parsePeftLora({ target_modules }, "file");
      const found = targetPaths(tinyGpt2(device), linears, targets, "file");
      assert.deepEqual(
        found,
        hosts.filter((path) => /\.(c_attn|c_proj|c_fc)$/.test(path)),
      );
      assert.equal(found.length, 12);
    }
  });

  test("without target_modules, it is peft's default for the architecture", () => {
    const { targets } = parsePeftLora({}, "file");
    const names = (model: nn.Module): Set<string> => {
      const paths = targetPaths(model, moduleInfos(adaptableModules(model)), targets, "file");
      return new Set(paths.map((path) => path.split(".").at(-1)!));
    };
    assert.deepEqual(names(tinyLlama(device)), new Set(["q_proj", "v_proj"]));
    assert.deepEqual(names(tinyGpt2(device)), new Set(["c_attn"]));
  });

  test("modules to save end in the name, without regard to dots", () => {
    const parameters = [...adaptersOf(tinyLlama(device)).ownParameters()].map(([path, { shape }]) => ({
      path,
      shape,
    }));
    const saved = savedModules(parameters, ["norm"], "file");
    assert.equal(saved.length, 3 * 2 + 1);
    assert.ok(saved.includes("model.layers.1.input_layernorm") && saved.includes("model.norm"));
    assert.deepEqual(savedModules(parameters, ["model.norm"], "file"), ["model.norm"]);
  });

  test("names are written only where they mean nothing else", () => {
    const paths = ["a.0.q", "a.0.k", "a.1.q", "a.1.k"];
    assert.deepEqual(shortNames(["a.0.q", "a.1.q"], infos(paths)), ["q"]);
    assert.deepEqual(shortNames(["a.0.q"], infos(paths)), ["a.0.q"]);
  });
});

suite("names that could be taken for others", () => {
  class Tricky extends nn.Module {
    lora_A: nn.Linear;
    weight: nn.Linear;
    bias: nn.Linear;
    default: nn.Linear;
    constructor() {
      super();
      const linear = (name: string): nn.Linear => nn.Linear.init(4, 4, { device, key: key(1).fold(name) });
      [this.lora_A, this.weight, this.bias, this.default] = [
        linear("a"),
        linear("b"),
        linear("c"),
        linear("d"),
      ];
    }
  }
  test("modules called lora_A, weight, bias, and as the adapter, are kept apart in files", async () => {
    const make = (): Tricky => new Tricky();
    const model = make();
    const target = ["lora_A", "weight", "bias", "default"];
    const adapter = randomize(adapt(model, methods.lora({ rank: 2, target }), { name: "lora_A" }));
    const files = await collect(peftLoraFiles(adapter));
    const fresh = make();
    const loaded = await loadAdapterFiles(fresh, asFiles(files), { name: "weight" });
    for (const [path, parameter] of adapter.namedParameters())
      assert.deepEqual(await loaded.parameter(path).data(), await parameter.data());
  });
});

suite("settings of a config", () => {
  test("an order of target_modules, which is arbitrary in Python, makes no difference", async () => {
    const model = tinyLlama(device);
    const adapter = randomize(adapt(model, methods.lora({ rank: 2, target: ["q_proj", "v_proj"] })));
    const files = await collect(peftLoraFiles(adapter));
    const logits = await logitsOf(model);
    for (const target_modules of [
      ["q_proj", "v_proj"],
      ["v_proj", "q_proj"],
    ]) {
      const fresh = tinyLlama(device);
      await loadAdapterFiles(
        fresh,
        asFiles(withConfig(files, (c) => (c["target_modules"] = target_modules))),
      );
      assert.deepEqual(await logitsOf(fresh), logits);
    }
  });

  test("the scale is alpha / r, alpha / √r for rsLoRA, and patterns win over both", async () => {
    const model = tinyLlama(device);
    const adapter = adapt(
      model,
      methods.lora({ rank: 4, target: ["q_proj", "v_proj"], rankPattern: { v_proj: 2 } }),
    );
    const files = await collect(peftLoraFiles(adapter));
    const scales = async (fields: Record<string, unknown>): Promise<number[]> => {
      const contents = withConfig(files, (c) => Object.assign(c, fields));
      const { plan } = await loadAdapterFiles(tinyLlama(device), asFiles(contents));
      return plan.sites.slice(0, 2).map(({ scale }) => scale);
    };
    assert.deepEqual(await scales({ lora_alpha: 6 }), [6 / 4, 6 / 2]);
    assert.deepEqual(await scales({ lora_alpha: 6, use_rslora: true }), [6 / 2, 6 / Math.sqrt(2)]);
    assert.deepEqual(await scales({ lora_alpha: 6, alpha_pattern: { "model.layers.0.self_attn.q_proj": 1 } }), [1 / 4, 3]); // prettier-ignore
    assert.deepEqual(await scales({ lora_alpha: 6, alpha_pattern: { "^self_attn.q_proj": 1 } }), [6 / 4, 3]);
  });
});
