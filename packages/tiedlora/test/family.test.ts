/** Properties of the whole family, over sets of trained factors, ties, and models of every architecture. */
import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import fc from "fast-check";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, grad, key, normalArray } from "@tiedlora/core";
import { configFrom, createModel, type Decoder, type ModelType } from "@tiedlora/models";
import {
  adapt,
  adaptersOf,
  FACTOR_NAMES,
  type FactorName,
  type Init,
  init,
  loadAdapterFiles,
  methods,
  peftLoraFiles,
  peftVeraFiles,
  tiedLora,
} from "../src/index.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, lossOf, tinyLlama } from "./support/tiny.ts";

const device: Device = await cpu();
after(() => device.close());

const SUBSETS = Array.from({ length: 15 }, (_, i) =>
  FACTOR_NAMES.filter((_name, bit) => (i + 1) & (1 << bit)),
);

suite("for each of the 15 sets of trained factors, tied and not", () => {
  test("the model is unchanged at the start, and the factor at zero gets a gradient, the frozen ones none", async () => {
    for (const trained of SUBSETS) {
      for (const tied of [true, false]) {
        const model = tinyLlama(device, { num_hidden_layers: 2 });
        const adapter = adapt(model, tiedLora({ trained, tied, rank: 2 }));
        const what = `${trained.join("")} ${tied ? "tied" : "untied"}`;
        const ids = [[1, 2, 3]];
        const base = await adaptersOf(model).disabled(() => model.forward(ids).data());
        assert.deepEqual(await model.forward(ids).data(), base, what);
        const zero = adapter.plan.factors.filter(({ spec }) => spec.init.zero);
        assert.equal(new Set(zero.map(({ factor }) => factor)).size, 1, what);
        const wrt = zero.map(({ path }) => adapter.parameter(path));
        for (const gradient of grad(lossOf(model), wrt))
          assert.ok((await gradient.abs().max().item()) > 0, `${what}: no gradient`);
        const frozen = adapter.parameters().filter(({ requiresGrad }) => !requiresGrad);
        assert.ok(
          frozen.every(({ name }) => !trained.includes(name.split(".").at(-1) as FactorName)),
          what,
        );
      }
    }
  });
});

suite("start values", () => {
  const moments = (values: ArrayLike<number>): { mean: number; std: number; extreme: number } => {
    const list = Array.from(values);
    const mean = list.reduce((a, b) => a + b, 0) / list.length;
    const std = Math.sqrt(list.reduce((sum, x) => sum + (x - mean) ** 2, 0) / list.length);
    return { mean, std, extreme: Math.max(...list.map(Math.abs)) };
  };
  const columns = 400;
  const n = 64 * columns;
  const draw = (start: Init, shape: readonly number[]): ArrayLike<number> => start.fill(shape, key(1));

  test("of A are normal with variance 1/in by default, or uniform in ±1/√in, as peft's", () => {
    const bound = 1 / Math.sqrt(columns);
    const normal = moments(draw(init.normal(), [64, columns]));
    // five standard errors: of the mean std/√n, of the deviation std/√(2n)
    assert.ok(Math.abs(normal.mean) < (5 * bound) / Math.sqrt(n));
    assert.ok(Math.abs(normal.std - bound) < (5 * bound) / Math.sqrt(2 * n));
    const uniform = moments(draw(init.uniform(), [64, columns]));
    assert.ok(uniform.extreme <= bound && uniform.extreme > 0.999 * bound);
    assert.ok(Math.abs(uniform.std - bound / Math.sqrt(3)) < (5 * bound) / Math.sqrt(2 * n));
  });
});

suite("for models of every architecture, heads grouped in any way", () => {
  const shapes = fc.record({
    type: fc.constantFrom<ModelType>(
      "gpt2",
      "llama",
      "mistral",
      "qwen2",
      "qwen3",
      "olmo2",
      "phi3",
      "gemma2",
      "nemo_gpt",
    ),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    headDim: fc.constantFrom(2, 4, 6),
    layers: fc.integer({ min: 1, max: 3 }),
    rank: fc.integer({ min: 1, max: 5 }),
    alpha: fc.constantFrom(0.5, 1, 3, 8),
    trained: fc.constantFrom(...SUBSETS),
    seed: fc.integer({ min: 0, max: 1000 }),
  });
  type Shape = typeof shapes extends fc.Arbitrary<infer T> ? T : never;

  function build({ type, kvHeads, group, headDim, layers }: Shape): Decoder {
    const heads = kvHeads * group;
    const hidden = heads * headDim;
    const sizes =
      type === "gpt2"
        ? { n_embd: hidden, n_layer: layers, n_head: heads, n_positions: 8 }
        : {
            hidden_size: hidden,
            intermediate_size: hidden + 2,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kvHeads,
            head_dim: headDim,
          };
    const config = configFrom({ model_type: type, vocab_size: 13, initializer_range: 0.3, ...sizes });
    return createModel(config, { device, seed: 2 });
  }
  const IDS = [[1, 5, 9, 12]];
  const answers = async (model: Decoder): Promise<number[]> => [...(await model.forward(IDS).data())];

  test("exports as LoRA and as VeRA answer the same bit for bit, and merging nearly so", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const { rank, alpha, trained, seed } = shape;
        const model = build(shape);
        const method = tiedLora({ trained, rank, alpha: alpha * rank, keep: ["u", "v"] });
        const adapter = randomize(adapt(model, method), seed, 0.3);
        const wanted = await answers(model);
        for (const files of [peftLoraFiles(adapter), peftVeraFiles(adapter)]) {
          const fresh = build(shape);
          await loadAdapterFiles(fresh, asFiles(await collect(files)));
          assert.deepEqual(await answers(fresh), wanted);
        }
        await adaptersOf(model).merge();
        const size = Math.max(1, ...wanted.map(Math.abs));
        assert.ok(distance(await answers(model), wanted) < 2e-5 * size);
        adaptersOf(model).unmerge();
        assert.deepEqual(await answers(model), wanted);
      }),
      { numRuns: 12 },
    );
  });

  test("a mixed batch answers as each adapter alone", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const model = build(shape);
        randomize(
          adapt(model, methods.tl6({ rank: shape.rank }), { name: "a", active: false }),
          shape.seed,
          0.3,
        );
        randomize(
          adapt(model, methods.lora({ rank: 2, target: "all-linear" }), { name: "b", active: false }),
          1,
          0.3,
        );
        const rows = [0, 1, 2].map((row) =>
          [...normalArray(key(row), 4)].map((x) => Math.abs(Math.trunc(x * 4)) % 13),
        );
        const mixed = await adaptersOf(model)
          .mixed(["b", "a", "b"], () => model.forward(rows))
          .data();
        for (const [row, name] of ["b", "a", "b"].entries()) {
          const alone = await adaptersOf(model).withActive([name], () => model.forward([rows[row]!]).data());
          const part = mixed.subarray(row * alone.length, (row + 1) * alone.length);
          assert.ok(distance(part, alone) < 1e-5 * Math.max(1, ...alone), `row ${row}`);
        }
      }),
      { numRuns: 6 },
    );
  });
});
