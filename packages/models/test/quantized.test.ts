/** Quantized weights on the host: codes are the nearest, values are the formulas' to the bit, and parts that do not fit are named. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  bytesSource,
  encode,
  FormatError,
  openSafetensors,
  serialize,
  type TensorFile,
} from "@tiedlora/core";
import { openBitsandbytes } from "../src/quantized/bitsandbytes.ts";
import { dequantize, type QuantizedRows, type QuantizedTensor } from "../src/quantized/form.ts";
import { quantizeInt8 } from "../src/quantized/int8.ts";
import { openMlx } from "../src/quantized/mlx.ts";
import { quantizeNf4 } from "../src/quantized/nf4.ts";
import { bitsandbytesTensors, mlxTensors, NF4_NUMBERS, type Parts, randoms } from "./support/quantized.ts";

/** The code of element i, read digit by digit from the number that the words make. */
function codeAt({ words, bits }: QuantizedTensor, i: number): number {
  const perWord = 32 / bits;
  const digits = words[Math.trunc(i / perWord)]!.toString(16).padStart(8, "0");
  const from = 8 - ((i % perWord) + 1) * (bits / 4);
  return Number.parseInt(digits.slice(from, from + bits / 4), 16);
}

describe("NF4", () => {
  test("a code is that of the nearest number of the table, of the block's largest magnitude", () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const values = randoms(seed, 3 * 128);
        const q = quantizeNf4(values, [3, 128]);
        assert.deepEqual([q.words.length, q.scales.length], [48, 6]);
        for (const [i, w] of values.entries()) {
          const block = values.subarray(i - (i % 64), i - (i % 64) + 64);
          const absmax = block.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          assert.equal(q.scales[Math.floor(i / 64)], absmax);
          const distances = NF4_NUMBERS.map((number) => Math.abs(number * absmax - w));
          const least = Math.min(...distances);
          // a quotient rounded to f32 may fall to the other side of a middle
          assert.ok(distances[codeAt(q, i)]! <= least + absmax * 2 ** -22, `${w} of ${absmax}`);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("the table's numbers keep their codes, and the middle between two takes the lower", () => {
    const block = new Float32Array(64);
    block.set(NF4_NUMBERS);
    block[20] = 0.03979014977812767; // the middle of codes 7 and 8, as bitsandbytes writes it
    block[21] = 0.03979015350341797; // the next number
    block[22] = -0.8480964004993439;
    const q = quantizeNf4(block, [1, 64]);
    assert.deepEqual(NF4_NUMBERS.map((_, i) => codeAt(q, i)), NF4_NUMBERS.map((_, i) => i)); // prettier-ignore
    assert.deepEqual([20, 21, 22].map((i) => codeAt(q, i)), [7, 8, 0]); // prettier-ignore
    assert.deepEqual(dequantize(q).subarray(0, 16), Float32Array.from(NF4_NUMBERS));
  });

  test("a block of zeros is zeros, of the smallest numbers finite; what is not finite shows in the scale", () => {
    const values = new Float32Array(256);
    values.fill(1e-45, 64, 128);
    values[130] = Infinity;
    values[200] = NaN;
    const q = quantizeNf4(values, [2, 128]);
    assert.deepEqual([...q.scales], [0, Math.fround(1e-45), Infinity, NaN]);
    const back = dequantize(q);
    assert.ok(back.subarray(0, 64).every((w) => w === 0));
    assert.ok(back.subarray(0, 128).every(Number.isFinite));
  });
});

describe("int8", () => {
  test("a value differs from the original by at most half a step, and the largest of a group is kept", () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(4, 32, 64), (seed, group) => {
        const values = randoms(seed, 2 * 192);
        const q = quantizeInt8(values, [2, 192], group);
        const back = dequantize(q);
        for (const [i, w] of values.entries()) {
          const scale = q.scales[Math.floor(i / group)]!;
          assert.equal(back[i], Math.fround(scale * (codeAt(q, i) - 128)));
          assert.ok(Math.abs(back[i] - w) <= scale * 0.5000002, `${w} is ${back[i]}, in steps of ${scale}`);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("halves are rounded to even", () => {
    const values = Float32Array.of(127, 0.5, 1.5, 2.5, -0.5, -1.5, -127, 126.5);
    const q = quantizeInt8(values, [1, 8], 8);
    assert.deepEqual([...dequantize(q)], [127, 0, 2, 2, -0, -2, -127, 126].map((n) => n + 0)); // prettier-ignore
  });

  test("groups that do not divide rows, or words that cross groups, are refused", () => {
    assert.throws(() => quantizeInt8(new Float32Array(96), [1, 96]), /rows of 96 elements.* groups of 64/);
    assert.throws(() => quantizeNf4(new Float32Array(48), [1, 48], 12), /groups of 12.* words/);
  });
});

const opened = async (parts: Parts): Promise<TensorFile> => openSafetensors(bytesSource(await serialize(parts.values()), "model.safetensors")); // prettier-ignore

/** All rows, read two and one at a time. */
async function values(rows: QuantizedRows): Promise<Float32Array> {
  const [out, inputs] = rows.shape as [number, number];
  const all = new Float32Array(out * inputs);
  for (let at = 0, step = 2; at < out; at += step, step = 3 - step)
    all.set(dequantize(await rows.read(at, Math.min(out, at + step))), at * inputs);
  return all;
}

describe("bitsandbytes", () => {
  const shape = [5, 128] as const;

  test("plain and nested weights are map[q] * absmax, the first of two in the high bits", async () => {
    for (const nested of [false, true]) {
      const { parts, expected } = bitsandbytesTensors("w", shape, 1, { nested });
      assert.deepEqual(await values(await openBitsandbytes(await opened(parts), "w", shape)), expected);
    }
  });

  test("bytes of a published model give the numbers that bitsandbytes gives", async () => {
    const { parts } = bitsandbytesTensors("w", [1, 64], 1, { nested: false });
    const bytes = Uint8Array.of(110, 90, 88, 44, 228, 163, 9, 25, ...new Uint8Array(24));
    parts.replace("w", "U8", [32, 1], bytes);
    parts.replace("w.absmax", "F32", [1], new Uint8Array(Float32Array.of(0.03125).buffer));
    const found = await values(await openBitsandbytes(await opened(parts), "w", [1, 64]));
    const printed = [-0.002838, 0.022583, -0.005768, 0.00769, -0.005768, 0.002487, -0.016357, 0.013794, 0.022583, -0.008911, 0.00769, -0.012329, -0.03125, 0.005035, -0.021729, 0.005035]; // prettier-ignore
    for (const [i, number] of printed.entries())
      assert.ok(Math.abs(found[i]! - number) <= Math.abs(number) * 2 ** -8, `${i}: ${found[i]}, ${number}`); // bf16
  });

  const state = (fields: object) => (parts: Parts) => parts.json("w.quant_state.bitsandbytes__nf4", fields);
  const good = { quant_type: "nf4", blocksize: 64, shape, nested_blocksize: 256, nested_offset: 0.5 };
  const faults: [string, boolean, (parts: Parts) => void, RegExp][] = [
    ["scales of another number", false, (p) => p.replace("w.absmax", "F32", [9], new Uint8Array(36)), /"w\.absmax": found F32 \[9\]; expected F32 or U8 of 10 elements/], // prettier-ignore
    ["no scales", false, (p) => p.delete("w.absmax"), /"w\.absmax": found no such tensor/],
    ["nested scales without factors", true, (p) => p.delete("w.nested_absmax"), /"w\.nested_absmax": found no such/], // prettier-ignore
    ["codes cut short", false, (p) => p.replace("w", "U8", [300, 1], new Uint8Array(300)), /"w": found U8 \[300, 1\]; expected U8 of 320/], // prettier-ignore
    ["another table", false, (p) => p.replace("w.quant_map", "F32", [16], new Uint8Array(64)), /quant_map": found 0 at 0; expected NF4/], // prettier-ignore
    ["fp4", false, (p) => p.rename("w.quant_state.bitsandbytes__nf4", "w.quant_state.bitsandbytes__fp4"), /type fp4; expected NF4/], // prettier-ignore
    [
      "another type in the description",
      false,
      state({ ...good, quant_type: "fp4" }),
      /quant_type "fp4"; expected "nf4"/,
    ],
    ["another shape", false, state({ ...good, shape: [128, 5] }), /shape \[128,5\]; expected \[5, 128\]/],
    ["blocks of no length", false, state({ ...good, blocksize: 0 }), /blocksize 0; expected a whole number/],
    ["blocks that cross rows", false, state({ ...good, blocksize: 256 }), /groups of 256 do not divide.*--quantize nf4/], // prettier-ignore
    [
      "an offset that is text",
      true,
      state({ ...good, nested_offset: "1" }),
      /nested_offset "1"; expected a number/,
    ],
    [
      "nested blocks of no length",
      true,
      state({ ...good, nested_blocksize: 0 }),
      /nested_blocksize 0; expected/,
    ],
    ["a description that is not JSON", false, (p) => p.replace("w.quant_state.bitsandbytes__nf4", "U8", [2], new Uint8Array([123, 255])), /not UTF-8/], // prettier-ignore
  ];
  for (const [what, nested, change, message] of faults)
    test(`${what}: refused by name`, async () => {
      const { parts } = bitsandbytesTensors("w", shape, 1, { nested });
      change(parts);
      const file = await opened(parts);
      await assert.rejects(openBitsandbytes(file, "w", shape), (error: unknown) => {
        assert.ok(error instanceof FormatError && error.file.startsWith("model.safetensors"));
        assert.match(error.message, message);
        return true;
      });
    });
});

describe("MLX", () => {
  test("values are scale * q + bias in f32, for all widths, groups and types of scales", async () => {
    for (const bits of [4, 8] as const)
      for (const group of [32, 64, 128])
        for (const dtype of ["f32", "f16", "bf16"] as const) {
          const settings = { bits, group };
          const { parts, expected } = mlxTensors("m", [3, 256], settings, dtype, group + bits);
          const rows = openMlx(await opened(parts), "m", [3, 256], settings);
          assert.deepEqual(await values(rows), expected);
        }
  });

  test("a stack of matrices is read as the rows of all of them", async () => {
    const settings = { bits: 4, group: 32 } as const;
    const { parts, expected } = mlxTensors("m", [6, 64], settings, "f16", 3);
    for (const [name, width] of [
      ["m.weight", 8],
      ["m.scales", 2],
      ["m.biases", 2],
    ] as const)
      // prettier-ignore
      parts.reshape(name, [2, 3, width]);
    const rows = openMlx(await opened(parts), "m", [2, 3, 64], settings);
    assert.deepEqual(dequantize(await rows.read(2, 5)), expected.slice(2 * 64, 5 * 64));
  });

  test("what does not fit is refused by name", async () => {
    const settings = { bits: 4, group: 64 } as const;
    const open = async (change: (parts: Parts) => void, other = {}): Promise<QuantizedRows> => {
      const { parts } = mlxTensors("m", [3, 128], settings, "f16", 1);
      change(parts);
      return openMlx(await opened(parts), "m", [3, 128], { ...settings, ...other });
    };
    const half = encode(new Float32Array(6), "f16");
    const cases: [(parts: Parts) => void, object, RegExp][] = [
      [() => undefined, { group: 32 }, /"m\.scales": found F16 \[3, 2\]; expected F32 or F16 or BF16 of 12/],
      [() => undefined, { bits: 8 }, /"m\.weight": found U32 \[3, 16\]; expected U32 of 96 elements/],
      [() => undefined, { group: 96 }, /"m\.weight": found rows of 128 elements, which groups of 96 do not divide/], // prettier-ignore
      [(p) => p.delete("m.biases"), {}, /"m\.biases": found no such tensor; expected F16 of 6/],
      [
        (p) => p.replace("m.biases", "BF16", [3, 2], new Uint8Array(half.buffer)),
        {},
        /"m\.biases": found BF16/,
      ],
    ];
    for (const [change, other, message] of cases) await assert.rejects(open(change, other), message);
  });
});
