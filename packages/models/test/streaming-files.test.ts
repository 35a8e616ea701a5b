/** The files and the memory of streamed models: less memory than the weights take, and files that change or are chosen in a page. */
import assert from "node:assert/strict";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { FormatError, memoryFiles, reference } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import * as nn from "@tiedlora/nn";
import { configFrom } from "../src/config.ts";
import { createModel, loadModelFrom } from "../src/load.ts";
import { saveModel } from "../src/node.ts";
import { IDS, LLAMA } from "./support/models.ts";
import { residentGradient, streamedGradient } from "./support/streaming.ts";

describe("a streamed model", () => {
  const temporary = mkdtempSync(join(tmpdir(), "tiedlora-streaming-files-"));
  after(() => rmSync(temporary, { recursive: true }));
  let counter = 0;

  /** A directory with a random model in several shards. */
  async function directoryOf(
    raw: Readonly<Record<string, unknown>> = LLAMA,
    dtype: "f32" | "f16" = "f16",
  ): Promise<string> {
    const device = reference();
    const directory = join(temporary, String(counter++));
    const model = createModel(configFrom(raw), { device, seed: 1 });
    await saveModel(model, directory, { dtype, maxShardBytes: raw === LLAMA ? 3000 : 2e6 });
    device.close();
    return directory;
  }

  test("trains on a device with room for less than its weights, in few programs, to the bits of the model in memory", async () => {
    const sizes = { hidden_size: 128, intermediate_size: 512, num_hidden_layers: 8, vocab_size: 64 };
    const files = await directoryFiles(await directoryOf({ ...LLAMA, ...sizes }, "f32"));
    const device = await cpu({ threads: 2, maxBytes: 6 * 2 ** 20, fusion: "off" });
    const model = await loadModelFrom(files, { device, stream: true });
    assert.ok(model.streamed!.streamedBytes > 7.5e6, String(model.streamed!.streamedBytes));
    await assert.rejects(loadModelFrom(files, { device }), /out of memory/);
    const batch = { inputIds: IDS };
    const first = await streamedGradient(model, batch);
    const { cachedPrograms, liveBytes } = device.memory();
    assert.ok(cachedPrograms <= 5, `${cachedPrograms} programs`);
    assert.deepEqual(await streamedGradient(model, batch), first);
    assert.equal(device.memory().cachedPrograms, cachedPrograms);
    // what is left of results is freed when their handles are collected
    assert.ok(
      device.memory().liveBytes <= liveBytes + 4096,
      `${device.memory().liveBytes} after ${liveBytes}`,
    );
    assert.ok(device.memory().peakBytes <= 6 * 2 ** 20, String(device.memory().peakBytes));
    const roomy = await cpu({ threads: 2, fusion: "off" });
    const expected = await residentGradient(await loadModelFrom(files, { device: roomy }), batch);
    assert.deepEqual(first, expected);
    device.close();
    roomy.close();
  });

  test("refuses a shard that is cut short, written to or gone since it was loaded, and works again once it is back", async () => {
    const directory = await directoryOf();
    const name = readdirSync(directory).find((one) => one.startsWith("model-00003-of-"))!;
    const shard = join(directory, name);
    const device = await cpu({ threads: 2 });
    const model = await loadModelFrom(await directoryFiles(directory), { device, stream: true });
    const expected = await model.streamed!.loss({ inputIds: IDS });
    const [content, { atime, mtime }] = [readFileSync(shard), statSync(shard)];
    const fails = async (message: RegExp): Promise<void> => {
      await model.streamed!.free(); // the slots too, so that all layers are read again
      await assert.rejects(model.streamed!.loss({ inputIds: IDS }), (error: Error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    truncateSync(shard, content.length - 1);
    await fails(/model-00003-of-\d+\.safetensors.*expected/);
    writeFileSync(shard, content);
    utimesSync(shard, atime, new Date(mtime.getTime() + 1000));
    await fails(/model-00003-of-\d+\.safetensors.*written to or replaced since the model was loaded/);
    rmSync(shard);
    await fails(/no file model-00003-of-\d+\.safetensors/);
    device.close();
    writeFileSync(shard, content);
    const device2 = await cpu({ threads: 2 });
    const again = await loadModelFrom(await directoryFiles(directory), { device: device2, stream: true });
    assert.equal(await again.streamed!.loss({ inputIds: IDS }), expected);
    device2.close();
  });

  test("is read from blobs, too, as those of files that a visitor of a page has chosen", async () => {
    const directory = await directoryOf();
    const names = readdirSync(directory);
    const content = names.map((name) => [name, new Blob([readFileSync(join(directory, name))])] as const);
    const device = await cpu({ threads: 2 });
    const [chosen, onDisk] = [
      await loadModelFrom(memoryFiles(new Map(content)), { device, stream: true }),
      await loadModelFrom(await directoryFiles(directory), { device, stream: true }),
    ];
    const batch = { inputIds: IDS };
    assert.deepEqual(await streamedGradient(chosen, batch), await streamedGradient(onDisk, batch));
    const gone = { size: 1, slice: () => ({ arrayBuffer: () => Promise.reject(new Error("NotReadable")) }) };
    await assert.rejects(
      loadModelFrom(memoryFiles(new Map([["config.json", gone]])), { device, stream: true }),
      /config\.json.*cannot be read \(NotReadable\).*choose it again/i,
    );
    device.close();
  });

  test("refuses to train what the loss does not depend on", async () => {
    const device = reference();
    const files = await directoryFiles(await directoryOf());
    const model = await loadModelFrom(files, { device, stream: true });
    const stranger = nn.constantParameter([2], 1, device, "stranger");
    await assert.rejects(
      model.streamed!.gradients({ inputIds: IDS }, [stranger]),
      /the loss depends on none of the 1 trained parameters \(stranger\)/,
    );
    device.close();
  });
});
