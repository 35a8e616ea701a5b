/** `--stream`: a run whose weights stay in their file trains, evaluates, resumes, generates and merges. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs"; // prettier-ignore
import { join } from "node:path";
import { test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, explain, reference } from "@tiedlora/core";
import { configFrom, createModel } from "@tiedlora/models";
import { expandSweep, parseSweep } from "@tiedlora/experiments";
import { BASE_DIRECTORY } from "@tiedlora/experiments/node";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";
import { decideStreaming, stepBytes, sweepStep } from "../src/streaming.ts";
import { tiedlora } from "./support/command.ts";
import { onDisk } from "./support/faults.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const [model, data] = [join(folder, "model"), join(folder, "train.jsonl")];
const FLAGS = ["--model", model, "--data", data, "--valid", data, "--method", "tl6", "--rank", "2", "--seq", "32", "--save-every", "2", "--stream"]; // prettier-ignore

test("a streamed run trains, evaluates, samples and resumes; its adapter generates and merges, shard by shard", async () => {
  await writeModel(model);
  writeExamples(data);
  const out = join(folder, "out");
  const trained = await tiedlora("train", ...FLAGS, "--steps", "3", "--out", out);
  assert.equal(trained.code, 0, trained.info);
  assert.match(
    trained.info,
    /the weights, 0\.000 GiB, are read layer by layer from their files .*\(--stream\)/,
  );
  assert.match(trained.info, /after training/);
  const resumed = await tiedlora("train", "--resume", "--out", out);
  assert.equal(resumed.code, 0, resumed.info);
  const generated = await tiedlora("generate", "--adapter", out, "--stream", "--prompt", "say red0", "--max-tokens", "4"); // prettier-ignore
  assert.equal(generated.code, 0, generated.info);
  const inMemory = await tiedlora("generate", "--adapter", out, "--prompt", "say red0", "--max-tokens", "4");
  assert.equal(generated.out, inMemory.out);
  const merges = [["--stream"], []].map(async (flags, i) => {
    const merged = join(folder, `merged-${i}`);
    const { code, info } = await tiedlora("merge", "--adapter", out, "--out", merged, ...flags);
    assert.equal(code, 0, info);
    return readFileSync(join(merged, "model.safetensors"));
  });
  const [streamed, whole] = await Promise.all(merges);
  assert.ok(streamed!.equals(whole!));
});

test("a file of weights that is cut short ends the command with an error that names it", async () => {
  const path = join(model, "model.safetensors");
  const content = readFileSync(path);
  writeFileSync(path, content.subarray(0, content.length - 8));
  const { code, info } = await tiedlora("train", ...FLAGS, "--steps", "3", "--out", join(folder, "other"));
  assert.equal(code, 1, info);
  assert.match(info, /model\.safetensors.*expected/);
  writeFileSync(path, content);
});

test("a file of weights that is written to during a run ends it, named; the last checkpoint stands and is continued", async () => {
  const deep = join(folder, "deep");
  await writeModel(deep, { num_hidden_layers: 4 }); // more layers than there are slots: some are read in every step
  const path = join(deep, "model.safetensors");
  const { atime, mtime } = statSync(path);
  const out = join(folder, "changed");
  const checkpoints = join(out, "checkpoints");
  const watch = setInterval(() => {
    if (!existsSync(join(checkpoints, "step-00000002"))) return;
    clearInterval(watch);
    utimesSync(path, atime, new Date(mtime.getTime() + 5000));
  }, 2);
  const flags = ["--model", deep, ...FLAGS.slice(2)];
  const { code, info } = await tiedlora("train", ...flags, "--steps", "60", "--out", out);
  clearInterval(watch);
  assert.equal(code, 1, info);
  assert.match(info, /model\.safetensors.*_proj\.weight.*written to or replaced since the model was loaded/);
  const last = Number(readdirSync(checkpoints).sort().at(-1)!.slice("step-".length));
  assert.ok(last >= 2 && last < 60, String(last));
  const resumed = await tiedlora("train", "--resume", "--out", out);
  assert.equal(resumed.code, 0, resumed.info);
  assert.match(resumed.info, new RegExp(`going on after step ${last} of 60`));
});

test("merging a streamed model onto a disk that fills leaves no file behind", async () => {
  const [out, adapter] = [join(folder, "full"), join(folder, "out")];
  mkdirSync(out);
  const merge = (): ReturnType<typeof tiedlora> => tiedlora("merge", "--adapter", adapter, "--out", out, "--stream"); // prettier-ignore
  const { code, info } = await onDisk({ code: "ENOSPC", space: 3000 }, out, merge);
  assert.equal(code, 1, info);
  assert.match(info, /cannot write in .*full.*The disk is full/);
  assert.deepEqual(readdirSync(out), []);
  assert.equal((await merge()).code, 0);
});

test("a streamed sweep has the results of one whose model is in memory", async () => {
  const grid = join(folder, "grid.yaml");
  writeFileSync(grid, "name: small\nout: runs\non: { model: base, tasks: [choice] }\nvary: { method: [tl6], rank: [2] }\ntrain: { steps: 2 }\n"); // prettier-ignore
  const results = [["--stream"], []].map(async (flags, i) => {
    const out = join(folder, `sweep-${i}`);
    const { code, out: lines, info } = await tiedlora("sweep", grid, "--out", out, "--parallel", "1", "--json", ...flags); // prettier-ignore
    assert.equal(code, 0, info);
    assert.equal(/read layer by layer .*\(--stream\)/.test(info), flags.length > 0);
    return lines.trim().split("\n").map((line) => (JSON.parse(line) as { test: { loss: number } }).test.loss); // prettier-ignore
  });
  const [streamed, resident] = await Promise.all(results);
  assert.equal(resident!.length, 2); // the unadapted model, and the run
  assert.equal(streamed![0], resident![0]);
  assert.ok(Math.abs(streamed![1]! - resident![1]!) < 1e-5, `${streamed![1]} ${resident![1]}`);
  assert.notEqual(resident![1], resident![0]);
});

test("a model that does not fit is streamed without being asked, and says so in one line", async () => {
  const lines: string[] = [];
  const output = { out: () => undefined, write: () => undefined, info: (line: string) => void lines.push(line), interactive: false }; // prettier-ignore
  const device = reference();
  const small = { backend: { caps: { ...device.backend.caps, maxTotalBytes: 1000 } } } as unknown as Device;
  assert.equal(await decideStreaming(model, device, { stream: false, output }), false);
  assert.equal(await decideStreaming(model, small, { stream: false, output }), true);
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /read layer by layer .*\(they do not fit into 0\.000 GiB\)/);
  assert.equal(await decideStreaming(model, small, { quantize: "nf4", processes: 3, output }), true);
  assert.match(lines[1]!, /\(they do not fit into 0\.000 GiB for each of 3 processes\)/);
  device.close();
});

test("a model whose weights fit is streamed if the values of a step do not, by the data's own lengths", async () => {
  const lines: string[] = [];
  const output = { out: () => undefined, write: () => undefined, info: (line: string) => void lines.push(line), interactive: false }; // prettier-ignore
  const caps = { ...reference().backend.caps, maxTotalBytes: 280 * 2 ** 20 };
  const device = { backend: { caps } } as unknown as Device;
  let looked = 0;
  const decide = (limit: number, found: number, checkpointing: boolean): Promise<boolean> => {
    const tokens = { limit, find: () => Promise.resolve((looked++, found)) };
    return decideStreaming(model, device, { step: { tokens, checkpointing, activations: "f32" }, output });
  };
  assert.equal(await decide(64, 64, false), false);
  assert.equal(looked, 0); // nothing can be too long
  assert.equal(await decide(1e6, 64, false), false);
  assert.deepEqual([looked, lines], [1, []]);
  assert.equal(await decide(1e6, 1e6, false), true);
  assert.match(
    lines[0]!,
    /with \d+\.\d GiB for the values of a step they do not fit into 0\.3 GiB; --checkpointing/,
  );
  assert.equal(await decide(1e6, 1e6, true), true);
  assert.doesNotMatch(lines[1]!, /--checkpointing/);
});

test("the step of a sweep is that of its largest batch, with the examples' own lengths", async () => {
  const stepOf = (batches: string): ReturnType<typeof sweepStep> => {
    const text = `name: small\nout: runs\non: { model: base, tasks: [choice] }\nvary: { method: [tl6], rank: [2], batch: ${batches} }\n`;
    return sweepStep(expandSweep(parseSweep(text, "grid.yaml")), BASE_DIRECTORY);
  };
  const [small, large] = [stepOf("[2]"), stepOf("[8, 2, 4]")];
  assert.deepEqual([small.tokens.limit, large.tokens.limit], [2 * 128, 8 * 128]);
  const found = await small.tokens.find();
  assert.ok(found > 2 && found < 2 * 128, String(found)); // the task's examples are shorter than `seq`
  assert.equal(await large.tokens.find(), 4 * found);
});

test("the estimate of the values of a step is near what its program takes", async () => {
  const raw = { model_type: "llama", vocab_size: 64, hidden_size: 64, intermediate_size: 172, num_hidden_layers: 6, num_attention_heads: 4 }; // prettier-ignore
  const config = configFrom(raw);
  for (const checkpointing of [false, true]) {
    const device = await cpu({ threads: 1 });
    const decoder = createModel(config, { device, seed: 1 });
    decoder.checkpointing = checkpointing;
    const adapter = adapt(decoder, methods.tl6({ rank: 2 }));
    const loss = decoder.loss({ inputIds: [Int32Array.from({ length: 257 }, (_, i) => i % 64)] });
    const { tempBytes } = explain(optim.adamW(adapter.parameters(), { lr: 1 }).trace(loss));
    const ratio = stepBytes(config, { checkpointing, activations: "f32" }, 256) / tempBytes;
    assert.ok(ratio > 0.7 && ratio < 1.5, `${ratio}`);
    device.close();
  }
});
