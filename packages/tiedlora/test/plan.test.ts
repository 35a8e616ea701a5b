import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import {
  countParameters,
  defineMethod,
  FACTOR_NAMES,
  type FactorName,
  init,
  type LinearInfo,
  methods,
  planAdapter,
  type Tie,
  tiedLora,
} from "../src/index.ts";
import { patternMatcher } from "../src/match.ts";

/** The attention linears of a Llama: L layers of width d, kv columns for keys and values. */
function llama(layers: number, d: number, kv = d): LinearInfo[] {
  return Array.from({ length: layers }, (_, layer) =>
    (["q_proj", "k_proj", "v_proj", "o_proj"] as const).map((name) => ({
      path: `model.layers.${layer}.self_attn.${name}`,
      in: d,
      out: name === "q_proj" || name === "o_proj" ? d : kv,
    })),
  ).flat();
}

suite("the number of trainable parameters", () => {
  const llama7b = llama(32, 4096);
  const gpt2b = llama(24, 2048);
  const count = (linears: LinearInfo[], name: "lora" | "vera" | "tl5" | "tl6", rank: number): number =>
    countParameters(linears, methods[name]({ rank })).trainable;

  test("is the paper's for LLaMA-2-7B", () => {
    assert.deepEqual(
      (["lora", "vera", "tl5", "tl6"] as const).map((name) => count(llama7b, name, 8)),
      [4_194_304, 393_472, 131_072, 524_544],
    );
    assert.equal(count(llama7b, "lora", 128), 67_108_864);
    assert.equal(count(llama7b, "tl6", 128), 2_494_464);
  });

  test("is the paper's for GPT-2B-001", () => {
    assert.deepEqual(
      (["lora", "vera", "tl5", "tl6"] as const).map((name) => count(gpt2b, name, 8)),
      [1_572_864, 147_648, 65_536, 213_184],
    );
  });

  test("follows the formula for all 15 sets of trained factors, tied and not, with any grouping of heads", () => {
    const shape = fc.record({
      layers: fc.integer({ min: 1, max: 6 }),
      kvHeads: fc.integer({ min: 1, max: 4 }),
      group: fc.integer({ min: 1, max: 4 }),
      headDim: fc.integer({ min: 1, max: 8 }),
      rank: fc.integer({ min: 1, max: 16 }),
    });
    fc.assert(
      fc.property(shape, ({ layers, kvHeads, group, headDim, rank }) => {
        const d = kvHeads * group * headDim;
        const out = d + 2 * kvHeads * headDim;
        for (const trained of subsets()) {
          for (const tied of [true, false]) {
            const copies = tied ? 1 : layers;
            const sizes = { v: layers * out, B: copies * out * rank, u: layers * rank, A: copies * rank * d };
            const expected = trained.reduce((n, name) => n + sizes[name], 0);
            const method = tiedLora({ trained, tied, rank });
            const { trainable } = countParameters(llama(layers, d, kvHeads * headDim), method);
            assert.equal(trainable, expected, `${trained.join("")} ${tied ? "tied" : "untied"}`);
          }
        }
      }),
      { numRuns: 30 },
    );
  });
});

function subsets(): FactorName[][] {
  return Array.from({ length: 15 }, (_, i) => FACTOR_NAMES.filter((_name, bit) => (i + 1) & (1 << bit)));
}

suite("tying", () => {
  const one = (tie: Tie, target: readonly string[] = ["q_proj", "k_proj", "v_proj", "o_proj"]) =>
    planAdapter(
      llama(6, 8, 4),
      defineMethod({
        name: "test",
        rank: 2,
        target,
        product: [],
        factors: { A: { shape: ["rank", "in"], init: init.normal(), tie } },
        lowRank: ({ A }) => ({ A, B: A.transpose() }),
      }),
    ).factors;

  test("over nothing gives each module its own", () => {
    assert.equal(one("none").length, 24);
  });
  test("over all layers shares by type of module", () => {
    assert.deepEqual(
      one("all").map((plan) => plan.aliases.length),
      [6, 6, 6, 6],
    );
  });
  test("over blocks shares within each", () => {
    assert.deepEqual(
      one({ blocks: 4 }, ["q_proj"]).map((plan) => plan.aliases.length),
      [4, 2],
    );
  });
  test("over a layer shares by shape", () => {
    assert.equal(one("layer").length, 6);
  });
  test("over equal shapes shares across types of modules", () => {
    assert.deepEqual(
      one("shape").map((plan) => plan.aliases.length),
      [24],
    );
  });
  test("by a function shares where it says", () => {
    assert.equal(one((site) => String(site.layer! % 2)).length, 2);
  });
  test("by lists of paths shares within each, and leaves the others alone", () => {
    const paths = [0, 1, 2].map((i) => `model.layers.${i}.self_attn.q_proj`);
    const plans = one({ groups: [[paths[0]!, paths[2]!]] }, ["q_proj"]);
    assert.deepEqual(plans.slice(0, 2).map((plan) => plan.sites.map(({ layer }) => layer)), [[0, 2], [1]]); // prettier-ignore
  });
  test("over the model is as large as the largest module", () => {
    const [plan] = planAdapter(
      llama(2, 8, 4),
      methods.vera({ rank: 3, target: ["q_proj", "v_proj"] }),
    ).factors.filter(({ factor }) => factor === "B");
    assert.deepEqual(plan?.shape, [8, 3]);
    assert.equal(plan.aliases.length, 4);
  });

  test("by VB-LoRA is of one bank, whose vectors fit modules of all sizes", () => {
    const linears = [[16, 16], [16, 8], [16, 20], [20, 16]].map(([from, out], i) => ({ path: `layers.0.m${i}`, in: from!, out: out! })); // prettier-ignore
    const { factors } = planAdapter(linears, methods.vbLora({ rank: 2, vectors: 6, target: "all-linear" }));
    const banks = factors.filter(({ factor }) => factor === "bank");
    assert.deepEqual([banks.length, banks[0]!.shape, banks[0]!.aliases.length], [1, [6, 4], 4]);
    const pieces = factors.filter(({ factor }) => factor === "b").map(({ shape }) => shape[1]);
    assert.deepEqual(pieces, [4, 2, 5, 4]);
  });

  test("modules of different sizes by type is refused, with both named", () => {
    const linears = [
      { path: "layers.0.up", in: 4, out: 8 },
      { path: "layers.1.up", in: 4, out: 6 },
    ];
    assert.throws(() => planAdapter(linears, methods.tl6({ target: ["up"] })), {
      message: /B cannot be shared by layers\.1\.up and layers\.0\.up: .*\[6, 8\].*\[8, 8\]/,
    });
  });

  test("that matches no module is an error, and says what there is", () => {
    assert.throws(() => planAdapter(llama(2, 8), methods.tl6({ target: ["attention.query"] })), {
      message: /matches no linear module; the model has q_proj, k_proj, v_proj, o_proj/,
    });
  });
});

suite("ranks and alphas of single modules", () => {
  test("follow the first pattern that matches, as in PEFT", () => {
    const method = methods.lora({
      rank: 8,
      alpha: 16,
      target: ["q_proj", "v_proj"],
      rankPattern: { "0\\.(self_)?attn\\..*": 2, q_proj: 4 },
      alphaPattern: { "^model\\.layers\\.1\\..*v_proj": 3 },
    });
    const { sites } = planAdapter(llama(2, 8), method);
    assert.deepEqual(
      sites.map(({ dims, scale }) => [dims.rank, scale]),
      [
        [2, 8],
        [2, 8],
        [4, 4],
        [8, 3 / 8],
      ],
    );
  });

  test("keys are names, whole paths or expressions, and mean what they mean as regular expressions", () => {
    const paths = ["model.layers.1.attn.q", "model.layers.11.attn.q", "q", "model.layers.1.attn.xq", "a-q"];
    for (const key of [
      "q",
      "attn.q",
      "1.attn.q",
      "^q$",
      "^model\\.layers\\.1\\.attn\\.q$",
      "^q",
      "xq|a-q",
      "l.yers.1.attn.q",
      ".q",
      "layers\\.\\d+\\..*",
    ]) {
      // prettier-ignore
      const expected = paths.filter((path) => new RegExp(`^(?:.*\\.)?(?:${key})$`).test(path));
      assert.deepEqual(paths.filter(patternMatcher(key)), expected, key);
    }
  });

  test("a pattern that matches nothing is an error", () => {
    const method = methods.lora({ target: ["q_proj"], rankPattern: { k_proj: 4 } });
    assert.throws(() => planAdapter(llama(2, 8), method), { message: /rankPattern "k_proj" matches none/ });
  });
});
