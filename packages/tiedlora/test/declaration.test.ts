/** What a declaration can say beyond shapes and ties: places, frozen numbers by seed, integers, sums of products, rates, masks. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { arange, random } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  defineMethod,
  formatReport,
  init,
  inspect,
  loadAdapterFiles,
  type Method,
  type MethodSpec,
  nativeFiles,
  type Place,
  type PlainMethod,
} from "../src/index.ts";
import { asFiles, collect, withConfig } from "./support/files.ts";
import { IDS, logitsOf, lossOf, tinyLlama } from "./support/tiny.ts";

const PAIR = {
  A: { shape: ["rank", "in"], init: init.normal() },
  B: { shape: ["out", "rank"], init: init.zeros() },
} as const;

suite("a formula", () => {
  test("is told its site, layer, type and the sizes of factors", () => {
    const seen: Place[] = [];
    const method = defineMethod({
      name: "curious",
      rank: 2,
      target: { modules: ["q_proj", "down_proj"], layers: [1, 2] },
      factors: PAIR,
      lowRank: ({ A, B }, place) => {
        seen.push(place);
        return { A, B };
      },
    });
    const model = tinyLlama();
    adapt(model, method, { seed: 3 });
    model.forward(IDS);
    assert.deepEqual(
      seen.map(({ site, layer, type, dims }) => [site.path, layer, type, dims.layers, dims.types]),
      [1, 2].flatMap((at) => [
        [`model.layers.${at}.self_attn.q_proj`, at - 1, 0, 2, 2],
        [`model.layers.${at}.mlp.down_proj`, at - 1, 1, 2, 2],
      ]),
    );
    assert.deepEqual(seen[0]!.sizes, { A: 2 * 2 * (8 + 12), B: 2 * 2 * (8 + 8) });
    assert.equal(new Set(seen.map(({ key }) => String(key))).size, 4);
  });

  test("is given factors that only some sites have", async () => {
    const isDown = ({ path }: { readonly path: string }): boolean => path.endsWith("down_proj");
    const method = defineMethod({
      name: "some",
      rank: 2,
      target: ["q_proj", "down_proj"],
      factors: {
        gain: { shape: ["out"], init: init.zeros(), on: (site) => !isDown(site) },
        shift: { shape: [1], init: init.zeros(), on: isDown },
      },
      product: [],
      forward: ({ gain, shift }, { y, place }) => {
        assert.deepEqual(
          [gain === undefined, shift === undefined],
          [isDown(place.site), !isDown(place.site)],
        );
        return isDown(place.site) ? y.add(shift) : y.add(y.mul(gain));
      },
    });
    const model = tinyLlama();
    const before = await logitsOf(model);
    const adapter = adapt(model, method);
    assert.equal(adapter.count().trainable, 3 * (8 + 1));
    assert.deepEqual(await logitsOf(model), before);
  });
});

suite("frozen numbers by seed", () => {
  const make = (): PlainMethod =>
    defineMethod({
      name: "by-seed",
      rank: 2,
      factors: {
        A: { shape: ["rank", "in"], init: init.normal(), trained: false, bySeed: true },
        at: { shape: [2], init: init.integers(2), trained: false, bySeed: true },
        B: { shape: ["out", "rank"], init: init.zeros() },
      },
      product: ["A", "B"],
      lowRank: ({ A, at, B }, { key }) => ({
        A: A.take(at).mul(random.uniform(key, A.shape).add(1)),
        B,
      }),
    });

  test("are named in files by the seed, and come back the same", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, make(), { seed: 11 });
    optim.sgd(adapter.parameters(), { lr: 0.5 }).step(lossOf(model));
    const files = await collect(nativeFiles(adapter));
    const text = new TextDecoder().decode(files.get("adapter_model.safetensors") as Uint8Array);
    assert.ok(
      text.includes('qkv.B"') && !text.includes('qkv.A":{"dtype') && !text.includes('qkv.at":{"dtype'),
    );
    const again = tinyLlama();
    const loaded = await loadAdapterFiles(again, asFiles(files), { method: make() });
    assert.equal(loaded.seed, 11);
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
    // and from the second file, too
    assert.deepEqual(await collect(nativeFiles(loaded)), files);
  });

  test("are stored after all once they were changed, and read from there", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, make(), { seed: 11 });
    const path = "model.layers.1.self_attn.qkv.A";
    adapter.parameter(path).set(new Float32Array(16).fill(0.25));
    adapter.parameter("model.layers.1.self_attn.qkv.at").set(Int32Array.of(1, 1));
    const again = tinyLlama();
    const files = asFiles(await collect(nativeFiles(adapter)));
    const loaded = await loadAdapterFiles(again, files, { method: make() });
    assert.deepEqual([...(await loaded.parameter(path).data())], Array<number>(16).fill(0.25));
    assert.deepEqual([...(await loaded.parameter("model.layers.1.self_attn.qkv.at").data())], [1, 1]);
  });

  test("need the seed, and a file without it says what to add", async () => {
    const files = await collect(nativeFiles(adapt(tinyLlama(), make())));
    const without = withConfig(files, (config) => delete config["seed"]);
    await assert.rejects(loadAdapterFiles(tinyLlama(), asFiles(without), { method: make() }), {
      name: "FormatError",
      message: /"seed": found no seed; expected the seed of the frozen random numbers.*Add the seed/s,
    });
    const odd = withConfig(files, (config) => (config["seed"] = -1));
    await assert.rejects(
      loadAdapterFiles(tinyLlama(), asFiles(odd), { method: make() }),
      /whole number from 0/,
    );
  });

  test("are the same in every version", async () => {
    const adapter = adapt(tinyLlama(), make(), { seed: 1 });
    const A = await adapter.parameter("model.layers.0.self_attn.qkv.A").data();
    const at = await adapter.parameter("model.layers.2.self_attn.qkv.at").data();
    assert.deepEqual([Array.from(A.subarray(0, 2)), Array.from(at)], PINNED);
  });
});
const PINNED = [
  [0.38701313734054565, -0.20032809674739838],
  [1, 0],
];

suite("a declaration is refused", () => {
  const declare = (spec: Partial<MethodSpec<"A" | "B">>): Method =>
    defineMethod({ name: "odd", factors: PAIR, lowRank: ({ A, B }) => ({ A, B }), ...spec });
  const cases: readonly (readonly [string, Partial<MethodSpec<"A" | "B">>, RegExp])[] = [
    ["trained integers", { factors: { ...PAIR, A: { ...PAIR.A, init: init.integers(3) } } }, /A holds integers/],
    ["a trained factor by seed", { factors: { ...PAIR, A: { ...PAIR.A, bySeed: true } } }, /A is trained, so a seed/],
    ["a product of nothing known", { product: ["A", "C" as "A"] }, /product names C, which is no factor; expected some of A, B/],
    ["a second product that does not start at zero", { product: [["A", "B"], ["A"]] }, /no factor starts at zero/],
    ["a sum of which one product has two zeros", { factors: { A: { ...PAIR.A, init: init.zeros() }, B: PAIR.B }, product: [["A"], ["A", "B"]] }, /A, B all start at zero/],
  ]; // prettier-ignore
  for (const [what, spec, message] of cases)
    test(`with ${what}`, () => assert.throws(() => declare(spec), { message }));
});

test("masked elements count as frozen", () => {
  const method = defineMethod({ name: "masked", rank: 2, factors: PAIR, lowRank: ({ A, B }) => ({ A, B }) });
  const adapter = adapt(tinyLlama(), method);
  const all = adapter.count();
  adapter.mask({ factors: ["A"], layers: [0] }, [1, ...Array<number>(15).fill(0)]);
  assert.deepEqual(adapter.count(), { ...all, trainable: all.trainable - 15 });
  const [A] = inspect(adapter).factors.filter(({ factor }) => factor === "A");
  assert.equal(A!.trained, 3 * 16 - 15);
  assert.match(formatReport(inspect(adapter)), /A: 3 parameters, 48 numbers, 33 of them trained/);
  adapter.freeze({ factors: ["A"] });
  assert.equal(adapter.count().trainable, 3 * 32);
  adapter.unfreeze().mask({ factors: ["A"], layers: [0] }, null);
  assert.deepEqual(adapter.count(), all);
});

test("a span tells the start values which part of a factor they are", () => {
  const spans: unknown[] = [];
  const method = defineMethod({
    name: "spans",
    rank: 2,
    factors: {
      A: {
        shape: ["rank", "in"],
        init: { zero: false, label: "counted", fill: (shape, _, span) => (spans.push(span), Float32Array.from({ length: shape[0]! * shape[1]! }, (__, i) => i)) }, // prettier-ignore
      },
      B: PAIR.B,
    },
    lowRank: ({ A, B }) => ({ A: A.mul(arange(2).unsqueeze(1)), B }),
  });
  adapt(tinyLlama(), method);
  assert.deepEqual(
    spans,
    [0, 16, 32].map((offset) => ({ offset, total: 48 })),
  );
});
