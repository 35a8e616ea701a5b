/** Exhaustive tests of half precision: every bit pattern, and numbers between adjacent values. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  bf16ToF32,
  BYTES,
  decode,
  type DType,
  encode,
  encodeTensor,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
} from "../src/index.ts";

const HALVES = [
  { name: "f16", widen: f16ToF32, narrow: f32ToF16, infinity: 0x7c00 },
  { name: "bf16", widen: bf16ToF32, narrow: f32ToBf16, infinity: 0x7f80 },
] as const;

for (const { name, widen, narrow, infinity } of HALVES) {
  test(`${name}: every pattern is widened exactly, and found again`, () => {
    for (let pattern = 0; pattern < 2 ** 16; pattern++) {
      const value = widen(pattern);
      assert.equal(Math.fround(value), value, `pattern ${pattern}`);
      if (Number.isNaN(value)) assert.ok(Number.isNaN(widen(narrow(value))), `pattern ${pattern}`);
      else assert.equal(narrow(value), pattern);
    }
  });

  test(`${name}: a number between two patterns becomes the nearer, the middle the even one`, () => {
    for (let pattern = 0; pattern + 1 < infinity; pattern++) {
      const [low, high] = [widen(pattern), widen(pattern + 1)];
      const middle = low + (high - low) / 2;
      const even = pattern % 2 === 0 ? pattern : pattern + 1;
      assert.equal(narrow(middle), even, `between ${low} and ${high}`);
      assert.equal(narrow(low + (high - low) / 4), pattern, `nearer to ${low}`);
      assert.equal(narrow(low + ((high - low) * 3) / 4), pattern + 1, `nearer to ${high}`);
      assert.equal(narrow(-middle), 0x8000 | even, `between ${-low} and ${-high}`);
    }
  });

  test(`${name}: what is too large becomes infinite`, () => {
    const largest = widen(infinity - 1);
    const step = largest - widen(infinity - 2);
    assert.equal(narrow(Math.fround(largest + step / 4)), infinity - 1);
    assert.equal(narrow(Math.fround(largest + step / 2)), infinity); // a tie: the even one is infinity
    assert.equal(narrow(-Infinity), 0x8000 | infinity);
  });
}

test("a number that is encoded as bool becomes 0 or 1", () => {
  const numbers = [0, -0, 1, 2, 256, -1, 0.5, NaN, Infinity];
  const expected = [0, 0, 1, 1, 1, 1, 1, 1, 1];
  assert.deepEqual([...encode(numbers, "bool")], expected);
  assert.deepEqual([...encodeTensor("bool", Float64Array.from(numbers))], expected);
});

test("arrays that are encoded and decoded hold the same numbers", () => {
  const whole: readonly DType[] = ["f32", "f64", "f16", "bf16", "i32", "u32"];
  const numbers = fc.array(fc.integer({ min: 0, max: 255 })); // exact in every type
  fc.assert(
    fc.property(fc.constantFrom(...whole), numbers, (dtype, values) => {
      const stored = encode(values, dtype);
      assert.equal(stored.BYTES_PER_ELEMENT, BYTES[dtype]);
      assert.deepEqual(Array.from(decode(stored.buffer, dtype, values.length)), values);
    }),
  );
});
