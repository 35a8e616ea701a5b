/** Models whose layers are read into buffers of a GPU while they run, as numbers or packed: they have the bits of those in memory. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { webgpu } from "@tiedlora/backend-webgpu";
import { memoryFiles } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { skip } from "../../../test/support/gpu.ts";
import { loadModelFrom } from "../src/load.ts";
import {
  bitsandbytes,
  filesOf,
  type MakeParts,
  mlx,
  MLX_CONFIG,
  NF4_CONFIG,
} from "./support/quantized-model.ts";
import { residentGradient, streamedGradient } from "./support/streaming.ts";

const KINDS: Readonly<Record<string, { readonly config: object; readonly make: MakeParts | null }>> = {
  "not quantized": { config: {}, make: null },
  "bitsandbytes, nested": { config: NF4_CONFIG, make: bitsandbytes },
  "MLX, 4 bits": { config: MLX_CONFIG, make: mlx },
};
const BATCH = { inputIds: [[1, 7, 3, 39, 0, 12]] };

for (const [kind, { config, make }] of Object.entries(KINDS))
  test(
    `webgpu, ${kind}: loss and gradients are those of the model in memory, bit for bit`,
    { skip },
    async () => {
      const files = memoryFiles(await filesOf(config, make));
      const device = await webgpu({ fusion: make === null ? "on" : "off" });
      const model = await loadModelFrom(files, { device, stream: true });
      const found = await streamedGradient(model, BATCH);
      assert.equal(
        model.linear("model.layers.0.mlp.up_proj")!.weight instanceof nn.QuantizedParameter,
        make !== null,
      );
      assert.deepEqual(found, await residentGradient(await loadModelFrom(files, { device }), BATCH));
      assert.deepEqual(await streamedGradient(model, BATCH), found, "a second time");
      device.close();
    },
  );
