/** The cache across processes: a second start makes no plans and renders no shaders, and computes the same bits. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { webgpu, WebGpuBackend } from "@tiedlora/backend-webgpu";
import { skip } from "../../../test/support/gpu.ts";
import { trained, TRAINING } from "../../backend-cpu/test/support/trained.ts";

const cache = mkdtempSync(join(tmpdir(), "webgpu-cache-"));
after(() => rmSync(cache, { recursive: true }));

interface Start {
  readonly losses: readonly number[];
  readonly pipelines: number;
  readonly counts: Readonly<Record<string, { found: number; kept: number }>>;
}

async function start(options: { cache?: string } = { cache }): Promise<Start> {
  const device = await webgpu(options);
  const losses = await trained(device, TRAINING);
  const { backend } = device;
  if (!(backend instanceof WebGpuBackend)) throw new Error("webgpu() gave another backend");
  device.close();
  return { losses, pipelines: backend.counters.pipelines, counts: backend.cache?.counts ?? {} };
}

test("a second start takes all plans and shaders from the cache", { skip }, async () => {
  const [without, first, second] = [await start({}), await start(), await start()];
  assert.deepEqual([first.losses, second.losses], [without.losses, without.losses]);
  assert.deepEqual([first.pipelines, second.pipelines], [without.pipelines, without.pipelines]);
  const { plan, shaders } = first.counts;
  assert.ok(plan!.kept >= TRAINING.length && shaders!.kept >= TRAINING.length);
  assert.deepEqual(second.counts, {
    plan: { found: plan!.kept, kept: 0 },
    shaders: { found: shaders!.kept, kept: 0 },
  });
});
