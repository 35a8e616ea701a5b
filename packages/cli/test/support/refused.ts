/**
 * Loads files that are refused, fifty times each, in a process that has few file descriptors: prints how often each was
 * refused for its own fault. Files that are not closed show as "too many open files" instead.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { directoryFiles, fileSource } from "@tiedlora/core/node";
import { openSafetensors, openWeights } from "@tiedlora/core";
import { loadModel } from "@tiedlora/models/node";
import { reference } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods, readRecords } from "tiedlora";
import { loadAdapter, saveAdapter, textFile } from "tiedlora/node";
import { restoreCheckpoint } from "../../../tiedlora/src/node/checkpoint.ts";
import { tinyLlama } from "../../../tiedlora/test/support/tiny.ts";

const TIMES = 100;
const folder = process.argv[2]!;
const BROKEN = '\x10\0\0\0\0\0\0\0{"not a header"!}';

function directory(name: string, files: Readonly<Record<string, string | Uint8Array>>): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), content);
  return path;
}

const adapterOf = (config: object, tensors: string): string =>
  directory(tensors + JSON.stringify(config).length, {
    "adapter_config.json": JSON.stringify(config),
    [tensors]: BROKEN,
  });

/** A safetensors file without tensors. */
const EMPTY = new Uint8Array([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]);

const single = directory("single", { "model.safetensors": BROKEN, "config.json": "{}" });
const shards = directory("shards", {
  "model.safetensors.index.json": JSON.stringify({
    weight_map: { a: "1.safetensors", b: "2.safetensors" },
  }),
  "1.safetensors": EMPTY,
  "2.safetensors": BROKEN,
});
const wrongShard = directory("wrong-shard", {
  "model.safetensors.index.json": JSON.stringify({ weight_map: { a: "1.safetensors" } }),
  "1.safetensors": EMPTY,
});
const noTensors = directory("no-tensors", {
  "model.safetensors": EMPTY,
  "config.json": JSON.stringify({ model_type: "gpt2", vocab_size: 3, n_embd: 4, n_layer: 1, n_head: 1 }),
});
const pickles = directory("pickles", { "pytorch_model.bin": "x" });
const native = join(folder, "native");
const checkpoint = directory("checkpoint/step-00000001", {
  "adapter_model.safetensors": BROKEN,
  "optimizer.safetensors": BROKEN,
});
const mlx = { fine_tune_type: "lora", lora_parameters: { rank: 2, scale: 1, dropout: 0 } };
const texts = directory("texts", { "a.jsonl": '{"text": "a"}\n[]\n' + '{"text": "a"}\n'.repeat(20_000) });

const device = reference();
const model = tinyLlama(device);
const adapter = adapt(model, methods.lora({ rank: 2 }));
await saveAdapter(adapter, native);
writeFileSync(join(native, "adapter_model.safetensors"), BROKEN);
const optimizer = optim.sgd(adapter.parameters(), { lr: 0.1 });

const loads: Readonly<Record<string, () => Promise<unknown>>> = {
  weights: async () => openWeights(await directoryFiles(single)),
  shards: async () => openWeights(await directoryFiles(shards)),
  "a shard without its tensor": async () => openWeights(await directoryFiles(wrongShard)),
  pickles: async () => openWeights(await directoryFiles(pickles)),
  "a model without tensors": () => loadModel(noTensors, { device }),
  "a model's config": () => loadModel(single, { device }),
  "a file": async () => openSafetensors(await fileSource(join(single, "model.safetensors"))),
  "a native adapter": () => loadAdapter(model, native),
  "an adapter of peft": () =>
    loadAdapter(model, adapterOf({ peft_type: "LORA", r: 2 }, "adapter_model.safetensors")),
  "an adapter of mlx": () => loadAdapter(model, adapterOf(mlx, "adapters.safetensors")),
  "a checkpoint": () => restoreCheckpoint(join(checkpoint, ".."), 1, { adapter, optimizer }),
  data: async () => {
    for await (const _ of readRecords(await textFile(join(texts, "a.jsonl")))) void _;
  },
};

const refusals: Record<string, string> = {};
for (const [name, load] of Object.entries(loads)) {
  let refused = 0;
  let other = "";
  for (let i = 0; i < TIMES; i++) {
    try {
      await load();
      other = "not refused";
    } catch (error) {
      if (/EMFILE|too many open/.test(String(error))) other = String(error);
      else refused++;
    }
  }
  refusals[name] = refused === TIMES ? "refused" : `${refused} of ${TIMES} refused, then: ${other}`;
}
console.log(JSON.stringify(refusals));
