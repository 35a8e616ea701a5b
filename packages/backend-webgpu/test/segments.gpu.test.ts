/** Long unrolled loops on WebGPU: parts of a loop of any length are compiled once, and read their windows of longer inputs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, ReferenceBackend } from "@tiedlora/core";
import { skip } from "../../../test/support/gpu.ts";
import { gatedLoop } from "../../backend-cpu/test/support/gated-loop.ts";

test(
  "loops of other lengths plan and compile nothing, and later steps of a length make no bind groups",
  { skip },
  async () => {
    const backend = await createWebGpuBackend();
    const device = new Device(backend);
    const exact = new Device(new ReferenceBackend());
    const counts: (readonly number[])[] = [];
    for (const [length, from] of [
      [100, 0],
      [91, 3],
    ] as const) {
      const actual = await gatedLoop(device, length, from);
      counts.push([backend.counters.pipelines, backend.counters.rendered, device.families.counts.planned]);
      const expected = await gatedLoop(exact, length, from);
      const largest = expected.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
      actual.forEach((one, i) => {
        const isClose = Math.abs(one - expected[i]!) <= 1e-5 * largest;
        assert.ok(isClose, `result ${i} of ${length} steps from ${from} on is ${one}, not ${expected[i]!}`);
      });
    }
    assert.ok(device.plans.size > 4, "it was not cut");
    assert.deepEqual(counts, [counts[0], counts[0]], "pipelines, steps rendered, plans after each");
    const before = backend.counters;
    await gatedLoop(device, 91, 3);
    const after = backend.counters;
    const made = after.bindGroups - before.bindGroups;
    assert.ok(10 * made < after.dispatches - before.dispatches, `${made} bind groups`);
    device.close();
    exact.close();
  },
);
