import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import {
  bytesSource,
  decodeF32,
  type Device,
  encodeTensor,
  FormatError,
  openSafetensors,
  serialize,
  type Source,
} from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import {
  adapt,
  type Adapter,
  adaptersOf,
  type CommonOptions,
  loadAdapterFiles,
  type Method,
  methods,
  nativeFiles,
  peftLoraFiles,
  peftVeraFiles,
  tiedLora,
} from "../src/index.ts";
import { veraProjections } from "../src/files/torch-random.ts";
import { asFiles, collect, type Contents, randomize, withConfig } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const device: Device = await cpu();
after(() => device.close());
const TENSORS = "adapter_model.safetensors";

/** A model with a random adapter, its outputs, and a second model with the same weights and no adapter. */
async function adapted(
  method: Method,
  make: (device: Device) => Decoder = tinyLlama,
): Promise<{ adapter: Adapter; logits: number[]; fresh: Decoder }> {
  const model = make(device);
  const adapter = randomize(await adapt(model, method), 5, 0.3);
  return { adapter, logits: await logitsOf(model), fresh: make(device) };
}

const names = async (files: Contents): Promise<string[]> =>
  [...(await openSafetensors(bytesSource(files.get(TENSORS) as Uint8Array))).entries.keys()].sort();
const configOf = (files: Contents): Record<string, unknown> =>
  JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;

suite("written as peft's LoRA and read back, the answers are the same bit for bit", () => {
  const qv = { rank: 3, alpha: 5, target: ["q_proj", "v_proj"] };
  const cases: [string, Method, ((device: Device) => Decoder)?][] = [
    ["LoRA", methods.lora(qv)],
    ["TL6 with a scale of a power of two", methods.tl6({ rank: 2, alpha: 4 })],
    ["VB-LoRA", methods.vbLora({ rank: 2, vectors: 8, length: 4 })],
    ["rsLoRA", methods.rslora(qv)],
    ["a fused group", methods.lora({ rank: 2 })],
    ["TL6", methods.tl6({ rank: 2, alpha: 3 })],
    ["TL1", methods.tl1({ rank: 2 })],
    ["VeRA of different sizes", methods.vera({ rank: 3, target: "all-linear" })],
    ["ShareLoRA", methods.shareLoraA({ rank: 2 })],
    ["LoRA-XS", methods.loraXs({ rank: 2 })],
    ["DoRA", methods.dora({ rank: 2, alpha: 4 })],
    ["DoRA on GPT-2", methods.dora({ rank: 2, alpha: 4, target: ["c_attn", "mlp.c_proj"] }), tinyGpt2],
    [
      "patterns",
      methods.lora({ ...qv, rankPattern: { "0\\.self_attn\\..*": 2 }, alphaPattern: { v_proj: 9 } }),
    ],
    ["an embedding and the output embedding", methods.lora({ rank: 2, target: ["embed_tokens", "lm_head"] })],
    ["GPT-2 and its bias", methods.tl6({ rank: 2, bias: "adapted" }), tinyGpt2],
    [
      "all biases and whole modules",
      methods.lora({ rank: 2, bias: "all", modulesToSave: ["ln_f", "wte"] }),
      tinyGpt2,
    ],
    ["DoRA on an embedding", methods.dora({ rank: 2, target: ["embed_tokens", "q_proj"] })],
    ["LoRA with a bias on B", methods.loraBias({ rank: 2, alpha: 6 })],
  ];
  for (const [name, method, make] of cases) {
    test(name, async () => {
      const { adapter, logits, fresh } = await adapted(method, make);
      const before = await logitsOf(fresh);
      const files = await collect(peftLoraFiles(adapter));
      await loadAdapterFiles(fresh, asFiles(files));
      const again = await logitsOf(fresh);
      assert.ok(distance(logits, before) > 1e-2, "the adapter does something");
      assert.deepEqual(again, logits, `largest difference ${distance(again, logits)}`);
    });
  }
});

suite("written as peft's VeRA and read back, the answers are the same bit for bit", () => {
  const cases: [string, Method, ((device: Device) => Decoder)?][] = [
    ["VeRA", methods.vera({ rank: 3, target: ["q_proj", "v_proj"] })],
    ["TL6 on fused queries, keys and values", methods.tl6({ rank: 2, alpha: 3 })],
    ["TL6 on GPT-2", methods.tl6({ rank: 2, alpha: 3 }), tinyGpt2],
    ["TL1", methods.tl1({ rank: 2 })],
    ["TL5 with a scale", methods.tl5({ rank: 2, alpha: 5 })],
    ["a pair for each type of module", methods.tl6({ rank: 2, target: ["q_proj", "k_proj", "down_proj"] })],
    ["blocks of two layers", tiedLora({ trained: ["v", "B"], rank: 2, tied: { blocks: 2 } })],
    ["with biases", methods.tl3({ rank: 2, bias: "all" }), tinyGpt2],
  ];
  for (const [name, method, make] of cases) {
    test(name, async () => {
      const { adapter, logits, fresh } = await adapted(method, make);
      const files = await collect(peftVeraFiles(adapter));
      await loadAdapterFiles(fresh, asFiles(files));
      assert.deepEqual(await logitsOf(fresh), logits);
    });
  }

  test("the file holds one pair, whatever the number of layers", async () => {
    const { adapter } = await adapted(methods.tl6({ rank: 2 }));
    const all = await names(await collect(peftVeraFiles(adapter)));
    assert.deepEqual(
      all.filter((name) => name.startsWith("base_model.vera_")),
      ["base_model.vera_A", "base_model.vera_B"],
    );
    assert.equal(all.length, 2 + 3 * 3 * 2);
  });

  test("several pairs in one become several again, tied as they were, and go through the native format", async () => {
    const { adapter, logits, fresh } = await adapted(
      methods.tl6({ rank: 2, target: ["q_proj", "k_proj", "o_proj"] }),
    );
    const loaded = await loadAdapterFiles(fresh, asFiles(await collect(peftVeraFiles(adapter))));
    const parts = (one: Adapter): number[] =>
      one.plan.factors
        .filter(({ factor }) => factor === "A" || factor === "B")
        .map(({ aliases }) => aliases.length);
    assert.deepEqual(parts(loaded), [3, 3, 3, 3, 3, 3]);
    assert.deepEqual(parts(adapter), parts(loaded));
    const again = tinyLlama(device);
    await loadAdapterFiles(again, asFiles(await collect(nativeFiles(loaded))));
    assert.deepEqual(await logitsOf(again), logits);
  });

  test("metadata that does not fit the tensors is refused, and without it the file is plain VeRA", async () => {
    const { adapter, logits } = await adapted(methods.tl6({ rank: 2 }));
    const contents = await collect(peftVeraFiles(adapter));
    const file = await openSafetensors(bytesSource(contents.get(TENSORS) as Uint8Array));
    const rewritten = async (
      blocks: string | null,
      change: (name: string, values: Float32Array) => void = () => {},
    ): Promise<Contents> => {
      // prettier-ignore
      const tensors = [...file.entries].map(([name, { shape }]) => ({
        name,
        dtype: "F32" as const,
        shape,
        bytes: async () => {
          const values = decodeF32(await file.read(name), "file", name);
          change(name, values);
          return encodeTensor("f32", values);
        },
      }));
      const bytes = await serialize(tensors, blocks === null ? [] : [["tiedlora.blocks", blocks]]);
      return new Map([...contents, [TENSORS, bytes]]);
    };
    const plain = tinyLlama(device);
    await loadAdapterFiles(plain, asFiles(await rewritten(null)));
    assert.ok(distance(await logitsOf(plain), logits) < 2e-5);
    const refused = async (wrong: Contents, message: RegExp): Promise<void> =>
      assert.rejects(loadAdapterFiles(tinyLlama(device), asFiles(wrong)), (error) => {
        assert.ok(error instanceof FormatError);
        assert.match(error.message, message);
        return true;
      });
    await refused(await rewritten('[{"a":0,"rank":6,"modules":["x"]}]'), /tiedlora\.blocks.*remove it/);
    await refused(await rewritten('{"a":0}'), /found .*"?a"?.*; expected parts of ranks/);
    const blocks = file.metadata.get("tiedlora.blocks")!;
    const trainedOn = await rewritten(
      blocks,
      (name, values) => name.endsWith("vera_lambda_d") && values.fill(1),
    );
    await refused(trainedOn, /vera_lambda_d.*values outside of the module's own part/);
    const open = async (name: string): Promise<Source | null> => {
      const source = await asFiles(trainedOn).open(name);
      return source && { ...source, name: `folder/${name}` };
    };
    const located = loadAdapterFiles(tinyLlama(device), { name: "folder", open });
    await assert.rejects(
      located,
      /^FormatError: folder\/adapter_model\.safetensors: "[\w.]+": found values outside/,
    );
  });

  test("what VeRA cannot hold is refused, and the error says what can", async () => {
    const { adapter } = await adapted(methods.dora({ rank: 2 }));
    assert.throws(() => peftVeraFiles(adapter), {
      message: /dora is not of the Tied-LoRA family.*peft-lora/,
    });
  });
});

suite("a config for peft", () => {
  test("has names where they mean exactly the modules, else whole paths", async () => {
    const config = async (target: CommonOptions["target"]): Promise<unknown> =>
      configOf(
        await collect(peftLoraFiles((await adapted(methods.lora({ rank: 2, target: target! }))).adapter)),
      )["target_modules"];
    assert.deepEqual(await config("qkv"), ["q_proj", "k_proj", "v_proj"]);
    assert.deepEqual(await config({ modules: ["q_proj"], layers: [1] }), ["model.layers.1.self_attn.q_proj"]);
  });

  test("says what peft has to know, in sorted keys", async () => {
    const { adapter } = await adapted(
      methods.rslora({
        rank: 2,
        alpha: 4,
        modulesToSave: ["ln_f"],
        bias: "adapted",
        rankPattern: { "h\\.0\\..*": 3 },
      }),
      tinyGpt2,
    );
    const config = configOf(await collect(peftLoraFiles(adapter, { base_model: "tiny" })));
    assert.deepEqual(Object.keys(config), Object.keys(config).sort());
    const {
      peft_type,
      r,
      lora_alpha,
      use_rslora,
      fan_in_fan_out,
      bias,
      modules_to_save,
      rank_pattern,
      target_modules,
    } = config;
    assert.deepEqual(
      {
        peft_type,
        r,
        lora_alpha,
        use_rslora,
        fan_in_fan_out,
        bias,
        modules_to_save,
        rank_pattern,
        target_modules,
      },
      {
        peft_type: "LORA",
        r: 2,
        lora_alpha: 4,
        use_rslora: true,
        fan_in_fan_out: true,
        bias: "lora_only",
        modules_to_save: ["transformer.ln_f"],
        rank_pattern: { "transformer.h.0.attn.c_attn": 3 },
        target_modules: ["c_attn"],
      },
    );
    assert.equal(config["base_model_name_or_path"], "tiny");
    assert.equal(config["inference_mode"], true);
  });

  test("tensors have peft's names", async () => {
    const { adapter } = await adapted(
      methods.lora({
        rank: 2,
        modulesToSave: ["ln_f"],
        bias: "adapted",
        target: { modules: "qkv", layers: [1] },
      }),
      tinyGpt2,
    );
    assert.deepEqual(await names(await collect(peftLoraFiles(adapter))), [
      "base_model.model.transformer.h.1.attn.c_attn.base_layer.bias",
      "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight",
      "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight",
      "base_model.model.transformer.ln_f.bias",
      "base_model.model.transformer.ln_f.weight",
    ]);
  });
});

suite("reading peft's files", () => {
  /** The files of a LoRA adapter with every kind of tensor. */
  async function files(method: Method = methods.lora({ rank: 2 })): Promise<Contents> {
    return collect(peftLoraFiles((await adapted(method)).adapter));
  }
  async function edited(
    contents: Contents,
    edit: (tensors: Map<string, { shape: readonly number[]; values: Float32Array }>) => void,
  ): Promise<Contents> {
    const file = await openSafetensors(bytesSource(contents.get(TENSORS) as Uint8Array));
    const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
    for (const [name, { shape }] of file.entries) {
      tensors.set(name, { shape, values: decodeF32(await file.read(name), "file", name) });
    }
    edit(tensors);
    const bytes = await serialize(
      [...tensors].map(([name, { shape, values }]) => ({
        name,
        dtype: "F32" as const,
        shape,
        bytes: () => encodeTensor("f32", values),
      })),
    );
    return new Map([...contents, [TENSORS, bytes]]);
  }
  async function refuses(contents: Contents, message: RegExp, options = {}): Promise<void> {
    const model = tinyLlama(device);
    await assert.rejects(loadAdapterFiles(model, asFiles(contents), options), (error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.ok(
      model.linears().every(([, linear]) => linear.adapter === null),
      "the model is as it was",
    );
  }
  const first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

  test("a missing tensor is an error, unless it is allowed", async () => {
    const missing = await edited(await files(), (tensors) => tensors.delete(first));
    await refuses(missing, /1 missing: .*q_proj\.lora_A\.weight.*strict: false/);
    await loadAdapterFiles(tinyLlama(device), asFiles(missing), { strict: false });
  });

  test("an unexpected tensor is an error, unless it is allowed", async () => {
    const extra = await edited(await files(), (tensors) =>
      tensors.set("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", tensors.get(first)!),
    );
    await refuses(extra, /1 unexpected: .*up_proj/);
    await loadAdapterFiles(tinyLlama(device), asFiles(extra), { strict: false });
  });

  test("another shape is always an error", async () => {
    const wrong = await edited(await files(), (tensors) =>
      tensors.set(first, { shape: [2, 4], values: new Float32Array(8) }),
    );
    await refuses(wrong, /q_proj\.lora_A.*shape \[2, 4\]; expected \[2, 8\]/, { strict: false });
  });

  test("a file of which nothing fits is an error even then", async () => {
    const other = await edited(await files(), (tensors) => {
      for (const [name, tensor] of new Map(tensors)) {
        tensors.delete(name);
        tensors.set(`x.${name}`, tensor);
      }
    });
    await refuses(other, /18 missing/, { strict: false });
  });

  test("names with the adapter's name inside are understood, two adapters in one file are not", async () => {
    const plain = await files();
    const model = tinyLlama(device);
    await loadAdapterFiles(model, asFiles(plain));
    const raw = await edited(plain, (tensors) => {
      for (const [name, tensor] of new Map(tensors)) {
        tensors.delete(name);
        tensors.set(name.replace(".weight", ".default.weight"), tensor);
      }
    });
    const again = tinyLlama(device);
    await loadAdapterFiles(again, asFiles(raw));
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
    const two = await edited(plain, (tensors) =>
      tensors.set(first.replace(".weight", ".other.weight"), tensors.get(first)!),
    );
    await refuses(two, /as well; expected the tensors of one adapter/);
  });

  test("a config of the two required fields means rank 8 and alpha 8", async () => {
    const contents = withConfig(await files(methods.lora({ rank: 8 })), (config) => {
      for (const key of Object.keys(config))
        if (!["peft_type", "target_modules"].includes(key)) delete config[key];
    });
    const { method } = await loadAdapterFiles(tinyLlama(device), asFiles(contents));
    assert.deepEqual([method.rank, method.alpha, method.scaling], [8, 8, "rank"]);
  });

  test("unknown keys are let pass, variants that compute something else are not", async () => {
    const contents = await files();
    await loadAdapterFiles(
      tinyLlama(device),
      asFiles(withConfig(contents, (c) => (c["some_new_field"] = 1))),
    );
    for (const [field, value] of Object.entries({
      init_lora_weights: "pissa",
      layer_replication: [[0, 2]],
      use_qalora: true,
      trainable_token_indices: { lm_head: [1] },
    }))
      await refuses(
        withConfig(contents, (c) => (c[field] = value)),
        new RegExp(`${field}.*merge the adapter`),
      );
    await refuses(
      withConfig(contents, (c) => (c["target_parameters"] = ["experts.up"])),
      /"target_parameters": found "experts.up", which matches none/,
    );
  });

  test("values of a wrong type or range are named", async () => {
    const contents = await files();
    const wrong: [string, unknown, RegExp][] = [
      ["r", 0, /"r": found 0; expected an integer of at least 1/],
      ["lora_alpha", "16", /lora_alpha/],
      ["bias", "some", /"bias": found "some"/],
      ["target_modules", [3], /target_modules.*a list of names/],
      ["target_modules", ["query"], /target_modules.*\["query"\], which matches none/],
      ["modules_to_save", ["nothing"], /modules_to_save.*"nothing", which matches none/],
      ["rank_pattern", { q_proj: "x" }, /rank_pattern/],
      ["layers_to_transform", [-1], /layers_to_transform/],
      ["layers_pattern", "layers", /layers_pattern.*layers_to_transform is not given/],
    ];
    for (const [field, value, message] of wrong)
      await refuses(
        withConfig(contents, (c) => (c[field] = value)),
        message,
      );
  });

  test("a pattern from a config cannot hang, and layers do not go with one", async () => {
    const contents = await files();
    const started = performance.now();
    await refuses(
      withConfig(contents, (c) => (c["target_modules"] = "(.*)*(.*)*(.*)*X")),
      /which matches none/,
    );
    assert.ok(performance.now() - started < 5_000, "a backtracking engine would not have come back");
    await refuses(
      withConfig(contents, (c) => {
        c["target_modules"] = ".*q_proj";
        c["layers_to_transform"] = [0];
      }),
      /layers_to_transform.*target_modules is not a list/,
    );
    await refuses(
      withConfig(contents, (c) => (c["target_modules"] = "(?<=x)y")),
      /target_modules.*not supported/,
    );
  });

  test("a rank that the file does not hold is refused before anything is allocated", async () => {
    const contents = await files();
    await refuses(
      withConfig(contents, (c) => (c["r"] = 2 ** 40)),
      /found \d+ numbers; expected \d{13,}, as config and model say/,
    );
    const vera = await collect(peftVeraFiles((await adapted(methods.vera({ rank: 2 }))).adapter));
    await refuses(
      withConfig(vera, (c) => Object.assign(c, { r: 2 ** 40, save_projection: false })),
      /"r": found 1099511627776; expected at most 1024/,
    );
  });

  test("embeddings that peft would keep tied are refused", async () => {
    const embedding = await files(methods.lora({ rank: 2, target: ["embed_tokens"] }));
    await refuses(
      withConfig(embedding, (c) => (c["ensure_weight_tying"] = true)),
      /ensure_weight_tying.*found true; expected false/,
    );
    const other = withConfig(await files(), (c) => (c["ensure_weight_tying"] = true));
    await loadAdapterFiles(tinyLlama(device), asFiles(other));
  });

  test("projections that the file does not hold are drawn from the key", async () => {
    const method = methods.vera({ rank: 3, target: ["q_proj", "v_proj", "down_proj"] });
    const { adapter, fresh } = await adapted(method);
    const drawn = veraProjections(42, 3, 12, 8);
    adapter.select({ factors: ["A"] })[0]!.set(drawn.A);
    adapter.select({ factors: ["B"] })[0]!.set(drawn.B);
    const contents = await edited(await collect(peftVeraFiles(adapter)), (tensors) => {
      for (const name of ["base_model.vera_A", "base_model.vera_B"]) tensors.delete(name);
    });
    await refuses(contents, /vera_A/);
    await loadAdapterFiles(
      fresh,
      asFiles(
        withConfig(contents, (c) => Object.assign(c, { save_projection: false, projection_prng_key: 42 })),
      ),
    );
    assert.deepEqual(await logitsOf(fresh), await logitsOf(adapter.model as Decoder));
  });

  test("a pickle is not read, and the error says how to convert it", async () => {
    const contents = await files();
    contents.delete(TENSORS);
    contents.set("adapter_model.bin", new Uint8Array(8));
    await refuses(contents, /a Python pickle.*save_pretrained/);
  });

  test("an embedding that the file repeats must be the model's", async () => {
    const { adapter } = await adapted(methods.lora({ rank: 2, target: ["embed_tokens"] }));
    const table = await adapter.model.parameters()[0]!.data();
    const contents = await collect(peftLoraFiles(adapter));
    const repeat = (change: number): Promise<Contents> =>
      edited(contents, (tensors) => {
        const values = Float32Array.from(table, (value, i) => value + (i === 3 ? change : 0));
        tensors.set("base_model.model.model.embed_tokens.base_layer.weight", { shape: [17, 8], values });
      });
    await loadAdapterFiles(tinyLlama(device), asFiles(await repeat(0)));
    await refuses(await repeat(1), /an embedding that differs from the model's/);
  });

  test("biases of saved modules, which peft writes three times with bias all, are read once", async () => {
    const method = methods.lora({ rank: 2, bias: "all", modulesToSave: ["ln_f"] });
    const { adapter, logits } = await adapted(method, tinyGpt2);
    const at = "base_model.model.transformer.ln_f";
    const contents = await edited(await collect(peftLoraFiles(adapter)), (tensors) => {
      const bias = tensors.get(`${at}.bias`)!;
      tensors.set(`${at}.modules_to_save.bias`, bias);
      tensors.set(`${at}.original_module.bias`, { ...bias, values: new Float32Array(8) });
    });
    const fresh = tinyGpt2(device);
    await loadAdapterFiles(fresh, asFiles(contents));
    assert.deepEqual(await logitsOf(fresh), logits);
    const other = await edited(contents, (tensors) =>
      tensors.set(`${at}.original_module.weight`, { shape: [8], values: new Float32Array(8) }),
    );
    await assert.rejects(loadAdapterFiles(tinyGpt2(device), asFiles(other)), { message: /1 unexpected/ });
  });

  test("an output embedding that is saved stands in for a tied one, and the input embedding stays", async () => {
    const { adapter, logits, fresh } = await adapted(
      methods.lora({ rank: 2, modulesToSave: ["lm_head"] }),
      tinyGpt2,
    );
    const embedding = await fresh.stateDict().get("transformer.wte.weight")!.data();
    await loadAdapterFiles(fresh, asFiles(await collect(peftLoraFiles(adapter))));
    assert.deepEqual(await logitsOf(fresh), logits);
    assert.deepEqual(await fresh.stateDict().get("transformer.wte.weight")!.data(), embedding);
    assert.equal(fresh.tied, false);
    adaptersOf(fresh).unload();
    assert.equal(fresh.tied, true);
  });

  test("loaded frozen on request, else as trained", async () => {
    const contents = await files();
    const count = async (trainable?: boolean): Promise<number> => {
      const options = trainable === undefined ? {} : { trainable };
      return (await loadAdapterFiles(tinyLlama(device), asFiles(contents), options)).count().trainable;
    };
    assert.equal(await count(false), 0);
    assert.ok((await count()) > 0);
  });

  test("a VeRA file becomes a tied adapter whose A and B can be trained on", async () => {
    const { adapter, fresh } = await adapted(methods.tl6({ rank: 2 }), tinyGpt2);
    const loaded = await loadAdapterFiles(fresh, asFiles(await collect(peftVeraFiles(adapter))));
    assert.deepEqual(
      loaded.trainableParameters().map(({ name }) => name.split(".").at(-1)),
      ["v", "u", "v", "u", "v", "u"],
    );
    loaded.unfreeze({ factors: ["A", "B"] });
    assert.equal(loaded.count().trainable, adapter.count().trainable);
  });
});
