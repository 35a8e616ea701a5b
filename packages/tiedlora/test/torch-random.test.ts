import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { SHARED, without } from "../../../test/support/shared.ts";
import { TorchGenerator, veraProjections } from "../src/files/torch-random.ts";

interface Case {
  readonly r: number;
  readonly in_features: number;
  readonly out_features: number;
  readonly seed: number;
  readonly A_first8: number[];
  readonly A_last4: number[];
  readonly B_first8: number[];
  readonly B_last4: number[];
  readonly A_sum64: number;
  readonly B_sum64: number;
}

suite("PyTorch's generator", () => {
  test("gives the published sequence of MT19937", () => {
    const generator = new TorchGenerator(5489);
    const words = Array.from({ length: 10_000 }, () => generator.next());
    assert.deepEqual(words.slice(0, 3), [3499211612, 581869302, 3890346734]);
    assert.equal(words[9_999], 4123659995); // as the C++ standard requires of std::mt19937
  });

  test("counts only the low 32 bits of a seed", () => {
    assert.equal(new TorchGenerator(2 ** 32 + 7).next(), new TorchGenerator(7).next());
    assert.equal(new TorchGenerator(-1).next(), new TorchGenerator(2 ** 32 - 1).next());
    assert.throws(() => new TorchGenerator(0.5), { message: /a seed of 0\.5; expected an integer/ });
  });

  const file = "fixtures/peft/vera_prng.json";
  test("draws VeRA's projections as PyTorch did, bit for bit", { skip: without(file) }, () => {
    const { cases } = JSON.parse(readFileSync(join(SHARED, file), "utf8")) as { cases: Case[] };
    assert.ok(cases.length > 0);
    for (const one of cases) {
      const { A, B } = veraProjections(one.seed, one.r, one.in_features, one.out_features);
      assert.deepEqual([A.length, B.length], [one.r * one.in_features, one.out_features * one.r]);
      assert.deepEqual(Array.from(A.slice(0, 8)), one.A_first8);
      assert.deepEqual(Array.from(A.slice(-4)), one.A_last4);
      assert.deepEqual(Array.from(B.slice(0, 8)), one.B_first8);
      assert.deepEqual(Array.from(B.slice(-4)), one.B_last4);
      // sums of all elements in float64; the fixture's may have another order of summation
      const sum = (values: Float32Array): number => values.reduce((total, value) => total + value, 0);
      assert.ok(Math.abs(sum(A) - one.A_sum64) < 1e-10 && Math.abs(sum(B) - one.B_sum64) < 1e-10);
    }
  });
});
