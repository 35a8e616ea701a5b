/** Adapters on newer architectures: which modules they find, and peft's adapters on the stacked weights of experts. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  encodeTensor,
  FormatError,
  gradOrNull,
  key,
  memoryFiles,
  bytesSource,
  normalArray,
  openSafetensors,
  reference,
  serialize,
} from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import {
  adapt,
  defineMethod,
  init,
  inspect,
  loadAdapterFiles,
  type LowRank,
  methods,
  nativeFiles,
  peftLoraFiles,
} from "../src/index.ts";
import { peftStackedFiles } from "../src/files/peft/save.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, IDS, logitsOf, tinyLlama } from "./support/tiny.ts";

const device = reference();
const MOE = { num_hidden_layers: 2, num_experts: 3, num_experts_per_tok: 2, intermediate_size: 5 };
const moe = (): Decoder => tinyLlama(device, { model_type: "olmoe", ...MOE });
function modulesOf(model: Decoder, target: "qkv" | "all-linear" | string[]): string[] {
  const adapter = adapt(model, methods.lora({ rank: 2, target }));
  const paths = inspect(adapter).modules.map(({ path }) => path);
  adapter.detach();
  return paths;
}

suite("targets of newer architectures", () => {
  const olmo2 = tinyLlama(device, { model_type: "olmo2" });
  const gemma2 = tinyLlama(device, { model_type: "gemma2", head_dim: 2 });
  const phi3 = tinyLlama(device, { model_type: "phi3" });

  test("queries, keys and values are one target, whether or not they are one linear", () => {
    const paths = [0, 1, 2].map((i) => `model.layers.${i}.self_attn.qkv`);
    for (const model of [olmo2, gemma2, moe()])
      assert.deepEqual(modulesOf(model, "qkv"), paths.slice(0, model.config.layers));
    assert.deepEqual(
      modulesOf(phi3, "qkv"),
      paths.map((path) => `${path}_proj`),
    );
  });

  test("all-linear means the experts too, and neither the router nor the output embedding", () => {
    const names = (model: Decoder): string[] =>
      modulesOf(model, "all-linear").filter((path) => path.includes("layers.0"));
    const at = (list: string): string[] => list.split(" ").map((name) => `model.layers.0.${name}`);
    assert.deepEqual(names(phi3), at("self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj"));
    const experts = [0, 1, 2].flatMap((e) =>
      ["gate", "up", "down"].map((name) => `mlp.experts.${e}.${name}_proj`),
    );
    const attention = ["q", "k", "v", "o"].map((name) => `self_attn.${name}_proj`);
    assert.deepEqual(names(moe()), at([...attention, ...experts].join(" ")));
  });

  test("gate and up are one target by the name gate_up", () => {
    const model = tinyLlama(device);
    assert.deepEqual(modulesOf(model, ["gate_up", "down_proj"]).slice(0, 2), [
      "model.layers.0.mlp.gate_up",
      "model.layers.0.mlp.down_proj",
    ]);
    assert.throws(() => modulesOf(phi3, ["gate_up"]), /gate_up/);
  });

  test("a factor tied over the experts of a layer is one parameter, whose gradient is the sum of theirs", async () => {
    const tie = ({ path }: { readonly path: string }): string => path.replace(/experts\.\d+/, "experts");
    const target = ["down_proj"];
    const shared = { name: "shared", rank: 2, target, lowRank: (low: LowRank) => low } as const;
    const A = { shape: ["rank", "in"], init: init.normal() } as const;
    const B = { shape: ["out", "rank"], init: init.zeros() } as const;
    const model = moe();
    const tied = randomize(adapt(model, defineMethod({ ...shared, factors: { A: { ...A, tie }, B } })));
    assert.deepEqual(
      tied.select({ factors: ["A"] }).map(({ name }) => name),
      [0, 1].map((i) => `model.layers.${i}.mlp.experts.0.down_proj.A`),
    );
    assert.equal(tied.aliases().get("model.layers.1.mlp.experts.2.down_proj.A"), "model.layers.1.mlp.experts.0.down_proj.A"); // prettier-ignore
    const alone = moe();
    const own = adapt(alone, defineMethod({ ...shared, factors: { A, B } }));
    for (const [path, parameter] of own.namedParameters()) parameter.set(await tied.parameter(path).data());
    assert.deepEqual(await logitsOf(model), await logitsOf(alone));
    const [sum] = gradOrNull(model.loss({ inputIds: IDS }), [tied.select({ factors: ["A"] })[0]!]);
    const parts = [0, 1, 2].map((e) => own.parameter(`model.layers.0.mlp.experts.${e}.down_proj.A`));
    const gradients = await Promise.all(
      gradOrNull(alone.loss({ inputIds: IDS }), parts).map((one) => one!.data()),
    );
    const expected = Array.from(gradients[0]!, (_, i) =>
      gradients.reduce((total, one) => total + one[i]!, 0),
    );
    assert.ok(distance(await sum!.data(), expected) < 1e-6);
    const fresh = moe();
    await loadAdapterFiles(fresh, asFiles(await collect(nativeFiles(tied))), { method: tied.method });
    assert.deepEqual(await logitsOf(fresh), await logitsOf(model));
  });

  test("adapters on experts are saved for peft module by module, and answer the same when loaded", async () => {
    const model = moe();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2, target: "all-linear" })));
    const files = await collect(peftLoraFiles(adapter));
    const wanted = await logitsOf(model);
    const fresh = moe();
    await loadAdapterFiles(fresh, asFiles(files));
    assert.deepEqual(await logitsOf(fresh), wanted);
  });
});

suite("peft's adapters on stacked weights of experts", () => {
  const [rank, experts, hidden, width] = [2, 3, 8, 5];
  const at = "base_model.model.model.layers";
  /** Shapes as peft has them: the down projection is wrapped around the other one. */
  const shapes: Record<string, number[]> = Object.fromEntries(
    [0, 1].flatMap((layer) => [
      [`${at}.${layer}.mlp.experts.base_layer.lora_A.weight`, [experts * rank, hidden]],
      [`${at}.${layer}.mlp.experts.base_layer.lora_B.weight`, [2 * width, rank * experts]],
      [`${at}.${layer}.mlp.experts.lora_A.weight`, [experts * rank, width]],
      [`${at}.${layer}.mlp.experts.lora_B.weight`, [hidden, rank * experts]],
    ]),
  );
  const values = new Map(
    Object.entries(shapes).map(([name, [rows, columns]]) => [
      name,
      normalArray(key(3).fold(name), rows! * columns!, 0, 0.4),
    ]),
  );

  async function adapterFiles(config: Record<string, unknown> = {}) {
    const tensors = [...values].map(([name, numbers]) => ({
      name,
      dtype: "F32" as const,
      shape: shapes[name]!,
      bytes: () => encodeTensor("f32", numbers),
    }));
    const raw = {
      peft_type: "LORA",
      r: rank,
      lora_alpha: 6,
      target_modules: [],
      target_parameters: ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
      ...config,
    };
    return memoryFiles(
      new Map<string, Uint8Array | string>([
        ["adapter_config.json", JSON.stringify(raw)],
        ["adapter_model.safetensors", await serialize(tensors)],
      ]),
    );
  }

  /** peft's formula: delta[e, o, i] = scale · Σ_r B[o, r · experts + e] A[e · rank + r, i]. */
  function delta(name: string, e: number, o: number, i: number): number {
    const [A, B] = ["A", "B"].map((factor) => values.get(`${name}lora_${factor}.weight`)!);
    const columns = shapes[`${name}lora_A.weight`]![1]!;
    let sum = 0;
    for (let r = 0; r < rank; r++)
      sum += B![o * rank * experts + r * experts + e]! * A![(e * rank + r) * columns + i]!;
    return 3 * sum;
  }

  test("change each expert's weights as peft's formula says", async () => {
    const expected = moe();
    for (const [path, linear] of expected.linears()) {
      const [, layer, e, which] = /layers\.(\d)\.mlp\.experts\.(\d)\.(gate|up|down)/.exec(path) ?? [];
      if (layer === undefined) continue;
      const name = `${at}.${layer}.mlp.experts.${which === "down" ? "" : "base_layer."}`;
      const old = await linear.weight.data();
      const first = which === "up" ? width : 0; // gate and up are the halves of one stacked matrix
      const columns = linear.inFeatures;
      linear.weight.set(
        Float32Array.from(
          old,
          (w, at) => w + delta(name, Number(e), first + Math.floor(at / columns), at % columns),
        ),
      );
    }
    const model = moe();
    const adapter = await loadAdapterFiles(model, await adapterFiles());
    assert.equal(inspect(adapter).modules.length, 2 * 3 * 2);
    const difference = distance(await logitsOf(model), await logitsOf(expected));
    assert.ok(difference < 2e-5, `${difference}`);
    assert.ok(distance(await logitsOf(model), await logitsOf(moe())) > 0.1);
  });

  test("are written as they were read, tensor by tensor", async () => {
    const adapter = await loadAdapterFiles(moe(), await adapterFiles());
    const files = await collect(peftStackedFiles(adapter));
    const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
    const { target_modules: modules, target_parameters: parameters, r, lora_alpha: alpha } = config;
    assert.deepEqual({ modules, parameters, r, alpha }, { modules: [], parameters: ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], r: 2, alpha: 6 }); // prettier-ignore
    const tensors = await openSafetensors(bytesSource(files.get("adapter_model.safetensors") as Uint8Array)); // prettier-ignore
    assert.deepEqual([...tensors.entries.keys()].sort(), Object.keys(shapes).sort());
    for (const [name, numbers] of values) {
      const { shape, bytes } = await tensors.read(name);
      assert.deepEqual([shape, bytes], [shapes[name], encodeTensor("f32", numbers)], name);
    }
  });

  test("hold a tied adapter, beside modules, and answer the same when loaded", async () => {
    const model = moe();
    const target = ["o_proj", "gate_up", "down_proj"];
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2, target })));
    const files = await collect(peftStackedFiles(adapter));
    const fresh = moe();
    await loadAdapterFiles(fresh, asFiles(files));
    assert.deepEqual(await logitsOf(fresh), await logitsOf(model));
  });

  test("are not written where gate and up differ, or some experts have none", () => {
    const refusal = (target: string[] | "all-linear", message: RegExp): void =>
      assert.throws(() => peftStackedFiles(adapt(moe(), methods.lora({ rank: 2, target }))), message);
    refusal("all-linear", /gate_proj and up_proj of .*experts\.0 each have an A of their own; declare/);
    refusal(["experts.1.down_proj"], /experts\.0\.down_proj is not adapted, and other experts/);
    refusal(["experts.0.gate_proj"], /experts\.0\.up_proj is not adapted/);
  });

  const refused: [what: string, config: Record<string, unknown>, message: RegExp][] = [
    [
      "a parameter that the model lacks",
      { target_parameters: ["mlp.experts.w1"] },
      /"target_parameters": found "mlp.experts.w1", which matches none/,
    ],
    ["dropout", { lora_dropout: 0.1 }, /"lora_dropout": found 0.1/],
    ["DoRA", { use_dora: true }, /"use_dora": found true/],
    [
      "ranks by pattern",
      { rank_pattern: { experts: 3 } },
      /"rank_pattern": found .*since target_parameters is given/,
    ],
  ];
  for (const [what, config, message] of refused)
    test(`${what} is refused by name`, async () => {
      await assert.rejects(loadAdapterFiles(moe(), await adapterFiles(config)), (error: Error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      });
    });
});
