/** Models whose layers are read from their files while they run: they have the bits of a model that is in memory as a whole. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { assign, type Device, Parameter, reference } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import { configFrom } from "../src/config.ts";
import type { Decoder } from "../src/decoder.ts";
import { generateTokens } from "../src/generate.ts";
import { createModel, loadModelFrom } from "../src/load.ts";
import { saveModel } from "../src/node.ts";
import { IDS, LLAMA, MODELS } from "./support/models.ts";

import { type Found, residentGradient, streamedGradient } from "./support/streaming.ts";

const temporary = mkdtempSync(join(tmpdir(), "tiedlora-streaming-"));
after(() => rmSync(temporary, { recursive: true }));
let counter = 0;

/** A directory with a random model in several shards. */
async function directoryOf(
  raw: Readonly<Record<string, unknown>>,
  dtype: "f32" | "f16" = "f16",
): Promise<string> {
  const device = reference();
  const directory = join(temporary, String(counter++));
  await saveModel(createModel(configFrom(raw), { device, seed: 1 }), directory, {
    dtype,
    maxShardBytes: 3000,
  });
  device.close();
  return directory;
}

/** The reference backend rounds where a kernel ends, so what is fused has the bits of its own kernels only. */
const assertNear = (actual: Found, expected: Found): void => {
  assert.equal(actual.loss, expected.loss);
  for (const [i, values] of expected.gradients.entries()) {
    const largest = values!.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    values!.forEach((x, k) => assert.ok(Math.abs(x - actual.gradients[i]![k]!) <= 1e-5 * largest));
  }
};

const DEVICES: Readonly<Record<string, (fusion: "on" | "off") => Promise<Device>>> = {
  reference: (fusion) => Promise.resolve(reference({ fusion })),
  "cpu, 1 thread": (fusion) => cpu({ threads: 1, fusion }),
  "cpu, 2 threads": (fusion) => cpu({ threads: 2, inlineNs: 0, fusion }),
};

for (const [name, open] of Object.entries(DEVICES)) {
  test(`${name}: loss and gradients are those of the checkpointed model in memory, bit for bit${name === "reference" ? " if not fused" : ""}`, async () => {
    for (const raw of [LLAMA, MODELS["gpt2"]!, MODELS["qwen2, windows above"]!]) {
      const files = await directoryFiles(await directoryOf(raw));
      const batch = { inputIds: IDS, mask: IDS.map((row) => row.map((_, t) => (t > 3 ? 1 : 0))) };
      for (const fusion of ["off", "on"] as const) {
        const device = await open(fusion);
        const expected = await residentGradient(await loadModelFrom(files, { device }), batch);
        const model = await loadModelFrom(files, { device, stream: true });
        const found = await streamedGradient(model, batch);
        if (name === "reference" && fusion === "on") assertNear(found, expected);
        else assert.deepEqual(found, expected, `${String(raw["model_type"])}, fusion ${fusion}`);
        assert.deepEqual(await streamedGradient(model, batch), found, "a second time");
        assert.equal(await model.streamed!.loss(batch), expected.loss);
        device.close();
      }
    }
  });
}

describe("a streamed model", () => {
  test("generates and computes the logits of the model in memory", async () => {
    const files = await directoryFiles(await directoryOf(LLAMA));
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const [resident, streamed] = [
      await loadModelFrom(files, { device }),
      await loadModelFrom(files, { device, stream: true }),
    ];
    const tokens = async (model: Decoder): Promise<unknown[]> => {
      const found = [];
      const options = { maxTokens: 12, stopTokens: [] };
      for await (const one of generateTokens(model, [[3, 1, 4], [1]], options)) found.push(one);
      return found;
    };
    assert.deepEqual(await tokens(streamed), await tokens(resident));
    const logits = await (await streamed.streamed!.forward(IDS)).data();
    assert.deepEqual(logits, await resident.forward(IDS).data());
    device.close();
  });

  test("reads weights into memory that pending work had before only when that work is done", async () => {
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const files = await directoryFiles(await directoryOf(LLAMA));
    const expected = await (await loadModelFrom(files, { device })).loss({ inputIds: IDS }).item();
    const model = await loadModelFrom(files, { device, stream: true });
    const x = device.tensor(new Float32Array(512 * 512).fill(1e-3), { shape: [512, 512] });
    const slow = Array.from({ length: 24 }, () => x).reduce((a, b) => a.matmul(b));
    const written = ([16 * 16, 8 * 16, 12 * 16] as const).flatMap((size) =>
      Array.from({ length: 6 }, () => Parameter.from(device, new Uint16Array(size), [size], "f16")),
    );
    assign(written.map((p) => [p, slow.sum().add(1e4).expand(p.shape).cast("f16")]));
    for (const { storage } of written) storage.buffer.free();
    assert.equal(await model.streamed!.loss({ inputIds: IDS }), expected);
    device.close();
  });

  test("names a weight that is not in memory, and brings it there when asked", async () => {
    const device = reference();
    const files = await directoryFiles(await directoryOf(LLAMA));
    const model = await loadModelFrom(files, { device, stream: true });
    const weight = model.linear("model.layers.1.mlp.up_proj")!.weight;
    const message = /model\.layers\.1\.mlp\.up_proj\.weight is not in memory now.*model\.streamed/;
    await assert.rejects(weight.data(), message);
    await assert.rejects(
      model.forward(IDS).data(),
      /model\.layers\.\d\.\w+\.\w+\.weight is not in memory now/,
    );
    const expected = (await loadModelFrom(files, { device })).linear("model.layers.1.mlp.up_proj")!.weight;
    assert.deepEqual(await model.streamed!.resident([weight], () => weight.data()), await expected.data());
    await assert.rejects(weight.data(), message);
    device.close();
  });

  test("is saved shard by shard with the bytes of its files", async () => {
    const device = reference();
    const directory = await directoryOf(LLAMA);
    const model = await loadModelFrom(await directoryFiles(directory), { device, stream: true });
    const out = join(temporary, "saved");
    await saveModel(model, out, { maxShardBytes: 5000 });
    const [a, b] = [
      await loadModelFrom(await directoryFiles(directory), { device }),
      await loadModelFrom(await directoryFiles(out), { device }),
    ];
    for (const [path, parameter] of a.stateDict())
      assert.deepEqual(await b.stateDict().get(path)!.data(), await parameter.data());
    device.close();
  });

  test("passes that are asked for at once run one after the other", async () => {
    const device = await cpu({ threads: 2, inlineNs: 0 });
    const files = await directoryFiles(await directoryOf(LLAMA));
    const model = await loadModelFrom(files, { device, stream: true });
    const losses = IDS.map((row) => ({ inputIds: [row] }));
    const together = await Promise.all(losses.map((batch) => model.streamed!.loss(batch)));
    assert.deepEqual(together, [
      await model.streamed!.loss(losses[0]!),
      await model.streamed!.loss(losses[1]!),
    ]);
    device.close();
  });
});
