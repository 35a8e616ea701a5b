import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { reference } from "@tiedlora/core";
import { adaptableSpecs, parameterSpecs } from "@tiedlora/models";
import { adapt, countParameters, FACTOR_NAMES, formatReport, inspect, METHOD_NAMES, methodByName, methods, tiedLora } from "../src/index.ts"; // prettier-ignore
import { tinyGpt2, tinyLlama } from "./support/tiny.ts";

suite("what an adapter consists of", () => {
  test("is every matched module, every parameter with all its aliases, and counts for each factor", () => {
    const report = inspect(adapt(tinyLlama(), methods.tl3({ rank: 2, alpha: 3 })));
    assert.deepEqual(
      report.modules.map(({ path }) => path),
      [0, 1, 2].map((i) => `model.layers.${i}.self_attn.qkv`),
    );
    assert.deepEqual(report.modules[0], {
      path: "model.layers.0.self_attn.qkv",
      modules: ["q_proj", "k_proj", "v_proj"].map((name) => `model.layers.0.self_attn.${name}`),
      in: 8,
      out: 16,
      rank: 2,
      scale: 1.5,
    });
    const B = report.parameters.find(({ factor }) => factor === "B")!;
    assert.deepEqual(B.aliases, [0, 1, 2].map((i) => `model.layers.${i}.self_attn.qkv.B`)); // prettier-ignore
    assert.deepEqual([B.path, B.shape, B.trained], [B.aliases[0], [16, 2], true]);
    assert.deepEqual(report.factors, [
      { factor: "B", parameters: 1, places: 3, size: 32, trained: 32 },
      { factor: "u", parameters: 3, places: 3, size: 6, trained: 6 },
      { factor: "A", parameters: 1, places: 3, size: 16, trained: 0 },
    ]);
    assert.deepEqual([report.trainable, report.total], [38, 54]);
  });

  test("can be read by a person", () => {
    const text = formatReport(inspect(adapt(tinyLlama(), methods.tl3({ rank: 2 }), { name: "mine" })));
    for (const part of [
      'adapter "mine", tl3: 38 of 54 numbers trained',
      "B: 1 parameter tied over 3 places, 32 numbers, trained",
      "A: 1 parameter tied over 3 places, 16 numbers, frozen",
      "model.layers.0.self_attn.qkv.B [16, 2] trained, tied over 3 places",
      "= model.layers.2.self_attn.qkv.B",
      "3 adapted modules:",
      "(3 modules)",
    ])
      assert.ok(text.includes(part), `${part}\n${text}`);
  });

  test("is summed up in peft's line, where tied numbers count once", () => {
    const model = tinyGpt2();
    const base = model.parameters().reduce((n, { size }) => n + size, 0);
    const adapter = adapt(model, methods.tl5({ rank: 2, modulesToSave: ["ln_f"] }));
    const trainable = 2 * (8 + 24) + 16;
    const all = base + trainable;
    const line = `trainable params: ${trainable} || all params: ${all.toLocaleString("en-US")} || trainable%: ${((100 * trainable) / all).toFixed(4)}`;
    assert.equal(adapter.trainableSummary(), line);
  });
});

suite(
  "counted from the architecture, and in an adapter that was really built, the numbers are the same",
  () => {
    const device = reference();
    for (const [name, make] of Object.entries({ tinyLlama, tinyGpt2 })) {
      for (const target of ["qkv", "all-linear"] as const) {
        test(`by every method, on ${name}, ${target}`, async () => {
          const { config } = make(device);
          const [infos, parameters] = [adaptableSpecs(config), parameterSpecs(config)];
          for (const method of METHOD_NAMES.map((one) => methodByName(one, { rank: 4, target }))) {
            const adapter = await adapt(make(device), method);
            assert.deepEqual(adapter.count(), countParameters(infos, method, parameters), method.name);
          }
        });
      }
    }

    test("by the paper's formulas", () => {
      const [L, d, kv, r] = [3, 8, 4, 2];
      const out = d + 2 * kv;
      const built = (method: ReturnType<typeof methods.lora>): number =>
        adapt(tinyLlama(device), method).count().trainable;
      assert.equal(built(methods.lora({ rank: r })), L * (d + out) * r);
      assert.equal(built(methods.vera({ rank: r })), L * (r + out));
      assert.equal(built(methods.tl1({ rank: r })), d * r);
      assert.equal(built(methods.tl2({ rank: r })), d * r + out * L);
      assert.equal(built(methods.tl3({ rank: r })), (L + out) * r);
      assert.equal(built(methods.tl4({ rank: r })), (L + out) * r + out * L);
      assert.equal(built(methods.tl5({ rank: r })), (d + out) * r);
      assert.equal(built(methods.tl6({ rank: r })), (L + d + out) * r + out * L);
      assert.equal(built(methods.shareLoraA({ rank: r })), (d + L * out) * r);
      assert.equal(built(methods.shareLoraB({ rank: r })), (L * d + out) * r);
      assert.equal(built(methods.shareLoraAB({ rank: r })), (d + out) * r);
      assert.equal(built(methods.loraFa({ rank: r })), L * out * r);
      for (let bits = 1; bits < 16; bits++) {
        const trained = FACTOR_NAMES.filter((_, bit) => bits & (1 << bit));
        for (const tied of [true, false]) {
          const copies = tied ? 1 : L;
          const sizes = { v: L * out, B: copies * out * r, u: L * r, A: copies * r * d };
          const expected = trained.reduce((n, factor) => n + sizes[factor], 0);
          assert.equal(built(tiedLora({ trained, tied, rank: r })), expected, `${trained.join("")} ${tied}`);
        }
      }
    });
  },
);
