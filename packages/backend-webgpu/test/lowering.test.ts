/** Lowering with memory: steps are rendered once, and what is found is what would be rendered. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device } from "@tiedlora/core";
import type { LoopKernel, Program } from "@tiedlora/kernels";
import { decoderStep } from "../../../bench/decoder.ts";
import { denseOperand } from "../../backend-cpu/test/support/run.ts";
import { Lowering, lowerProgram } from "../src/codegen/lower.ts";
import type { Target } from "../src/codegen/target.ts";
import { CARD, DryBackend, SOFTWARE } from "./support/dry.ts";

const TARGETS: { readonly [name: string]: Target } = {
  "a software adapter": SOFTWARE,
  "a graphics card": CARD,
  "bindings of 4 KiB": { ...CARD, maxBindingBytes: 4096, maxBindings: 64 },
};

const SIZE = { vocab: 32, dim: 16, hidden: 24, layers: 2, heads: 2, kvHeads: 1, batch: 2 };

/** A backend that keeps the programs that it is given. */
class Recording extends DryBackend {
  readonly given: Program[] = [];
  override compile(program: Program): ReturnType<DryBackend["compile"]> {
    this.given.push(program);
    return super.compile(program);
  }
}

for (const [name, target] of Object.entries(TARGETS)) {
  test(`programs of many lengths are lowered as each would be alone, on ${name}`, async () => {
    const backend = new Recording(target);
    const step = decoderStep(new Device(backend), SIZE);
    for (const length of [5, 8, 9, 24]) await step(length, 0).data();
    const lowering = new Lowering(target);
    const rendered = backend.given.map((program) => {
      const before = lowering.rendered;
      assert.deepEqual(lowering.lower(program), lowerProgram(program, target));
      return lowering.rendered - before;
    });
    // what has no length in it is known from the second length on, and what was lowered once is not rendered again
    for (const count of rendered.slice(1)) assert.ok(count < rendered[0]!, rendered.join());
    const all = lowering.rendered;
    for (const program of backend.given) lowering.lower(program);
    assert.equal(lowering.rendered, all);
  });
}

/** Copies `length` numbers from one buffer to another; the buffers have so many bytes. */
function copy(length: number, from: number, to: number, bytes: readonly [number, number]): Program {
  const kernel: LoopKernel = {
    type: "loop",
    outer: [length],
    inner: [],
    body: [{ op: "load", from: denseOperand(from, "f32", [length]), dtype: "f32" }],
    stores: [{ to: denseOperand(to, "f32", [length]), value: 0 }],
  };
  const sized = from < to ? bytes : ([bytes[1], bytes[0]] as const);
  return { scalars: 0, buffers: sized.map((n) => ({ kind: "input", bytes: n })), steps: [kernel] };
}

test("sizes of buffers that fit a binding are bound, not rendered; larger ones are rendered apart", () => {
  const target = { ...CARD, maxBindingBytes: 1024 };
  const lowering = new Lowering(target);
  const lowered = (...[length, from, to, bytes]: Parameters<typeof copy>): number => {
    const program = copy(length, from, to, bytes);
    assert.deepEqual(lowering.lower(program), lowerProgram(program, target));
    return lowering.rendered;
  };
  assert.equal(lowered(100, 0, 1, [400, 400]), 1);
  assert.equal(lowered(100, 1, 0, [400, 404]), 1);
  assert.equal(lowered(100, 0, 1, [1024, 500]), 1);
  assert.equal(lowered(100, 0, 1, [1028, 500]), 2);
  assert.equal(lowered(100, 0, 1, [4096, 500]), 3);
  assert.equal(lowered(100, 0, 1, [4096, 600]), 3);
  assert.equal(lowered(101, 0, 1, [404, 404]), 4);
  assert.deepEqual(
    lowering.lower(copy(100, 1, 0, [400, 1000])).kernels.map(({ bindings }) => bindings.map((b) => [b.buffer, b.bytes])), // prettier-ignore
    [[[1, 400], [0, 1008]]], // prettier-ignore
  );
});

test("steps that no program has had for long are forgotten, and rendered again", () => {
  const lowering = new Lowering(CARD);
  const of = (length: number): number => {
    lowering.lower(copy(length, 0, 1, [1 << 16, 1 << 16]));
    return lowering.rendered;
  };
  for (let length = 1; length <= 1024; length++) of(length);
  assert.equal(of(1), 1024);
  assert.equal(of(2000), 1025); // instead of length 2
  assert.deepEqual([of(1), of(3), of(2)], [1025, 1025, 1026]);
});
