import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { type LinearInfo, resolveSites, type Target } from "../src/index.ts";
import { layerOf, typeOf } from "../src/match.ts";

const linear = (path: string, out = 4): LinearInfo => ({ path, in: 4, out });

const LLAMA = [0, 1, 10].flatMap((layer) => [
  linear(`model.layers.${layer}.self_attn.q_proj`, 8),
  linear(`model.layers.${layer}.self_attn.k_proj`),
  linear(`model.layers.${layer}.self_attn.v_proj`),
  linear(`model.layers.${layer}.self_attn.o_proj`),
  linear(`model.layers.${layer}.mlp.gate_proj`),
]);
const GPT2 = [0, 1].flatMap((layer) => [
  linear(`transformer.h.${layer}.attn.c_attn`, 12),
  linear(`transformer.h.${layer}.attn.c_proj`),
  linear(`transformer.h.${layer}.mlp.c_fc`),
  linear(`transformer.h.${layer}.mlp.c_proj`),
]);
const HEAD = linear("lm_head");

const paths = (linears: readonly LinearInfo[], target: Target): string[] =>
  resolveSites(linears, target).map((site) => site.path);

suite("targets", () => {
  test("qkv is one fused site of q, k and v, rows in this order", () => {
    const [site] = resolveSites(LLAMA, "qkv");
    assert.equal(site?.path, "model.layers.0.self_attn.qkv");
    assert.deepEqual([site.in, site.out], [4, 16]);
    assert.deepEqual(
      site.members.map(({ path, offset, out }) => [path.split(".").at(-1), offset, out]),
      [
        ["q_proj", 0, 8],
        ["k_proj", 8, 4],
        ["v_proj", 12, 4],
      ],
    );
  });

  test("qkv of GPT-2 is c_attn", () => {
    assert.deepEqual(paths(GPT2, "qkv"), ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]);
  });

  test("a name matches whole segments at the end", () => {
    assert.throws(() => paths(LLAMA, ["proj"]), { message: /matches no linear module/ });
    assert.equal(paths(GPT2, ["c_proj"]).length, 4);
    assert.deepEqual(paths(GPT2, ["attn.c_proj"]), [
      "transformer.h.0.attn.c_proj",
      "transformer.h.1.attn.c_proj",
    ]);
  });

  test("one name of several that matches nothing is an error too", () => {
    assert.throws(() => paths(LLAMA, ["q_proj", "query"]), {
      message: /\["query"\] matches no linear module/,
    });
  });

  test("a regular expression matches whole paths", () => {
    assert.throws(() => paths(LLAMA, /q_proj/), { message: /matches no linear module/ });
    assert.equal(paths(LLAMA, /.*\.q_proj/).length, 3);
    assert.equal(paths(LLAMA, /.*\.(q|k)_proj|x/).length, 6);
  });

  test("all-linear is everything but the output embedding", () => {
    assert.equal(paths([...LLAMA, HEAD], "all-linear").length, LLAMA.length);
  });

  test("the group may stand beside names", () => {
    assert.deepEqual(paths(LLAMA.slice(0, 5), ["qkv", "gate_proj"]), [
      "model.layers.0.self_attn.qkv",
      "model.layers.0.mlp.gate_proj",
    ]);
  });

  test("excludes and layers narrow them down", () => {
    assert.equal(paths(LLAMA, { modules: "all-linear", exclude: ["o_proj", "gate_proj"] }).length, 9);
    assert.deepEqual(paths(LLAMA, { modules: ["q_proj"], layers: [1] }), ["model.layers.1.self_attn.q_proj"]);
    assert.deepEqual(paths(LLAMA, { modules: ["q_proj"], layers: [0] }), ["model.layers.0.self_attn.q_proj"]);
    assert.throws(() => paths(LLAMA, { modules: ["q_proj"], layers: [0, 7] }), {
      message: /no module of the target is in layers 7; leave these out \(of the given layers, 0 have/,
    });
  });

  test("a bare string that is no target says how a name is given", () => {
    assert.throws(() => paths(LLAMA, "q_proj" as Target), {
      message: /a list of module names such as \["q_proj"\]/,
    });
  });
});

suite("a module's layer", () => {
  const cases: [string, string | undefined, number | null][] = [
    ["model.layers.10.self_attn.q_proj", undefined, 10],
    ["transformer.h.1.attn.c_attn", "h", 1],
    ["foo.bar.001.baz", undefined, 1],
    ["model.layers.3.experts.5.up", undefined, 3],
    ["bar.1.baz", "foo", null],
    ["lm_head", undefined, null],
  ];
  for (const [path, pattern, layer] of cases) {
    test(`of ${path}${pattern === undefined ? "" : ` after ${pattern}`} is ${layer}`, () => {
      assert.equal(layerOf(path, pattern), layer);
    });
  }

  test("is left out of its type, and only that number", () => {
    assert.equal(typeOf("model.layers.3.experts.5.up"), "model.layers.*.experts.5.up");
  });
});
