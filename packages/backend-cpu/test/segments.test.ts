/** Long unrolled loops on the CPU: parts of a loop of any length are compiled once, and read their windows of longer inputs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device } from "@tiedlora/core";
import { Library } from "../src/codegen/library.ts";
import { CpuBackend } from "../src/device/backend.ts";
import { gatedLoop } from "./support/gated-loop.ts";

test("loops of other lengths compile no functions, and give what single kernels do", async () => {
  const library = new Library();
  const device = new Device(new CpuBackend({ threads: 2 }, null, library));
  const plain = new Device(new CpuBackend({ threads: 2 }), { fusion: "off" });
  const compiled: number[] = [];
  for (const [length, from] of [
    [110, 0],
    [101, 0],
    [110, 5],
  ] as const) {
    const actual = await gatedLoop(device, length, from);
    compiled.push(library.counts.single + library.counts.general);
    if (from === 0) continue; // once is enough: single kernels take long
    const expected = await gatedLoop(plain, length, from);
    const largest = expected.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
    actual.forEach((one, i) => {
      const isClose = Math.abs(one - expected[i]!) <= 1e-5 * largest;
      assert.ok(isClose, `result ${i} of ${length} steps from ${from} on is ${one}, not ${expected[i]!}`);
    });
  }
  assert.deepEqual(compiled, [compiled[0], compiled[0], compiled[0]], "functions compiled after each");
  device.close();
  plain.close();
});
