/** Rows of the input embedding that are trained beside an adapter's own target, and peft's LoRA files with `trainable_token_indices`. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, decodeF32, openSafetensors, writeSafetensors } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import {
  adapt,
  type Adapter,
  adapterFiles,
  adapterOptimizer,
  adaptersOf,
  loadAdapterFiles,
  mergedModelFiles,
  methods,
  type PlainMethod,
} from "../src/index.ts";
import { asFiles, collect, type Contents, randomize, withConfig } from "./support/files.ts";
import { distance, logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const TOKENS = [5, 14, 2];
const ROWS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
const target = ["q_proj", "down_proj"];
const lora = (): PlainMethod => methods.lora({ rank: 2, alpha: 3, target, trainedTokens: TOKENS });

const tensorsOf = async (files: Contents): Promise<Map<string, Float32Array>> => {
  const bytes = files.get("adapter_model.safetensors") as Uint8Array;
  const file = await openSafetensors(bytesSource(bytes, "tokens"));
  const values = new Map<string, Float32Array>();
  for (const name of file.entries.keys()) values.set(name, decodeF32(await file.read(name), "tokens", name));
  return values;
};

/** The files with one tensor under another name. */
async function renamed(files: Contents, from: string, to: string): Promise<Contents> {
  const file = await openSafetensors(bytesSource(files.get("adapter_model.safetensors") as Uint8Array, "old")); // prettier-ignore
  const all = await Promise.all([...file.entries.keys()].map(async (name) => [name, await file.read(name)] as const)); // prettier-ignore
  const written = writeSafetensors(all.map(([name, { dtype, shape, bytes }]) => ({ name: name === from ? to : name, dtype, shape, bytes: () => Promise.resolve(bytes) })), []); // prettier-ignore
  return new Map([...files, ...(await collect([["adapter_model.safetensors", written]]))]);
}

const adapted = (model: Decoder): Adapter => randomize(adapt(model, lora()), 4, 0.5);

suite("LoRA with trained tokens", () => {
  test("is written as peft writes it: the new rows, beside the pairs of the targets", async () => {
    const model = tinyLlama();
    const adapter = adapted(model);
    const files = await collect(adapterFiles(adapter, "peft-lora"));
    const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
    assert.deepEqual(config["trainable_token_indices"], TOKENS);
    assert.deepEqual(new Set(config["target_modules"] as string[]), new Set(target));
    const tensors = await tensorsOf(files);
    assert.equal(tensors.size, 3 * 2 * 2 + 1);
    const [old, added] = [await model.stateDict().get("model.embed_tokens.weight")!.data(), await adapter.parameter("model.embed_tokens.tokens").data()]; // prettier-ignore
    const rows = TOKENS.flatMap((id, k) => Array.from({ length: 8 }, (_, i) => Math.fround(old[8 * id + i]! + added[3 * i + k]!))); // prettier-ignore
    assert.deepEqual([...tensors.get(ROWS)!], rows);
    // as if these rows were the embedding's own, and LoRA alone beside them
    const plain = tinyLlama();
    const table = Float32Array.from(old);
    TOKENS.forEach((id, k) => table.set(rows.slice(8 * k, 8 * k + 8), 8 * id));
    plain.stateDict().get("model.embed_tokens.weight")!.set(table);
    const alone = withConfig(files, (one) => delete one["trainable_token_indices"]);
    await loadAdapterFiles(plain, asFiles(alone), { strict: false });
    assert.ok(distance(await logitsOf(plain), await logitsOf(model)) < 2e-6);
  });

  test("comes back from each form that peft has for it, with equal logits and files", async () => {
    const model = tinyLlama();
    const files = await collect(adapterFiles(adapted(model), "peft-lora"));
    const logits = await logitsOf(model);
    const named = withConfig(files, (one) => (one["trainable_token_indices"] = { embed_tokens: TOKENS }));
    const raw = await renamed(files, ROWS, `${ROWS}.default`);
    for (const contents of [files, named, raw]) {
      const again = tinyLlama();
      const loaded = await loadAdapterFiles(again, asFiles(contents));
      assert.ok(distance(await logitsOf(again), logits) < 2e-6);
      const back = await tensorsOf(await collect(adapterFiles(loaded, "peft-lora")));
      for (const [name, values] of await tensorsOf(files))
        assert.ok(distance(back.get(name)!, values) < 1e-6, name);
    }
  });

  test("is in native files and merged weights too, for other methods as well, and trains those rows alone", async () => {
    for (const method of [lora(), methods.tl6({ rank: 2, trainedTokens: TOKENS }), methods.ia3({ target, trainedTokens: TOKENS })]) {
      const model = tinyLlama();
      const before = await logitsOf(model);
      const adapter = adapt(model, method);
      assert.deepEqual(await logitsOf(model), before);
      const optimizer = adapterOptimizer(adapter, { steps: 2, lr: 0.1, rates: { tokens: 0.5 } });
      optimizer.step(lossOf(model));
      const rows = [...(await adapter.parameter("model.embed_tokens.tokens").data())];
      assert.ok(rows.filter((x) => x !== 0).length >= 16, rows.join()); // of the tokens in the batch: 5, 14 and 2
      randomize(adapter, 3, 0.4);
      const logits = await logitsOf(model);
      const again = tinyLlama();
      await loadAdapterFiles(again, asFiles(await collect(adapterFiles(adapter))));
      assert.deepEqual(await logitsOf(again), logits);
      assert.ok((await collect(mergedModelFiles(model))).size > 0);
      await adaptersOf(model).merge();
      assert.ok(distance(await logitsOf(model), logits) < 5e-6);
      adaptersOf(model).unload();
      assert.deepEqual(await logitsOf(model), before);
    }
  }); // prettier-ignore

  test("is refused where peft means something else, or nothing has a place for it", async () => {
    const adapter = adapted(tinyLlama());
    const files = await collect(adapterFiles(adapter, "peft-lora"));
    const head = withConfig(files, (one) => (one["trainable_token_indices"] = { lm_head: TOKENS }));
    await assert.rejects(loadAdapterFiles(tinyLlama(), asFiles(head)), /trainable_token_indices": found tokens of "lm_head"; expected tokens of the input embedding/); // prettier-ignore
    for (const wrong of [7, { embed_tokens: TOKENS, lm_head: TOKENS }, ["a"], { embed_tokens: 3 }]) {
      const odd = withConfig(files, (one) => (one["trainable_token_indices"] = wrong));
      await assert.rejects(loadAdapterFiles(tinyLlama(), asFiles(odd)), /trainable_token_indices": found .*; expected a list of different ids/); // prettier-ignore
    }
    const beyond = withConfig(files, (one) => (one["trainable_token_indices"] = [5, 14, 17]));
    await assert.rejects(loadAdapterFiles(tinyLlama(), asFiles(beyond)), /has 17, and model.embed_tokens has 17 rows/); // prettier-ignore
    const tied = adapt(tinyGpt2(), methods.lora({ rank: 2, trainedTokens: TOKENS }));
    assert.throws(() => adapterFiles(tied, "peft-lora"), /output embedding is tied to the input embedding/);
    assert.throws(() => adapterFiles(adapter, "mlx"), /no place for rows of model.embed_tokens/);
    assert.throws(() => adapterFiles(adapter, "peft-vera"), /only the formats native and peft-lora have a place/); // prettier-ignore
    const both = methods.lora({ rank: 2, target: ["embed_tokens"], trainedTokens: TOKENS });
    assert.throws(() => adapt(tinyLlama(), both), /the method's own target has model.embed_tokens too/);
    assert.throws(() => methods.lora({ trainedTokens: [1, 1] }), /trainedTokens .*expected a list of different ids|list of different ids/); // prettier-ignore
    assert.throws(() => methods.full({ trainedTokens: [1] }), /this method trains all rows/);
  });
});

suite("RandLoRA's files without projections", () => {
  const make = (): Adapter => adapt(tinyLlama(), methods.randLora({ rank: 2, target }), { seed: 7 }); // prettier-ignore

  test("name our seed, from which the bases are drawn again", async () => {
    const adapter = randomizeTrained(make());
    const files = await collect(adapterFiles(adapter, "peft-seed"));
    const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
    assert.deepEqual([config["peft_type"], config["save_projection"], config["projection_prng_key"]], ["RANDLORA", false, "tiedlora:7"]); // prettier-ignore
    assert.ok([...(await tensorsOf(files)).keys()].every((name) => !/randlora_[AB]/.test(name)));
    const again = tinyLlama();
    const loaded = await loadAdapterFiles(again, asFiles(files));
    assert.deepEqual(await logitsOf(again), await logitsOf(adapter.model as Decoder));
    assert.deepEqual(await collect(adapterFiles(loaded, "peft-seed")), files);
    const whole = await collect(adapterFiles(loaded, "peft"));
    assert.deepEqual(whole, await collect(adapterFiles(adapter, "peft")));
    const other = withConfig(files, (one) => (one["projection_prng_key"] = "tiedlora:8"));
    const third = tinyLlama();
    await loadAdapterFiles(third, asFiles(other));
    assert.ok(distance(await logitsOf(third), await logitsOf(again)) > 1e-3);
  });

  test("of Python's peft are refused with the remedy, and bases that are no seed's are not left out", async () => {
    const adapter = randomizeTrained(make());
    const files = await collect(adapterFiles(adapter, "peft-seed"));
    for (const key of [0, 7, "7", "tiedlora:", "tiedlora:-1", null]) {
      const python = withConfig(files, (one) => (one["projection_prng_key"] = key));
      await assert.rejects(loadAdapterFiles(tinyLlama(), asFiles(python)), /"save_projection": found false; expected true: without its projections.*save_projection = True, and save it again/s); // prettier-ignore
    }
    const loaded = await loadAdapterFiles(tinyLlama(), asFiles(await collect(adapterFiles(adapter, "peft"))));
    assert.throws(() => adapterFiles(loaded, "peft-seed"), /bases of this adapter do not come from its seed/);
    assert.throws(() => adapterFiles(adapted(tinyLlama()), "peft-seed"), /this adapter is of lora; export as peft/); // prettier-ignore
  });
});

/** Random values for what is trained; what the seed gives stays. */
function randomizeTrained(adapter: Adapter): Adapter {
  const frozen = [...adapter.stateDict().values()].filter((one) => !one.requiresGrad);
  const own = new Map([...adapter.stateDict()].filter(([, one]) => !frozen.includes(one)));
  randomize({ stateDict: () => own } as unknown as Adapter);
  return adapter;
}
