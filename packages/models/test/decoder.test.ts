import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { explain, grad, realize, reference } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { parameterSpecs } from "../src/modules.ts";
import { GPT2, IDS, LLAMA, MODELS, randomModel } from "./support/models.ts";
import { naiveLogits } from "./support/naive.ts";
import { assertNear, maxDifference } from "./support/near.ts";

describe("the modules", () => {
  test("sit at the paths of transformers; a tied head is an alias", () => {
    const device = reference();
    const { model } = randomModel({ ...LLAMA, tie_word_embeddings: true }, device);
    const paths = [...model.namedModules()].map(([path]) => path);
    for (const path of [
      "model.embed_tokens",
      "model.layers.1.self_attn.q_proj",
      "model.layers.2.mlp",
      "model.norm",
      "lm_head",
    ]) {
      assert.ok(paths.includes(path), path);
    }
    assert.deepEqual([...model.aliases()], [["lm_head.weight", "model.embed_tokens.weight"]]);
    assert.deepEqual(
      new Set(model.stateDict().keys()),
      new Set(parameterSpecs(model.config).map(({ path }) => path)),
    );
    assert.equal(model.linear("model.layers.0.mlp.down_proj")!.inFeatures, 12);
    assert.equal(model.linear("model.layers.0.mlp"), undefined);
    const { model: gpt2 } = randomModel(GPT2, device);
    const linear = gpt2.linear("transformer.h.1.attn.c_attn")!;
    assert.deepEqual([linear.inFeatures, linear.outFeatures, linear.layout], [12, 36, "inOut"]);
    device.close();
  });

  test("refuse to be replaced, which would have no effect", () => {
    const device = reference();
    const { model } = randomModel(LLAMA, device);
    const linear = model.linear("model.layers.1.self_attn.v_proj")!;
    const at = model as unknown as { model: { layers: Record<string, object>[] } };
    const attention = at.model.layers[1]!["self_attn"] as Record<string, object>;
    assert.throws(() => (attention["v_proj"] = linear), /read only property 'v_proj'/);
    assert.throws(() => (at.model.layers[1] = at.model.layers[0]!), /read only property '1'/);
    assert.equal(model.linear("model.layers.1.self_attn.v_proj"), linear);
    device.close();
  });

  test("an adapter on a linear changes the output, and its removal restores it exactly", async () => {
    const device = reference();
    const { model } = randomModel(LLAMA, device);
    const before = await model.forward(IDS).data();
    const linear = model.linear("model.layers.1.self_attn.v_proj")!;
    linear.adapter = { apply: (_x, y) => y.mul(2) };
    const difference = maxDifference(await model.forward(IDS).data(), before);
    assert.ok(difference > 1e-3, `changed by ${difference} only`);
    linear.adapter = null;
    assert.deepEqual(await model.forward(IDS).data(), before);
    device.close();
  });
});

describe("padding", () => {
  for (const name of ["gpt2", "llama", "mistral, window of 3", "smollm3"]) {
    test(`on either side changes nothing: ${name}`, async () => {
      const device = reference();
      const { model } = randomModel(MODELS[name]!, device);
      const vocab = model.config.vocab;
      const ids = IDS[0]!;
      const alone = await model.forward([ids]).data();
      for (const [left, right] of [
        [3, 0],
        [0, 3],
        [2, 1],
      ] as const) {
        const pad = (n: number, value: number): number[] => Array<number>(n).fill(value);
        const padded = [...pad(left, 9), ...ids, ...pad(right, 9)];
        const attentionMask = [[...pad(left, 0), ...pad(ids.length, 1), ...pad(right, 0)]];
        const logits = await model.forward([padded], { attentionMask }).data();
        assertNear(logits.slice(left * vocab, (left + ids.length) * vocab), alone, 1e-5, "logits");
      }
      device.close();
    });
  }
});

describe("the loss", () => {
  test("is the mean over masked tokens of -log p, each predicted by the one before", async () => {
    const device = reference();
    const { model, weights } = randomModel(LLAMA, device);
    const mask = [
      [1, 0, 0, 1, 1, 0, 1, 1, 0],
      [0, 1, 1, 1, 0, 0, 0, 0, 1],
    ];
    const terms = IDS.flatMap((ids, row) => {
      const logits = naiveLogits(model.config, weights, ids);
      return ids.flatMap((id, t) => {
        if (t === 0 || mask[row]![t] === 0) return [];
        const before = logits[t - 1]!;
        return [Math.log(before.reduce((sum, x) => sum + Math.exp(x), 0)) - before[id]!];
      });
    });
    const expected = terms.reduce((a, b) => a + b) / terms.length;
    const loss = await model.loss({ inputIds: IDS, mask }).item();
    assertNear([loss], [expected], 1e-6, "loss");
    device.close();
  });

  test("of labels counts neither -100 nor what else is named, in the sum and in the mean", async () => {
    const device = reference();
    const { model } = randomModel(GPT2, device);
    const mask = IDS.map((row, r) => row.map((_, t) => Number((t + r) % 3 !== 0)));
    const labels = (ignored: number): number[][] =>
      IDS.map((row, r) => row.map((id, t) => (mask[r]![t] === 0 ? ignored : id)));
    const expected = await model.loss({ inputIds: IDS, mask }).item();
    for (const batch of [{ labels: labels(-100) }, { labels: labels(-1), ignoreIndex: -1 }])
      assertNear([await model.loss({ inputIds: IDS, ...batch }).item()], [expected], 1e-6, "loss");
    const other = IDS.map((row) => row.map((id) => (id + 1) % 23));
    assert.notEqual(await model.loss({ inputIds: IDS, labels: other }).item(), expected);
    const stray = device.tensor(labels(-7), { dtype: "i32" });
    assert.ok(Number.isNaN(await model.loss({ inputIds: IDS, labels: stray }).item()));
    device.close();
  });

  test("with checkpointing has the same gradients, bit for bit", async () => {
    // Without fusion every value is rounded on its way, computed again or not.
    const device = reference({ fusion: "off" });
    const { model } = randomModel({ ...LLAMA, tie_word_embeddings: true }, device);
    const gradients = async (): Promise<ArrayLike<number>[]> => {
      const all = grad(model.loss({ inputIds: IDS }), model.parameters());
      realize(...all);
      return Promise.all(all.map((g) => g.data()));
    };
    const plain = await gradients();
    model.checkpointing = true;
    assert.deepEqual(await gradients(), plain);
    device.close();
  });
});

describe("layers' inputs kept in half precision", () => {
  const kept = async (activations: "f32" | "f16" | "bf16") => {
    const device = reference();
    const { model } = randomModel({ ...LLAMA, num_hidden_layers: 6 }, device);
    model.checkpointing = true;
    model.activations = activations;
    const loss = model.loss({ inputIds: IDS });
    const gradients = grad(loss, model.parameters());
    const longer = Array.from({ length: 8 }, (_, row) =>
      Array.from({ length: 16 }, (_, i) => (row + i) % 23),
    );
    const step = optim.sgd(model.parameters(), { lr: 1 }).trace(model.loss({ inputIds: longer }));
    const bytes = explain(step).tempBytes;
    realize(loss, ...gradients);
    const [value, ...rest] = await Promise.all([loss, ...gradients].map((t) => t.data()));
    device.close();
    return { loss: value![0]!, gradients: rest.map((g) => Float64Array.from(g as Float32Array)), bytes };
  };
  const norm = (lists: readonly Float64Array[]): number =>
    Math.sqrt(lists.reduce((sum, list) => sum + list.reduce((all, x) => all + x * x, 0), 0));

  test("give the same loss, gradients close to the exact ones, and take less memory", async () => {
    const exact = await kept("f32");
    for (const [type, unit] of [
      ["f16", 2 ** -11],
      ["bf16", 2 ** -8],
    ] as const) {
      // prettier-ignore
      const { loss, gradients, bytes } = await kept(type);
      assert.equal(loss, exact.loss);
      const error = norm(gradients.map((g, i) => g.map((x, j) => x - exact.gradients[i]![j]!)));
      assert.ok(error > 0, `${type}: nothing was rounded`);
      assert.ok(error < 4 * unit * norm(exact.gradients), `${type}: ${error / norm(exact.gradients)}`);
      assert.ok(bytes < exact.bytes, `${bytes} bytes of temporaries, and ${exact.bytes} with f32`);
    }
  });
});

describe("an id that nobody looks at may be anything", () => {
  const device = reference();
  const { model } = randomModel(LLAMA, device);
  const BEYOND = [23, -1, -100, 1e9, 0.5, NaN];

  test("under an attention mask", async () => {
    const attentionMask = [[0, 1, 1, 1, 0]];
    const logits = (pad: number): Promise<ArrayLike<number>> =>
      model.forward([[pad, 3, 1, 4, pad]], { attentionMask }).data();
    const expected = await logits(0);
    for (const pad of BEYOND) assert.deepEqual(await logits(pad), expected, `${pad}`);
    assert.throws(() => model.forward([[3, 23]], { attentionMask: [[0, 1]] }), /23 in row 0, position 1/);
  });

  test("after what a loss counts, in each segment", async () => {
    const mask = [[0, 1, 1, 0, 0, 1, 0]];
    const segments = [[0, 0, 0, 0, 1, 1, 1]];
    const loss = (pad: number): Promise<number> =>
      model.loss({ inputIds: [[3, 1, 4, pad, 5, 9, pad]], mask, segments }).item();
    const expected = await loss(0);
    assert.ok(Number.isFinite(expected));
    for (const pad of BEYOND) assert.equal(await loss(pad), expected, `${pad}`);
    // Without segments the fourth is read by those after it.
    const inputIds = [[3, 1, 4, 23, 5, 9, 23]];
    assert.throws(() => model.loss({ inputIds, mask }), /23 in row 0, position 3; the vocabulary has 23/);
    assert.throws(() => model.loss({ inputIds: [[3, 23]] }), /23 in row 0, position 1/);
  });
});

describe("wrong inputs are refused with what was expected", () => {
  const device = reference();
  const { model } = randomModel(GPT2, device);
  const cases: [string, () => unknown, RegExp][] = [
    ["rows of two lengths", () => model.forward([[1, 2], [3]]), /row 1 has 1 entries, row 0 has 2; pad/],
    [
      "a flat list",
      () => model.forward([1, 2, 3] as never),
      /flat list of 3 numbers was given; need rows of them/,
    ],
    ["a flat array", () => model.forward(Int32Array.of(1, 2) as never), /flat list of 2 numbers/],
    ["an id between two", () => model.forward([[1.5]]), /1\.5 in row 0, position 0; the vocabulary/],
    [
      "a label that is none",
      () => model.loss({ inputIds: [[1, 2]], labels: [[-1, 2]] }),
      /labels: -1 in row 0, position 0; the vocabulary has 23/,
    ],
    [
      "labels of another shape",
      () => model.loss({ inputIds: [[1, 2]], labels: [[1, 2, 3]] }),
      /labels: \[1, 3\] was given for ids \[1, 2\]/,
    ],
    ["no tokens", () => model.forward([]), /an empty list was given; need at least one row/],
    [
      "an id beyond the vocabulary",
      () => model.forward([[1], [23]]),
      /23 in row 1, position 0; the vocabulary has 23/,
    ],
    ["an id that is no id", () => model.forward([[-1]]), /-1 in row 0/],
    ["half an id", () => model.forward([[1, 1.5]]), /1\.5 in row 0, position 1.*whole numbers from 0 to 22/],
    [
      "segments of another shape",
      () => model.loss({ inputIds: [[1, 2]], segments: [[1]] }),
      /segments: \[1, 1\] was given; need \[1, 2\]/,
    ],
    [
      "too many positions",
      () => model.forward([Array<number>(17).fill(1)]),
      /17 positions; the model has learned 16/,
    ],
    [
      "a mask of another shape",
      () => model.forward([[1, 2]], { attentionMask: [[1]] }),
      /attentionMask: \[1, 1\] was given; need \[1, 2\]/,
    ],
    [
      "a loss mask of another shape",
      () => model.loss({ inputIds: [[1, 2]], mask: [[1, 1, 1]] }),
      /mask: \[1, 3\] was given for ids \[1, 2\]/,
    ],
    ["a single token to learn from", () => model.loss({ inputIds: [[1]] }), /need at least 2/],
    [
      "a tensor of floats",
      () => model.forward(device.tensor([[1, 2]])),
      /f32 \[1, 2\] was given; need i32 \[batch, length\]/,
    ],
  ];
  for (const [what, run, message] of cases) test(what, () => assert.throws(run, message));
});
