import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { assertNear } from "./support/near.ts";
import { configFrom } from "../src/config.ts";
import { ropeFrequencies, ropeTables, type RopeScaling } from "../src/rope.ts";

const near = (actual: Iterable<number>, expected: readonly number[], tolerance = 1e-12): void => {
  const list = [...actual];
  assert.equal(list.length, expected.length);
  for (const [i, x] of list.entries())
    assert.ok(Math.abs(x / expected[i]! - 1) < tolerance, `${i}: ${x}, ${expected[i]}`);
};
const frequencies = (scaling: RopeScaling, length = 16, theta = 10_000, dim = 8): number[] => [
  ...ropeFrequencies({ theta, dim, scaling }, length).perPosition,
];
const PLAIN = [1, 0.1, 0.01, 0.001];

test("default: theta^(-2i/dim)", () => near(frequencies({ type: "default" }), PLAIN));

test("linear: all frequencies divided", () => {
  near(
    frequencies({ type: "linear", factor: 4 }),
    PLAIN.map((f) => f / 4),
  );
});

test("dynamic: unchanged up to the original length, then a larger base", () => {
  const dynamic = { type: "dynamic", factor: 2, original: 16 } as const;
  near(frequencies(dynamic, 16), PLAIN);
  const base = 10_000 * (2 * 2 - 1) ** (8 / 6); // at twice the original length
  near(
    frequencies(dynamic, 32),
    [0, 1, 2, 3].map((i) => base ** (-i / 4)),
  );
});

test("llama3: short waves kept, long ones divided, a smooth passage between", () => {
  const llama3 = {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    original: 200,
  } as const;
  // wave lengths 2π, 20π, 200π, 2000π against 200/4 = 50 and 200/1
  const smooth = (200 / (20 * Math.PI) - 1) / 3;
  near(frequencies(llama3), [1, (1 - smooth) * (0.1 / 8) + smooth * 0.1, 0.01 / 8, 0.001 / 8]);
});

test("yarn: a ramp between the frequencies of beta_fast and beta_slow turns", () => {
  const yarn = {
    type: "yarn",
    factor: 4,
    original: 4096,
    attentionFactor: 1,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
  } as const;
  // dim of t turns: 8 ln(4096 / 2πt) / (2 ln 10000): 1.310 for 32 and 2.815 for 1 -> ramp from 1 to 3
  const kept = [1, 1, 0.5, 0];
  near(
    frequencies(yarn),
    PLAIN.map((f, i) => kept[i]! * f + ((1 - kept[i]!) * f) / 4),
  );
});

test("longrope: short factors up to the original length, long ones beyond", () => {
  const longrope = {
    type: "longrope",
    original: 16,
    attentionFactor: 1,
    shortFactor: [1, 1, 1, 2],
    longFactor: [1, 2, 3, 4],
  } as const;
  near(frequencies(longrope, 16), [1, 0.1, 0.01, 0.0005]);
  near(frequencies(longrope, 17), [1, 0.05, 0.01 / 3, 0.00025]);
});

test("attention factors of yarn and longrope as their papers suggest", () => {
  const raw = {
    model_type: "llama",
    vocab_size: 9,
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 1,
  };
  const of = (scaling: Record<string, unknown>, positions = 64): number =>
    ropeFrequencies(
      configFrom({ ...raw, max_position_embeddings: positions, rope_scaling: scaling }).rope!,
      1,
    ).attentionFactor;
  near([of({ rope_type: "yarn", factor: 4 })], [0.1 * Math.log(4) + 1]);
  near([of({ rope_type: "yarn", factor: 4, attention_factor: 0.5 })], [0.5]);
  near(
    [of({ rope_type: "yarn", factor: 4, mscale: 0.7, mscale_all_dim: 0.5 })],
    [(0.07 * Math.log(4) + 1) / (0.05 * Math.log(4) + 1)],
  );
  const factors = { short_factor: [1, 1, 1, 1], long_factor: [1, 1, 1, 1] };
  const longrope = { rope_type: "longrope", original_max_position_embeddings: 16, ...factors };
  near([of(longrope, 64)], [Math.sqrt(1 + Math.log(4) / Math.log(16))]);
  assert.throws(
    () => of({ ...longrope, short_factor: [1] }),
    /short_factor": found \[1\]; expected a list of 4 numbers above 0/,
  );
});

test("tables: cos² + sin² is the square of the attention factor; position 0 turns nothing", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(5000), { minLength: 1, maxLength: 9 }), (positions) => {
      const scaling = {
        type: "yarn",
        factor: 4,
        original: 64,
        attentionFactor: 1.25,
        betaFast: 32,
        betaSlow: 1,
        truncate: true,
      } as const;
      const { cos, sin } = ropeTables({ theta: 10_000, dim: 8, scaling }, [0, ...positions], 5001);
      assert.equal(cos.length, (positions.length + 1) * 4);
      assertNear(
        cos.map((c, i) => c ** 2 + sin[i]! ** 2),
        cos.map(() => 1.25 ** 2),
        1e-5,
      );
      assert.deepEqual(Array.from(cos.slice(0, 4)), [1.25, 1.25, 1.25, 1.25]);
    }),
  );
});
