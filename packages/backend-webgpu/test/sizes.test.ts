/** The text of kernels serves all sizes of one structure; sizes are in their uniform buffers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device } from "@tiedlora/core";
import { BYTES, type Program } from "@tiedlora/kernels";
import fc from "fast-check";
import { decoderStep } from "../../../bench/decoder.ts";
import { type KernelCase, kernelCase, resized } from "../../backend-cpu/test/support/kernels.ts";
import { lowerProgram } from "../src/codegen/lower.ts";
import { reciprocal } from "../src/codegen/sizes.ts";
import type { Target } from "../src/codegen/target.ts";
import { CARD, DEFAULT_LIMITS, DryBackend, SOFTWARE } from "./support/dry.ts";

const TARGETS: { readonly [name: string]: Target } = {
  "the default limits": DEFAULT_LIMITS,
  "a software adapter": SOFTWARE,
  "a graphics card": CARD,
};

const SIZE = { vocab: 96, dim: 48, hidden: 88, layers: 2, heads: 4, kvHeads: 2, batch: 3 };

for (const [name, target] of Object.entries(TARGETS)) {
  test(`steps of six lengths have at most twice the kernels of one, on ${name}`, async () => {
    const backend = new DryBackend(target);
    const device = new Device(backend);
    const step = decoderStep(device, SIZE);
    const codes = new Set<string>();
    const counts: number[] = [];
    for (const length of [33, 34, 36, 47, 61, 72]) {
      await step(length, 0).data();
      for (const { code } of backend.programs.at(-1)!) codes.add(code);
      counts.push(codes.size);
    }
    assert.ok(counts.at(-1)! <= 2 * counts[0]!, counts.join());
  });
}

/** The text of a random kernel whose axes are longer by `more`. */
function textOf(drawn: KernelCase, more: number, target: Target): string {
  const { kernel, buffers, scalars } = resized(drawn, (length) => length + more);
  const program: Program = {
    scalars: scalars.length,
    buffers: buffers.map(({ dtype, length }) => ({ kind: "input", bytes: BYTES[dtype] * length })),
    steps: [kernel],
  };
  return lowerProgram(program, { ...target, maxBindings: 64 })
    .kernels.map(({ code }) => code)
    .join();
}

test("random kernels at four lengths have two texts or fewer on average: no size is in them", () => {
  const counts: number[] = [];
  fc.assert(
    fc.property(kernelCase(9), (drawn) => {
      for (const target of Object.values(TARGETS)) {
        const texts = new Set([4, 8, 12, 20].map((more) => textOf(drawn, more, target)));
        counts.push(texts.size);
      }
    }),
    { numRuns: 60 },
  );
  const sum = counts.reduce((a, b) => a + b, 0);
  // what is tuned by size has more: how many invocations share a row, and whether groups need a second dimension
  assert.ok(sum <= 2 * counts.length, `${sum / counts.length} texts`);
});

test("a multiplication divides exactly", () => {
  const quotient = (n: number, d: number): number => {
    const [factor, shift] = reciprocal(d);
    assert.ok(factor < 2 ** 32 && shift < 32, `${d}: ${factor}, ${shift}`);
    return Number(((2n * BigInt(n) * BigInt(factor)) >> 32n) >> BigInt(shift));
  };
  const most = 2 ** 31 - 1;
  const check = (n: number, d: number): void =>
    assert.equal(quotient(n, d), Math.floor(n / d), `${n} / ${d}`);
  for (let d = 1; d < 300; d++) for (const n of [0, 1, d - 1, d, d + 1, 1000, most - 1, most]) check(n, d);
  for (let e = 1; e < 31; e++)
    for (const d of [2 ** e - 1, 2 ** e, 2 ** e + 1])
      for (const n of [d - 1, d, most - (most % d) - 1, most - (most % d), most]) check(n, d);
  fc.assert(fc.property(fc.nat(most), fc.integer({ min: 1, max: most }), check));
});
