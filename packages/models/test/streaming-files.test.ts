/** The files of streamed models: blobs, as a page has them. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { memoryFiles, reference } from "@tiedlora/core";
import { directoryFiles } from "@tiedlora/core/node";
import * as nn from "@tiedlora/nn";
import { configFrom } from "../src/config.ts";
import { createModel, loadModelFrom } from "../src/load.ts";
import { saveModel } from "../src/node.ts";
import { IDS, LLAMA } from "./support/models.ts";
import { streamedGradient } from "./support/streaming.ts";

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
