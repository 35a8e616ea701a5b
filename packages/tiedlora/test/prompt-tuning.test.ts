import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, openSafetensors } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { adapt, adapterFiles, methods, PromptTuning } from "../src/index.ts";
import { asFiles, collect } from "./support/files.ts";
import { distance, IDS, tinyGpt2, tinyLlama } from "./support/tiny.ts";

suite("prompt tuning", () => {
  for (const [name, make] of Object.entries({ tinyLlama, tinyGpt2 })) {
    test(`with the embeddings of tokens is the same as these tokens in front, on ${name}`, async () => {
      const model = make();
      const prompt = await PromptTuning.init(model, { tokens: [7, 11], length: 3 });
      const longer = IDS.map((row) => [7, 11, 7, ...row]);
      const wanted = await model.forward(longer).narrow(1, 3, 5).data();
      assert.ok(distance(await prompt.forward(IDS).data(), wanted) < 1e-6);
      const mask = longer.map((row) => row.map((_, i) => (i < 4 ? 0 : 1)));
      const loss = await model.loss({ inputIds: longer, mask }).item();
      const inputIds = IDS.map((row) => Int32Array.from(row));
      assert.ok(Math.abs((await prompt.loss({ inputIds }).item()) - loss) < 1e-6);
      const last = inputIds.map((row) => Float32Array.from(row, (_, i) => (i === 4 ? 1 : 0)));
      const wantedLast = longer.map((row) => row.map((_, i) => (i === 7 ? 1 : 0)));
      const lastLoss = await model.loss({ inputIds: longer, mask: wantedLast }).item();
      assert.ok(Math.abs((await prompt.loss({ inputIds, mask: last }).item()) - lastLoss) < 1e-6);
    });
  }

  test("trains the vectors alone, and comes back from peft's files", async () => {
    const model = tinyLlama();
    const before = [...(await model.parameters()[0]!.data())];
    const prompt = await PromptTuning.init(model, { length: 4, seed: 2 });
    const inputIds = IDS.map((row) => Int32Array.from(row));
    const optimizer = optim.adamW(prompt.parameters(), { lr: 0.003 });
    const first = await prompt.loss({ inputIds }).item();
    for (let step = 0; step < 5; step++) optimizer.step(prompt.loss({ inputIds }));
    assert.ok((await prompt.loss({ inputIds }).item()) < first);
    assert.deepEqual([...(await model.parameters()[0]!.data())], before);
    const files = await collect(prompt.files());
    const file = await openSafetensors(
      bytesSource(files.get("adapter_model.safetensors") as Uint8Array, "prompt"),
    );
    assert.deepEqual(
      [...file.entries].map(([name, { shape }]) => [name, [...shape]]),
      [["prompt_embeddings", [4, 8]]],
    );
    const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
    assert.deepEqual(
      [config["peft_type"], config["num_virtual_tokens"], config["token_dim"]],
      ["PROMPT_TUNING", 4, 8],
    );
    const again = tinyLlama();
    const loaded = await PromptTuning.load(again, asFiles(files));
    assert.deepEqual(await loaded.forward(IDS).data(), await prompt.forward(IDS).data());
  });

  test("says what is wrong with its input", async () => {
    const model = tinyLlama();
    await assert.rejects(PromptTuning.init(model, { tokens: [] }), /tokens/);
    await assert.rejects(PromptTuning.init(model, { length: 0 }), /length/);
    const prompt = await PromptTuning.init(model, { length: 2 });
    const inputIds = IDS.map((row) => Int32Array.from(row));
    assert.throws(() => prompt.loss({ inputIds, segments: inputIds }), /do not pack/);
    const files = await collect(prompt.files());
    const wide = tinyLlama(model.device, { hidden_size: 16 });
    await assert.rejects(PromptTuning.load(wide, asFiles(files)), /shape \[2, 8\]; expected \[2, 16\]/);
    const other = await collect(adapterFiles(adapt(model, methods.lora())));
    await assert.rejects(
      PromptTuning.load(model, asFiles(other)),
      /"peft_type": found "TIED_LORA"; expected "PROMPT_TUNING"/,
    );
    assert.throws(
      () => model.hidden(IDS, { embeddings: prompt.prompt }),
      /embeddings: \[2, 8\] was given; need \[2, 5, 8\]/,
    );
  });
});
