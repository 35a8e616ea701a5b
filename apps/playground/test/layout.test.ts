/** The drawing of the network: whatever is trained and tied, every part has its place, and none lies under another. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { linearSpecs, preset } from "@tiedlora/models";
import {
  FACTOR_NAMES,
  type LinearInfo,
  type Method,
  METHOD_NAMES,
  methodByName,
  planAdapter,
  type Tie,
  tiedLora,
} from "tiedlora";
import { type Box, layOut, type Layout } from "../src/page/layout.ts";
import { type DrawnPlan, drawnPlan } from "../src/plan.ts";

const WIDTHS = [260, 330, 420, 560];
const LAYERS = 6;
const TIES: readonly (Tie | false)[] = [
  false,
  "all",
  "layer",
  "shape",
  "model",
  { blocks: 2 },
  { blocks: 5 },
];

/** A model of the base model's kind, with an output embedding that stands outside of the layers. */
const LINEARS: readonly LinearInfo[] = [
  ...Array.from({ length: LAYERS }, (_, i) =>
    [
      ["self_attn.q_proj", 96, 96],
      ["self_attn.k_proj", 96, 96],
      ["self_attn.v_proj", 96, 96],
      ["self_attn.o_proj", 96, 96],
      ["mlp.up_proj", 96, 192],
      ["mlp.down_proj", 192, 96],
    ].map(([name, width, out]) => ({
      path: `model.layers.${i}.${name}`,
      in: width as number,
      out: out as number,
    })),
  ).flat(),
  { path: "lm_head", in: 96, out: 480 },
];

const weightOf = (layer: number): string | null =>
  LINEARS.find(({ path }) => path.includes(`.${layer}.`))?.path ?? null;

function overlaps(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

const within = (inner: Box, outer: Box): boolean =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width &&
  inner.y + inner.height <= outer.y + outer.height;

function check(plan: DrawnPlan, layout: Layout, what: string): void {
  const boxes = [...layout.factors, ...layout.weights].map(({ box }) => box);
  for (const [i, box] of boxes.entries()) {
    assert.ok(within(box, { x: 0, y: 0, ...layout }), `${what}: a part is off the drawing`);
    for (const other of boxes.slice(i + 1))
      assert.ok(!overlaps(box, other), `${what}: ${JSON.stringify(box)} lies on ${JSON.stringify(other)}`);
  }
  assert.deepEqual(
    layout.factors.map(({ factor }) => factor.path).sort(),
    plan.factors.map(({ path }) => path).sort(),
    `${what}: every factor is drawn once`,
  );
  for (const { band, box } of [...layout.factors, ...layout.weights]) {
    if (band === null)
      for (const { box: row } of layout.bands)
        assert.ok(!overlaps(box, row), `${what}: shared, but in a band`);
    else assert.ok(within(box, layout.bands[band]!.box), `${what}: a part is outside of its band`);
  }
  for (const { factor, band } of layout.factors) {
    const bands = new Set(factor.sites.map((i) => plan.sites[i]!.layer ?? LAYERS));
    const wired = layout.wires.filter((wire) => wire.factor === factor).map((wire) => wire.band);
    assert.deepEqual(
      band === null ? wired : [band],
      [...bands],
      `${what}: ${factor.path} reaches its layers`,
    );
  }
}

function checkMethod(method: Method, what: string): void {
  const plan = drawnPlan(planAdapter(LINEARS, method));
  for (const width of WIDTHS) check(plan, layOut(plan, LAYERS, width, weightOf), `${what}, ${width} wide`);
}

suite("no part of the drawing lies under another", () => {
  test("for all 15 sets of trained factors, tied and untied, with all vectors there", () => {
    for (let bits = 1; bits < 16; bits++) {
      const trained = FACTOR_NAMES.filter((_, bit) => bits & (1 << bit));
      for (const tied of TIES)
        checkMethod(
          tiedLora({ trained, tied, keep: ["u", "v"] }),
          `${trained.join()} tied ${JSON.stringify(tied)}`,
        );
    }
  });

  test("for every method of the library, on attention and on all linears", () => {
    for (const name of METHOD_NAMES.filter(
      (one) => !["full", "norm-tuning", "prefix-tuning", "prompt-tuning", "trained-tokens"].includes(one),
    ))
      for (const target of ["qkv", "all-linear", ["q_proj", "lm_head"]] as const)
        checkMethod(methodByName(name, { target, rank: 4 }), `${name} on ${String(target)}`);
  });

  test("for a large model, where some layers are not adapted", () => {
    const { layers, ...config } = preset("llama-2-7b")!;
    const linears = linearSpecs({ ...config, layers });
    const method = tiedLora({
      trained: ["v", "B", "u", "A"],
      target: { modules: "qkv", layers: [0, 3, 31] },
    });
    const plan = drawnPlan(planAdapter(linears, method));
    const layout = layOut(
      plan,
      layers,
      330,
      (layer) => linears.find(({ path }) => path.includes(`.${layer}.`))!.path,
    );
    assert.equal(layout.bands.length, 32);
    check(plan, layout, "llama-2-7b");
    assert.deepEqual(new Set(layout.weights.map(({ band }) => band)).size, 32, "every layer shows a weight");
  });
});
