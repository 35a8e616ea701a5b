import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, FormatError, key, memoryFiles, normalArray, openSafetensors } from "@tiedlora/core";
import {
  adapt,
  type Adapter,
  defineMethod,
  init,
  loadAdapterFiles,
  methods,
  nativeFiles,
  tiedLora,
  type Method,
} from "../src/index.ts";
import { logitsOf, tinyLlama } from "./support/tiny.ts";

async function collect(adapter: Adapter): Promise<Map<string, Uint8Array | string>> {
  const files = new Map<string, Uint8Array | string>();
  for (const [name, content] of nativeFiles(adapter, { base_model: "tiny", seed: "5" })) {
    if (typeof content === "string" || content instanceof Uint8Array) {
      files.set(name, content);
    } else {
      const chunks: Uint8Array[] = [];
      for await (const chunk of content) chunks.push(chunk);
      files.set(name, Buffer.concat(chunks));
    }
  }
  return files;
}

async function saved(
  method: Method,
): Promise<{ files: Map<string, Uint8Array | string>; logits: number[]; adapter: Adapter }> {
  const model = tinyLlama();
  const adapter = await adapt(model, method);
  for (const [path, parameter] of adapter.stateDict())
    parameter.set(normalArray(key(5).fold(path), parameter.size, 0, 0.5));
  return { files: await collect(adapter), logits: await logitsOf(model), adapter };
}

const load = (files: ReadonlyMap<string, Uint8Array | string>, options = {}): Promise<Adapter> =>
  loadAdapterFiles(tinyLlama(), memoryFiles(files, "adapter"), options);

suite("the native format", () => {
  test("gives back every answer bit for bit, with everything tied again", async () => {
    for (const method of [
      methods.tl6({ rank: 2, alpha: 3 }),
      methods.tl1({ rank: 3 }),
      methods.vera({ rank: 2, target: ["q_proj", "v_proj", "down_proj"] }),
      methods.lora({ rank: 2, target: /.*\.(o|gate)_proj/ }),
      tiedLora({ trained: ["v", "A"], rank: 2, tied: { blocks: 2 }, scaling: "sqrt-rank", alpha: 5 }),
      tiedLora({ trained: ["B"], rank: 2, keep: ["u"], tied: { A: "all" } }),
    ]) {
      const { files, logits, adapter } = await saved(method);
      const model = tinyLlama();
      const loaded = await loadAdapterFiles(model, memoryFiles(files, "adapter"));
      assert.deepEqual(await logitsOf(model), logits, method.name);
      assert.deepEqual(loaded.aliases(), adapter.aliases());
      assert.deepEqual([loaded.method.name, loaded.method.rank], [method.name, method.rank]);
    }
  });

  test("stores a tied factor once, with its other places and where it comes from in the metadata", async () => {
    const { files } = await saved(methods.tl6({ rank: 2 }));
    const file = await openSafetensors(bytesSource(files.get("adapter_model.safetensors") as Uint8Array));
    const names = [...file.entries.keys()].sort();
    assert.equal(names.filter((name) => name.endsWith(".A")).length, 1);
    assert.equal(names.length, 2 + 3 + 3);
    const aliases = JSON.parse(file.metadata.get("tiedlora.aliases")!) as Record<string, string>;
    assert.equal(aliases["model.layers.2.self_attn.qkv.B"], "model.layers.0.self_attn.qkv.B");
    assert.deepEqual(JSON.parse(file.metadata.get("tiedlora.provenance")!), {
      base_model: "tiny",
      seed: "5",
    });
    assert.equal(file.metadata.get("format"), "pt");
    const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
    assert.equal(config["peft_type"], "TIED_LORA");
  });

  test("remembers what was trained, and loads frozen if asked", async () => {
    const { files } = await saved(methods.tl3({ rank: 2 }));
    const trained = (adapter: Adapter): string[] =>
      adapter.trainableParameters().map(({ name }) => name.split(".").at(-1)!);
    assert.deepEqual(trained(await load(files)).sort(), ["B", "u", "u", "u"]);
    assert.deepEqual(trained(await load(files, { trainable: false })), []);
  });

  test("needs the declaration of a method that is not in the library", async () => {
    const method = defineMethod({
      name: "mine",
      rank: 2,
      factors: {
        A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
        B: { shape: ["out", "rank"], init: init.zeros() },
      },
      lowRank: ({ A, B }) => ({ A, B }),
    });
    const { files, logits } = await saved(method);
    await assert.rejects(load(files), { message: /the method "mine".*Load it with \{ method \}/ });
    const model = tinyLlama();
    await loadAdapterFiles(model, memoryFiles(files, "adapter"), { method });
    assert.deepEqual(await logitsOf(model), logits);
  });
});

suite("loading refuses, and leaves the model as it was,", () => {
  async function refuses(
    change: (files: Map<string, Uint8Array | string>) => void,
    message: RegExp,
    options = {},
  ): Promise<void> {
    const { files } = await saved(methods.tl6({ rank: 2 }));
    change(files);
    const model = tinyLlama();
    await assert.rejects(loadAdapterFiles(model, memoryFiles(files, "adapter"), options), (error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.ok(model.linears().every(([, linear]) => linear.adapter === null));
    assert.ok(model.parameters().every(({ requiresGrad }) => requiresGrad));
  }
  const editConfig =
    (edit: (config: Record<string, unknown>) => void) => (files: Map<string, Uint8Array | string>) => {
      const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
      edit(config);
      files.set("adapter_config.json", JSON.stringify(config));
    };

  test("a directory without one of the files", async () => {
    await refuses((files) => files.delete("adapter_config.json"), /no adapter_config\.json/);
    await refuses((files) => files.delete("adapter_model.safetensors"), /no adapter_model\.safetensors/);
  });

  test("a type it does not know", () =>
    refuses(
      editConfig((config) => (config["peft_type"] = "BONE")),
      /peft_type.*"BONE".*TIED_LORA/,
    ));

  test("a truncated file", () =>
    refuses((files) => {
      const bytes = files.get("adapter_model.safetensors") as Uint8Array;
      files.set("adapter_model.safetensors", bytes.subarray(0, bytes.length - 4));
    }, /data_offsets|bytes/));

  test("tensors that are missing, unexpected or of another shape", async () => {
    await refuses(() => undefined, /0 tensors missing|3 tensors missing/, {
      method: methods.tl5({ rank: 2 }),
    });
    await refuses(() => undefined, /shape \[8?2?,?.*\]; expected \[/, { method: methods.tl6({ rank: 3 }) });
  });

  test("what was tied and would not be tied again", () =>
    refuses(() => undefined, /missing|tied to/, { method: methods.tl6({ rank: 2, tied: false }) }));

  test("a rank that the file does not hold, before anything is allocated", () =>
    refuses(
      editConfig((config) => {
        const recipe = config["recipe"] as { options: Record<string, unknown> };
        recipe.options["rank"] = 2 ** 40;
      }),
      /found \d+ numbers; expected \d{13,}/,
    ));

  test("a pattern that would take for ever in a backtracking engine, at once", async () => {
    const { files } = await saved(methods.tl6({ rank: 2 }));
    editConfig((config) => {
      const recipe = config["recipe"] as { options: Record<string, unknown> };
      recipe.options["target"] = { regex: "(.*)*(.*)*(.*)*X", flags: "" };
    })(files);
    const started = performance.now();
    await assert.rejects(load(files), { message: /matches no linear module/ });
    assert.ok(performance.now() - started < 5_000);
  });

  test("options that make no sense", () =>
    refuses(
      editConfig((config) => (config["recipe"] = { method: "tied-lora", options: { trained: ["W"] } })),
      /recipe.*W given/,
    ));
});
