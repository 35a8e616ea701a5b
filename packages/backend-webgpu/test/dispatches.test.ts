/** The kernels of training steps, without a GPU: their number, the number of distinct ones, and that they keep to the limits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device, type Tensor } from "@tiedlora/core";
import { type Method, prepare } from "../../../bench/workloads.ts";
import type { Kernel, Target } from "../src/codegen/target.ts";
import { CARD, DEFAULT_LIMITS, DryBackend, SOFTWARE } from "./support/dry.ts";

const TARGETS: { readonly [name: string]: Target } = {
  "the default limits": DEFAULT_LIMITS,
  "a software adapter": SOFTWARE,
  "a graphics card": CARD,
  "a graphics card, factors of products in f16": { ...CARD, matmulPrecision: "f16" },
};

/** The kernels of one training step of a GPT of six layers and width 384. */
function kernelsOf(target: Target, method: Method): readonly Kernel[] {
  const backend = new DryBackend(target);
  const training = prepare(new Device(backend), { kind: "gpt", size: "medium", method });
  training.step(0);
  training.step(1);
  assert.equal(backend.programs.length, 1, "the second step is the first's program");
  return backend.programs[0]!;
}

for (const [name, target] of Object.entries(TARGETS)) {
  for (const method of ["lora", "tl6"] as const) {
    test(`a step of ${method} on ${name} takes under 400 dispatches, and equal layers share their code`, () => {
      const kernels = kernelsOf(target, method);
      const codes = new Set(kernels.map(({ code }) => code));
      assert.ok(kernels.length < 400, `${kernels.length} dispatches`);
      assert.ok(codes.size < 60, `${codes.size} different kernels`);
    });

    test(`every kernel of a step of ${method} keeps to the limits of ${name}`, () => {
      for (const { label, bindings, groups, code } of kernelsOf(target, method)) {
        assert.ok(bindings.length <= target.maxBindings, `${label} binds ${bindings.length} buffers`);
        for (const { bytes, offset } of bindings) {
          assert.ok(bytes <= target.maxBindingBytes, `${label} binds ${bytes} bytes`);
          assert.equal(offset % target.offsetAlignment, 0, label);
        }
        for (const n of groups) assert.ok(n >= 1 && n <= target.maxGroupsPerDimension, label);
        assert.ok(invocations(code) <= target.maxInvocations, `${label}: ${invocations(code)} invocations`);
        assert.ok(
          workgroupBytes(code) <= target.maxWorkgroupBytes,
          `${label}: ${workgroupBytes(code)} bytes`,
        );
        if (target.subgroup === 0) assert.doesNotMatch(code, /subgroup/);
        if (!target.f16) assert.doesNotMatch(code, /f16/);
      }
    });
  }
}

test("buffers beyond a binding split a kernel no further than that helps", async () => {
  const backend = new DryBackend({ ...DEFAULT_LIMITS, maxBindings: 16, maxBindingBytes: 16384 });
  const device = new Device(backend);
  const [x, y] = [[131, 60], [60, 160]].map((shape) => device.tensor(new Float32Array(shape[0]! * shape[1]!)).reshape(shape)); // prettier-ignore
  const count = async (result: Tensor): Promise<number> => {
    await result.data();
    return backend.programs.at(-1)!.length;
  };
  assert.equal(await count(x!.sum(0)), 1); // every column passes through all of the buffer
  assert.equal(await count(x!.add(1)), 2); // as few as the buffer has parts
  assert.ok((await count(x!.matmul(y!))) <= 32);
});

function invocations(code: string): number {
  const size = /@workgroup_size\(([\d, ]+)\)/.exec(code)![1]!;
  return size.split(",").reduce((n, x) => n * Number(x), 1);
}

function workgroupBytes(code: string): number {
  const arrays = code.matchAll(/var<workgroup> \w+: array<(vec4<)?(\w+)>*, (\d+)>/g);
  return [...arrays].reduce(
    (sum, [, four, type, n]) => sum + (four ? 4 : 1) * (type === "f16" ? 2 : 4) * Number(n),
    0,
  );
}
