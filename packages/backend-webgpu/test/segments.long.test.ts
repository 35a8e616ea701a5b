/** Random long loops and their gradients on WebGPU, against what their nodes say in float64. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, ReferenceBackend } from "@tiedlora/core";
import fc from "fast-check";
import { skip } from "../../../test/support/gpu.ts";
import { evaluate } from "../../core/test/plan/evaluate.ts";
import { Tape } from "../../core/test/plan/graphs.ts";
import { randomLoop } from "../../core/test/plan/loops.ts";

const tapes = fc.noBias(fc.array(fc.nat(5039), { minLength: 20, maxLength: 150, size: "max" }));

/** The largest difference of each list from `exact`, over the largest number of that. */
const errors = (found: readonly ArrayLike<number>[], exact: readonly Float64Array[]): number[] =>
  exact.map((values, i) => {
    const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30);
    return values.reduce((most, x, k) => Math.max(most, Math.abs(found[i]![k]! - x)), 0) / largest;
  });

test(
  "random loops of several lengths are as exact as single kernels of the reference backend, to an order of magnitude",
  { skip },
  async () => {
    const host = new Device(new ReferenceBackend(), { fusion: "off" });
    let cut = 0;
    await fc.assert(
      fc.asyncProperty(tapes, fc.boolean(), async (tape, isOdd) => {
        const device = new Device(await createWebGpuBackend());
        for (const length of [83, 90]) {
          const results = async (on: Device): Promise<ArrayLike<number>[]> => {
            const tensors = randomLoop(on, new Tape(tape), length, isOdd ? 6 : -1, "f32");
            return Promise.all(tensors.map((one) => one.data() as Promise<ArrayLike<number>>));
          };
          const nodes = randomLoop(host, new Tape(tape), length, isOdd ? 6 : -1, "f32").map(
            ({ node }) => node,
          );
          const exact = evaluate(nodes, () => assert.fail("there is no device memory in this graph"));
          const [found, plain] = [errors(await results(device), exact), errors(await results(host), exact)];
          // a loop may multiply rounding errors by as much as it likes, on every backend
          const allowed = 10 * Math.max(1e-6, ...plain);
          found.forEach((error, i) => assert.ok(error <= allowed, `root ${i}, length ${length}: ${error}, not ${allowed}`)); // prettier-ignore
        }
        if (device.plans.size > 20) cut++;
        device.close();
      }),
      { numRuns: 2 },
    );
    host.close();
    assert.ok(cut > 0, "none was cut");
  },
);
