/** Quantized weights: their numbers, products with them, rows of them, and what is refused. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  codeValue,
  Device,
  explain,
  f16ToF32,
  grad,
  key,
  normalArray,
  Parameter,
  type Quantization,
  reference,
  ReferenceBackend,
  uniformArray,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

const HOWS: readonly Quantization[] = [
  { bits: 4, group: 32, table: "nf4" },
  { bits: 4, group: 64, table: "linear" },
  { bits: 8, group: 32, table: "signed" },
  { bits: 8, group: 64, table: "linear" },
  { bits: 4, group: 8, table: "signed" },
];

/** A weight with random codes and scales. */
function draw(
  how: Quantization,
  shape: readonly number[],
  { biases = false, half = false } = {},
): nn.QuantizedValues {
  const size = shape.reduce((a, b) => a * b, 1);
  const words = Uint32Array.from(uniformArray(key(1), (size * how.bits) / 32, 0, 2 ** 32), Math.floor);
  const numbers = (seed: number): nn.ScaleValues =>
    half
      ? {
          values: Uint16Array.from(uniformArray(key(seed), size / how.group, 0x2000, 0x2c00), Math.floor),
          dtype: "f16",
        }
      : Float32Array.from(normalArray(key(seed), size / how.group, 0, 0.1));
  return { ...how, shape, words, scales: numbers(2), ...(biases ? { biases: numbers(3) } : {}) };
}

/** The numbers by the formula, each product and sum rounded to f32. */
function formula({ bits, group, words, scales, biases, ...how }: nn.QuantizedValues): Float32Array {
  const at = (from: nn.ScaleValues, i: number): number =>
    "dtype" in from ? f16ToF32(from.values[i]!) : from[i]!;
  const size = (words.length * 32) / bits;
  return Float32Array.from({ length: size }, (_, i) => {
    const q = (words[Math.floor((i * bits) / 32)]! >>> ((i * bits) % 32)) & (2 ** bits - 1);
    const g = Math.floor(i / group);
    const scaled = Math.fround(codeValue({ bits, group, ...how }, q) * at(scales, g));
    return biases ? Math.fround(scaled + at(biases, g)) : scaled;
  });
}

for (const how of HOWS) {
  for (const options of how.table === "linear" ? [{}, { half: true, biases: true }] : [{}, { half: true }]) {
    const title = `${how.table}, ${how.bits} bits, groups of ${how.group}${Object.keys(options)
      .map((name) => `, ${name}`)
      .join("")}`;
    test(`a quantized weight has the numbers of the formula, bit for bit: ${title}`, async () => {
      const device = reference();
      const values = draw(how, [3, 5, 64], options);
      const weight = nn.QuantizedParameter.fromValues(device, values, "weight");
      assert.deepEqual(await weight.data(), formula(values));
      device.close();
    });
    for (const lowerAll of [false, true]) {
      test(`a layer with it computes what one with its numbers does, forward and backward${lowerAll ? ", in loops" : ""}: ${title}`, async () => {
        const device = new Device(new ReferenceBackend({ lowerAll }));
        const values = draw(how, [7, 64], options);
        const plain = Parameter.from(device, formula(values), [7, 64]);
        const weight = nn.QuantizedParameter.fromValues(device, values, "weight");
        const x = Parameter.from(device, normalArray(key(4), 3 * 64), [3, 64]);
        const results = await Promise.all(
          [plain, weight].map(async (w) => {
            const y = new nn.Linear(w).forward(x);
            const [g] = grad(y.square().sum(), [x]);
            return [await y.data(), await g!.data()];
          }),
        );
        for (const i of [0, 1]) {
          const [expected, found] = [results[0]![i]!, results[1]![i]!];
          const largest = Math.max(...expected.map(Math.abs));
          expected.forEach((value, at) => assert.ok(Math.abs(value - found[at]!) < 1e-6 * largest));
        }
        device.close();
      });
    }
  }
}

test("rows of a quantized table are dequantized alone; a row out of range is NaN", async () => {
  const device = reference();
  const values = draw({ bits: 4, group: 32, table: "nf4" }, [9, 64]);
  const table = nn.QuantizedParameter.fromValues(device, values, "table");
  const rows = new nn.Embedding(table).forward(device.tensor([8, 0, 9], { dtype: "i32" }));
  const numbers = formula(values);
  const expected = [...numbers.slice(8 * 64), ...numbers.slice(0, 64), ...new Array<number>(64).fill(NaN)];
  assert.deepEqual([...(await rows.data())], expected);
  assert.ok(explain(rows).steps.every(({ name }) => !name.includes(`${9 * 64}`)));
  device.close();
});

test("a training step keeps no copy of a quantized weight in memory", () => {
  const device = reference();
  const weight = nn.QuantizedParameter.fromValues(
    device,
    draw({ bits: 4, group: 64, table: "nf4" }, [512, 256]),
  );
  const x = Parameter.from(device, normalArray(key(4), 2 * 256), [2, 256]);
  const layer = new nn.Linear(weight);
  const [g] = grad(layer.forward(x).square().sum(), [x]);
  const plan = explain(g!);
  assert.ok(plan.tempBytes < 16384, `${plan.tempBytes} bytes of temporaries`);
  device.close();
});

test("a stack of quantized weights, and one weight of it, are factors of products", async () => {
  const device = reference();
  const values = draw({ bits: 4, group: 32, table: "nf4" }, [4, 6, 32]);
  const stack = nn.QuantizedParameter.fromValues(device, values);
  const x = device.tensor(normalArray(key(5), 4 * 2 * 32), { shape: [4, 2, 32] });
  const all = x.matmul(stack.transpose());
  const one = x
    .narrow(0, 2, 1)
    .squeeze(0)
    .matmul(
      nn
        .dequantize(
          stack.quantization,
          stack.words.narrow(0, 2, 1).squeeze(0),
          stack.scales.narrow(0, 2, 1).squeeze(0),
        )
        .transpose(),
    );
  assert.deepEqual(await one.data(), await all.narrow(0, 2, 1).squeeze(0).data());
  assert.ok(!String(explain(one)).includes("elements"), String(explain(one)));
  device.close();
});

test("a quantized weight is frozen, and what does not fit is named", () => {
  const device = reference();
  const values = draw({ bits: 4, group: 32, table: "nf4" }, [4, 64]);
  const weight = nn.QuantizedParameter.fromValues(device, values, "layer.weight");
  assert.equal(weight.requiresGrad, false);
  assert.throws(() => new nn.Linear(weight).unfreeze(), /layer\.weight is quantized, hence frozen/);
  const state = new Map([["weight", new Float32Array(256)]]);
  assert.throws(() => new nn.Linear(weight).loadStateDict(state), /loadStateDict: \[weight\] are quantized/);
  assert.throws(() => weight.set(), /layer\.weight is quantized and keeps its values/);
  const loss = new nn.Linear(weight).forward(device.tensor(new Float32Array(64), { shape: [1, 64] })).sum();
  assert.throws(() => grad(loss, [weight.scales]), /scales and biases of a quantized weight are frozen/);
  const broken = (change: Partial<nn.QuantizedValues>): (() => unknown) => {
    return () => nn.QuantizedParameter.fromValues(device, { ...values, ...change });
  };
  assert.throws(broken({ group: 48 }), /groups of 48 do not fit rows of 64/);
  assert.throws(broken({ bits: 8, table: "linear" }), /32 values were given for shape \[4, 16\]/);
  assert.throws(broken({ table: "nf5" as "nf4" }), /there is no table "nf5" for codes of 4 bits/);
  const { words } = weight;
  const wide = Parameter.from(device, new Float32Array(16), [4, 4]);
  assert.throws(
    () => nn.dequantize(weight.quantization, words, wide),
    /the scales are f32 \[4, 4\].* take f32 \[4, 2\]/,
  );
  assert.throws(() => nn.dequantize(weight.quantization, wide, wide), /the words are f32 \[4, 4\]; give u32/);
  device.close();
});
