/** `tiedlora convert`: a GGUF file becomes a directory that other commands read, and nothing is written where it cannot. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ggufBytes, type GgufTensorToWrite, type Meta } from "../../models/test/support/gguf.ts";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const f32 = (...shape: number[]): GgufTensorToWrite => {
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
  return { type: 0, shape, bytes: new Uint8Array(values.buffer) };
};
const META: Record<string, Meta> = {
  "general.architecture": { text: "qwen2" },
  "qwen2.embedding_length": { u32: 8 },
  "qwen2.block_count": { u32: 1 },
  "qwen2.feed_forward_length": { u32: 4 },
  "qwen2.attention.head_count": { u32: 2 },
  "qwen2.attention.layer_norm_rms_epsilon": { f32: 1e-6 },
  "qwen2.context_length": { u32: 16 },
  "tokenizer.ggml.model": { text: "t5" },
};
const layer = { attn_norm: [8], attn_q: [8, 8], attn_k: [8, 8], attn_v: [8, 8], attn_output: [8, 8], ffn_norm: [8], ffn_gate: [4, 8], ffn_up: [4, 8], ffn_down: [8, 4] }; // prettier-ignore
const TENSORS: Record<string, GgufTensorToWrite> = {
  "token_embd.weight": f32(16, 8),
  "output_norm.weight": f32(8),
  ...Object.fromEntries(
    Object.entries(layer).map(([name, shape]) => [`blk.0.${name}.weight`, f32(...shape)]),
  ),
  ...Object.fromEntries(["q", "k", "v"].map((name) => [`blk.0.attn_${name}.bias`, f32(8)])),
};
const file = join(folder, "model.gguf");
writeFileSync(file, ggufBytes(META, TENSORS));

test("a file becomes a directory that inspect reads; what is missing is said", async () => {
  const out = join(folder, "out");
  const { code, info } = await tiedlora("convert", file, out, "--dtype", "bf16");
  assert.equal(code, 0, info);
  assert.match(info, /qwen2 with 0\.0 million parameters \(matrices: 8 in bf16\) written to /);
  assert.match(info, /no tokenizer is written: its vocabulary is of the kind "t5".*Copy tokenizer\.json/);
  assert.deepEqual(readdirSync(out).toSorted(), ["config.json", "model.safetensors"]);
  assert.match(readFileSync(join(out, "config.json"), "utf8"), /"torch_dtype": "bfloat16"/);
  const read = await tiedlora("inspect", out);
  assert.equal(read.code, 0, read.info);
});

test("a directory that holds something is left as it is", async () => {
  const out = join(folder, "full");
  mkdirSync(out);
  writeFileSync(join(out, "notes.txt"), "mine");
  const { code, info } = await tiedlora("convert", file, out);
  assert.equal(code, 2);
  assert.match(info, /full exists and is not empty; give another directory/);
  assert.deepEqual(readdirSync(out), ["notes.txt"]);
});

test("of a file that is cut short nothing is written, not even the directory", async () => {
  const cut = join(folder, "cut.gguf");
  writeFileSync(cut, readFileSync(file).subarray(0, 3000));
  const out = join(folder, "none");
  const { code, info } = await tiedlora("convert", cut, out);
  assert.equal(code, 1);
  assert.match(info, /cut\.gguf: "[\w.]+": found bytes .* The file is cut short/);
  assert.equal(existsSync(out), false);
  const missing = await tiedlora("convert", join(folder, "modle.gguf"), out);
  assert.equal(missing.code, 2);
  assert.match(missing.info, /did you mean .*model\.gguf/);
});

test("an adapter becomes a file for llama.cpp; nothing is replaced by accident", async () => {
  const [model, adapter, out] = ["base", "adapter", "adapter.gguf"].map((name) => join(folder, name)) as [string, string, string]; // prettier-ignore
  await writeModel(model);
  writeExamples(join(folder, "train.jsonl"));
  const settings =
    "--steps 1 --batch 2 --seq 32 --rank 2 --method tl6 --lr 0.1 --backend reference --target qkv";
  await tiedlora("train", "--model", model, "--data", join(folder, "train.jsonl"), "--out", adapter, ...settings.split(" ")); // prettier-ignore
  const convert = (...argv: string[]): ReturnType<typeof tiedlora> =>
    tiedlora("convert", ...argv, "--model", model, "--backend", "reference");
  const { code, info } = await convert(adapter, out);
  assert.equal(code, 0, info);
  assert.match(info, /6 updates of tl6 written to .*adapter\.gguf, for llama\.cpp's --lora/);
  const bytes = readFileSync(out);
  assert.equal(bytes.subarray(0, 4).toString(), "GGUF");
  for (const name of ["adapter.lora.alpha", "blk.0.attn_q.weight.lora_a", "blk.1.attn_v.weight.lora_b"])
    assert.ok(bytes.includes(name), name);
  const again = await convert(adapter, out);
  assert.deepEqual([again.code, /adapter\.gguf exists; give another name, or --force/.test(again.info)], [2, true]); // prettier-ignore
  assert.equal((await convert(adapter, out, "--force")).code, 0);
  assert.match((await convert(adapter, join(folder, "file"))).info, /a name that ends in \.gguf/);
});
