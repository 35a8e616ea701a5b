/** The text of kernels serves all sizes of one structure; sizes are in their uniform buffers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device } from "@tiedlora/core";
import { BYTES, type LoopKernel, type Program } from "@tiedlora/kernels";
import fc from "fast-check";
import { decoderStep } from "../../../bench/decoder.ts";
import { type KernelCase, kernelCase, resized } from "../../backend-cpu/test/support/kernels.ts";
import { Helpers } from "../src/codegen/helpers.ts";
import { lowerProgram } from "../src/codegen/lower.ts";
import { reciprocal, Sizes } from "../src/codegen/sizes.ts";
import { HEADER, type Kernel, type Target } from "../src/codegen/target.ts";
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

/** The kernel that sums [rows, columns] elements, of which each row is the same. */
function sumOf(rows: number, columns: number): Kernel {
  const kernel: LoopKernel = {
    type: "loop",
    outer: [],
    inner: [rows, columns],
    body: [
      { op: "load", from: { buffer: 0, dtype: "f32", view: { offset: 0, strides: [0, 1] } }, dtype: "f32" },
      { op: "reduce", kind: "sum", a: 0, dtype: "f32" },
    ],
    stores: [{ to: { buffer: 1, dtype: "f32", view: { offset: 0, strides: [] } }, value: 1 }],
  };
  const [row, sum] = [{ kind: "input", bytes: 4 * columns }, { kind: "output", bytes: 4 }] as const; // prettier-ignore
  return lowerProgram({ scalars: 0, buffers: [row, sum], steps: [kernel] }, CARD).kernels[0]!;
}

test("reductions over more than 2^31 elements divide, and those that are too long to count are refused", () => {
  const columns = 2 ** 15 + 1;
  assert.match(sumOf(2 ** 16 - 3, columns).code, /highWord/);
  const { code, sizes } = sumOf(2 ** 16 - 1, columns);
  assert.doesNotMatch(code, /highWord/);
  assert.match(code, /let i1_above = c \/ size\d+;/);
  assert.ok(sizes.includes((2 ** 16 - 1) * columns));
  assert.throws(
    () => sumOf(2 ** 17, columns),
    new RegExp(
      `a reduction in ${2 ** 17 * columns} steps.* take at most 4294967040: reduce fewer axes at once`,
    ),
  );
});

test("numbers that a uniform buffer has no room for are part of the text", () => {
  const sizes = new Sizes(new Helpers());
  const texts = Array.from({ length: 17000 }, (_, i) => sizes.of("length", 3 * i));
  assert.deepEqual([texts[1], texts[16999], sizes.of("length", 3)], ["size1", "50997u", "size1"]);
  assert.ok(4 * (HEADER.length + sizes.words.length) <= 65536, `${sizes.words.length} words`);
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
