/** Adapters on WebGPU: files are read and written, and weights are merged and restored, as on the other backends. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { webgpu } from "@tiedlora/backend-webgpu";
import { skip } from "../../../test/support/gpu.ts";
import { adapt, adapterFiles, adaptersOf, loadAdapterFiles, methods } from "../src/index.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

suite("on WebGPU", { skip }, () => {
  test("an adapter written in every format and read back answers the same bit for bit", async () => {
    const device = await webgpu();
    try {
      for (const make of [tinyLlama, tinyGpt2]) {
        const model = make(device);
        const adapter = randomize(adapt(model, methods.tl6({ rank: 2, alpha: 3 })), 5, 0.3);
        const logits = await logitsOf(model);
        for (const format of ["native", "peft-lora", "peft-vera", "mlx"] as const) {
          const fresh = make(device);
          await loadAdapterFiles(fresh, asFiles(await collect(adapterFiles(adapter, format))));
          assert.deepEqual(await logitsOf(fresh), logits, format);
        }
      }
    } finally {
      device.close();
    }
  });

  test("merging keeps the answers, unmerging restores them bit for bit, and a NaN is refused", async () => {
    const device = await webgpu();
    try {
      const model = tinyGpt2(device);
      const base = await logitsOf(model);
      const adapter = randomize(adapt(model, methods.tl6({ rank: 2, bias: "all" })), 5, 0.3);
      const adapted = await logitsOf(model);
      const set = adaptersOf(model);
      await set.merge();
      assert.ok(distance(await logitsOf(model), adapted) < 2e-5);
      set.unmerge();
      assert.deepEqual(await logitsOf(model), adapted);
      const [B] = adapter.select({ factors: ["B"] });
      B!.set((await B!.data()).map((value, i) => (i === 3 ? NaN : value)));
      await assert.rejects(set.merge(), { message: /not finite/ });
      set.unload();
      assert.deepEqual(await logitsOf(model), base);
    } finally {
      device.close();
    }
  });
});
