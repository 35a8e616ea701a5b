/** Quantized models whose layers are read from their files while they run: packed as they are, or quantized as they are read. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, type Files, FormatError, memoryFiles, reference, type Source } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { loadModelFrom } from "../src/load.ts";
import type { QuantizeKind } from "../src/quantized/while-loading.ts";
import { modelFiles } from "../src/save.ts";
import {
  bitsandbytes,
  filesOf,
  type MakeParts,
  mlx,
  MLX_CONFIG,
  NF4_CONFIG,
} from "./support/quantized-model.ts";
import { residentGradient, streamedGradient } from "./support/streaming.ts";

const BATCH = { inputIds: [[1, 7, 3, 39, 0, 12]] };

const REFERENCE = (): Promise<Device> => Promise.resolve(reference({ fusion: "off" }));
const cpuWith =
  (threads: number): (() => Promise<Device>) =>
  () =>
    cpu({ threads, inlineNs: 0 });

interface Kind {
  readonly config: object;
  readonly make: MakeParts | null;
  readonly quantize?: QuantizeKind;
  /** The bits of memory for a number: those of its code, and its share of the group's scale and bias. */
  readonly bits: number;
  readonly devices: readonly (() => Promise<Device>)[];
}

const KINDS: Readonly<Record<string, Kind>> = {
  "bitsandbytes, nested": {
    config: NF4_CONFIG,
    make: bitsandbytes,
    bits: 4 + 32 / 64,
    devices: [REFERENCE, cpuWith(2)],
  },
  "MLX, 4 bits": {
    config: MLX_CONFIG,
    make: mlx,
    bits: 4 + 2 * (16 / 32),
    devices: [cpuWith(1), cpuWith(2)],
  },
  "nf4 while reading": { config: {}, make: null, quantize: "nf4", bits: 4 + 32 / 64, devices: [cpuWith(1)] },
  "nf4, and embedding and head in int8": {
    config: {},
    make: null,
    quantize: "nf4+int8",
    bits: 4 + 32 / 64,
    devices: [REFERENCE],
  },
  "int8 while reading": {
    config: {},
    make: null,
    quantize: "int8",
    bits: 8 + 32 / 64,
    devices: [cpuWith(2)],
  },
};

/** The elements of a layer's matrices. */
const PER_LAYER = 64 * (64 + 32 + 32 + 64 + 3 * 64);

describe("a quantized model that is streamed", () => {
  for (const [kind, { config, make, quantize, bits, devices }] of Object.entries(KINDS))
    test(`${kind}: loss, gradients and weights are those of the model in memory, bit for bit`, async () => {
      const files = memoryFiles(await filesOf(config, make));
      for (const open of devices) {
        const device = await open();
        const how = quantize === undefined ? {} : { quantize };
        const resident = await loadModelFrom(files, { device, ...how });
        const model = await loadModelFrom(files, { device, ...how, stream: true });
        const expected = await residentGradient(resident, BATCH);
        assert.deepEqual(await streamedGradient(model, BATCH), expected);
        assert.deepEqual(await streamedGradient(model, BATCH), expected, "a second time");
        assert.equal(model.streamed!.streamedBytes, (3 * PER_LAYER * bits) / 8);
        assert.equal(model.streamed!.slotBytes, (2 / 3) * model.streamed!.streamedBytes);
        const path = "model.layers.2.mlp.up_proj"; // the last pass has ended with the first two layers
        const weight = model.linear(path)!.weight;
        assert.ok(weight instanceof nn.QuantizedParameter);
        await assert.rejects(weight.data(), /up_proj\.weight(\.\w+)? is not in memory now.*model\.streamed/);
        assert.deepEqual(
          await model.streamed!.resident([weight], () => weight.data()),
          await resident.linear(path)!.weight.data(),
        );
        device.close();
      }
    });

  test("is saved as the numbers of its weights, one at a time", async () => {
    const device = reference();
    const files = memoryFiles(await filesOf(NF4_CONFIG, bitsandbytes));
    const contents = [];
    for (const stream of [true, false]) {
      const pieces: Uint8Array[] = [];
      for (const [, content] of modelFiles(await loadModelFrom(files, { device, stream })))
        if (typeof content === "string") pieces.push(Buffer.from(content));
        else for await (const piece of content) pieces.push(piece);
      contents.push(Buffer.concat(pieces));
    }
    assert.ok(contents[0]!.equals(contents[1]!));
    device.close();
  });

  test("refuses a file that is cut short or written to since it was loaded", async () => {
    const device = await cpu({ threads: 2 });
    const content = await filesOf(NF4_CONFIG, bitsandbytes);
    const disk: Disk = { cut: 0, stamp: "as loaded" };
    const files = onDisk(memoryFiles(content), disk);
    const model = await loadModelFrom(files, { device, stream: true });
    const expected = await model.streamed!.loss(BATCH);
    await model.streamed!.free(); // the slots too, so that all layers are read again
    const refused = async (message: RegExp): Promise<void> => {
      await assert.rejects(model.streamed!.loss(BATCH), (error: Error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    disk.cut = 1;
    await refused(/model\.safetensors.*expected/);
    Object.assign(disk, { cut: 0, stamp: "written to" });
    await refused(/_proj\.weight.*written to or replaced since the model was loaded/);
    disk.stamp = "as loaded";
    assert.equal(await model.streamed!.loss(BATCH), expected);
    device.close();
  });
});

/** What has happened to the files since they were written: how many bytes are missing, and the time of the last change. */
interface Disk {
  cut: number;
  stamp: string;
}

function onDisk(files: Files, disk: Disk): Files {
  return {
    ...files,
    open: async (name) => {
      const source = await files.open(name);
      if (source === null || !name.endsWith(".safetensors")) return source;
      const size = source.size - disk.cut;
      const read: Source["read"] = (offset, length) => source.read(offset, Math.min(length, size - offset));
      return { ...source, size, read, stamp: () => Promise.resolve(disk.stamp) };
    },
  };
}
