import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { grad, key, normalArray, topological } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  defineMethod,
  FACTOR_NAMES,
  init,
  METHOD_NAMES,
  methodByName,
  methods,
  tiedLora,
} from "../src/index.ts";
import { distance, IDS, logitsOf, lossOf, tinyLlama } from "./support/tiny.ts";

/** Gives every factor random values, so that no fault is hidden by a factor of zero. */
function randomize(adapter: Adapter, seed = 5): Adapter {
  for (const [path, parameter] of adapter.stateDict())
    if (parameter.dtype === "f32") parameter.set(normalArray(key(seed).fold(path), parameter.size, 0, 0.5));
  return adapter;
}

async function values(adapter: Adapter): Promise<Map<string, number[]>> {
  const all = new Map<string, number[]>();
  for (const [path, parameter] of adapter.stateDict()) all.set(path, [...(await parameter.data())]);
  return all;
}

suite("at the start", () => {
  test("the model answers exactly as before, with every method whose update starts at zero", async () => {
    const near = ["dora", "vb-lora", "uni-lora", "hra", "prefix-tuning", "prompt-tuning"];
    for (const name of METHOD_NAMES.filter((one) => !near.includes(one))) {
      const model = tinyLlama();
      const before = await logitsOf(model);
      await adapt(model, methodByName(name, { rank: 4 }));
      assert.deepEqual(await logitsOf(model), before, name);
    }
  });

  test("the model answers as before with DoRA, up to the rounding of the weights' norms", async () => {
    const model = tinyLlama();
    const before = await logitsOf(model);
    await adapt(model, methods.dora({ rank: 3 }));
    assert.ok(distance(await logitsOf(model), before) < 1e-5);
  });

  test("the model's own weights are frozen", () => {
    const model = tinyLlama();
    adapt(model, methods.tl6());
    assert.ok(model.parameters().every((parameter) => !parameter.requiresGrad));
  });

  test("different seeds give different values, the same seed the same", async () => {
    const start = async (seed: number): Promise<Map<string, number[]>> =>
      values(adapt(tinyLlama(), methods.tl6(), { seed }));
    assert.deepEqual(await start(1), await start(1));
    assert.notDeepEqual(await start(1), await start(2));
  });
});

suite("a tied factor", () => {
  test("is one parameter in all layers: counted, optimized and stored once", () => {
    const adapter = adapt(tinyLlama(), methods.tl6({ rank: 2 }));
    const places = [...adapter.namedParameters()].filter(([path]) => path.endsWith(".A"));
    assert.equal(places.length, 3);
    assert.equal(new Set(places.map(([, parameter]) => parameter)).size, 1);
    assert.equal(adapter.parameters().filter((parameter) => parameter === places[0]![1]).length, 1);
    assert.equal(adapter.count().trainable, (3 + 8 + 16) * 2 + 3 * 16);
    assert.deepEqual([...adapter.aliases()].at(-1), [
      "model.layers.2.self_attn.qkv.A",
      "model.layers.0.self_attn.qkv.A",
    ]);
  });

  test("has a gradient that is the sum over the layers", async () => {
    const [tied, untied] = [tinyLlama(), tinyLlama()];
    const shared = randomize(adapt(tied, tiedLora({ trained: FACTOR_NAMES, rank: 2 })));
    const own = adapt(untied, tiedLora({ trained: FACTOR_NAMES, rank: 2, tied: false }));
    for (const [path, parameter] of own.namedParameters()) parameter.set(await shared.parameter(path).data());
    for (const factor of ["A", "B"]) {
      const [whole] = grad(lossOf(tied), [shared.parameter(`model.layers.0.self_attn.qkv.${factor}`)]);
      const parts = grad(lossOf(untied), own.select({ factors: [factor] }));
      assert.equal(parts.length, 3);
      const sum = parts.reduce((a, b) => a.add(b));
      const scale = Math.max(...(await whole!.abs().data()));
      assert.ok(scale > 1e-3, "there is something to compare");
      assert.ok(distance(await whole!.data(), await sum.data()) < 1e-6 * scale, factor);
    }
  });

  test("has the gradient that finite differences say", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    for (const factor of FACTOR_NAMES) {
      const parameter = adapter.parameter(`model.layers.0.self_attn.qkv.${factor}`);
      const at = Float64Array.from(await parameter.data());
      const direction = normalArray(key(9).fold(factor), parameter.size);
      const [gradient] = grad(lossOf(model), [parameter]);
      const slope = Array.from(await gradient!.data()).reduce((sum, g, i) => sum + g * direction[i]!, 0);
      const step = 2 ** -8;
      const moved = async (by: number): Promise<number> => {
        parameter.set(Float32Array.from(at, (x, i) => x + by * direction[i]!));
        return lossOf(model).item();
      };
      const measured = ((await moved(step)) - (await moved(-step))) / (2 * step);
      parameter.set(Float32Array.from(at));
      assert.ok(
        Math.abs(slope - measured) < 2e-3 * Math.max(1, Math.abs(slope)),
        `${factor}: ${slope} ${measured}`,
      );
    }
  });

  test("of one adapter is not shared with another adapter", async () => {
    const model = tinyLlama();
    const first = adapt(model, methods.tl6({ rank: 2 }), { name: "first" });
    const second = adapt(model, methods.tl6({ rank: 2 }), { name: "second" });
    const before = await values(second);
    randomize(first);
    assert.deepEqual(await values(second), before);
    assert.equal(
      new Set([...first.parameters(), ...second.parameters()]).size,
      2 * first.parameters().length,
    );
  });
});

suite("u and v", () => {
  test("scale the update of their own layer, and add nothing where the input is zero", async () => {
    const device = tinyLlama().device;
    const linear = nn.Linear.init(4, 6, { device, key: key(3), bias: false });
    class Model extends nn.Module {
      layers: nn.Linear[] = [linear];
    }
    const model = new Model();
    randomize(adapt(model, methods.tl6({ rank: 2, target: ["0"] })));
    assert.deepEqual(
      [...(await linear.forward(device.tensor(new Float32Array(4), { shape: [1, 4] })).data())],
      [0, 0, 0, 0, 0, 0],
    );
  });

  test("make the updates of tied layers differ by more than a bias", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    const [, { place }] = [...adapter.layers()][0]!;
    const pair = (layer: number) => {
      const f = (name: string) => adapter.parameter(`model.layers.${layer}.self_attn.qkv.${name}`);
      const { A, B } = adapter.method.lowRank!({ A: f("A"), B: f("B"), u: f("u"), v: f("v") }, place);
      return B.matmul(A);
    };
    const difference = await pair(0).sub(pair(1)).abs().max().item();
    assert.ok(difference > 0.1);
  });
});

suite("queries, keys and values", () => {
  test("share the product with A: it is one node for all three", () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.tl6({ rank: 2 }));
    const products = topological([model.forward(IDS).node]).filter(
      (node) => node.op === "matmul" && node.shape.at(-1) === 2 && node.shape.at(-2) === 10,
    );
    assert.equal(products.length, adapter.plan.sites.length);
  });

  test("see an update of the factors even when their input is the same tensor as before", async () => {
    const device = tinyLlama().device;
    class Attention extends nn.Module {
      q_proj: nn.Linear = nn.Linear.init(4, 4, { device, key: key(1), bias: false });
      k_proj: nn.Linear = nn.Linear.init(4, 4, { device, key: key(2), bias: false });
      v_proj: nn.Linear = nn.Linear.init(4, 4, { device, key: key(3), bias: false });
    }
    const model = new Attention();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    const x = device.tensor(normalArray(key(4), 8), { shape: [2, 4] });
    const before = [...(await model.q_proj.forward(x).data())];
    randomize(adapter, 6);
    assert.notDeepEqual([...(await model.q_proj.forward(x).data())], before);
  });

  test("get the rows of B and v that are theirs", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.tl6({ rank: 2 }));
    const B = adapter.parameter("model.layers.1.self_attn.qkv.B");
    const onlyKeys = new Float32Array(B.size).map((_, i) => (i >= 8 * 2 && i < 12 * 2 ? 1 : 0));
    B.set(onlyKeys);
    const x = model.device.tensor(normalArray(key(4), 16), { shape: [2, 8] });
    const change = async (name: string): Promise<number> => {
      const linear = model.linear(`model.layers.1.self_attn.${name}`)!;
      return linear.forward(x).sub(x.matmul(linear.weight.transpose())).abs().max().item();
    };
    assert.equal(await change("q_proj"), 0);
    assert.ok((await change("k_proj")) > 0.01);
    assert.equal(await change("v_proj"), 0);
  });
});

/** Does some steps of AdamW with strong decay, and returns the values after them. */
async function run(adapter: Adapter, optimizer: optim.AdamW, model: ReturnType<typeof tinyLlama>, steps = 3) {
  for (let i = 0; i < steps; i++) optimizer.step(lossOf(model));
  return values(adapter);
}

const decaying = (adapter: Adapter): optim.AdamW =>
  optim.adamW(adapter.parameters(), { lr: 0.1, weightDecay: 0.5 });

suite("a frozen factor", () => {
  test("never moves, not even under weight decay", async () => {
    for (const trained of FACTOR_NAMES) {
      const model = tinyLlama();
      const adapter = randomize(adapt(model, tiedLora({ trained: [trained], keep: ["u", "v"], rank: 2 })));
      const before = await values(adapter);
      const after = await run(adapter, decaying(adapter), model);
      for (const [path, old] of before) {
        const moves = path.endsWith(`.${trained}`);
        assert.equal(distance(after.get(path)!, old) > 0, moves, `${path} while ${trained} is trained`);
      }
    }
  });

  test("stands still from the step at which it is frozen, whatever momentum it had", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    const optimizer = decaying(adapter);
    await run(adapter, optimizer, model);
    adapter.freeze({ factors: ["A", "u"] });
    const before = await values(adapter);
    const after = await run(adapter, optimizer, model);
    for (const [path, old] of before)
      assert.equal(distance(after.get(path)!, old) === 0, /\.[Au]$/.test(path), path);
    adapter.unfreeze({ factors: ["A"] });
    const later = await run(adapter, optimizer, model);
    assert.ok(
      distance(later.get("model.layers.0.self_attn.qkv.A")!, after.get("model.layers.0.self_attn.qkv.A")!) >
        0,
    );
  });

  test("can be a single layer's, or chosen by its path", async () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    adapter
      .freeze()
      .unfreeze({ factors: ["u"], layers: [1] })
      .unfreeze({ match: /layers\.2\..*\.v$/ });
    assert.deepEqual(
      adapter.trainableParameters().map(({ name }) => name),
      ["model.layers.1.self_attn.qkv.u", "model.layers.2.self_attn.qkv.v"],
    );
  });

  test("that is tied cannot be frozen in one of its layers, and the error says why", () => {
    const adapter = adapt(tinyLlama(), methods.tl6({ rank: 2 }));
    assert.throws(() => adapter.freeze({ factors: ["A"], layers: [1] }), {
      message: /A is tied over layers 0, 1, 2 and cannot be selected in layers 1 alone/,
    });
  });

  test("is selected by names that exist, or there is an error", () => {
    const adapter = adapt(tinyLlama(), methods.tl5({ rank: 2 }));
    assert.throws(() => adapter.freeze({ factors: ["u"] }), {
      message: /tl5 has no factor u, only B, A; .*keep: \["u"\]/,
    });
    assert.throws(() => adapter.freeze({ match: /nothing/ }), {
      message: /\/nothing\/ matches no parameter/,
    });
    assert.throws(() => adapter.freeze({ layers: [7] }), { message: /layers 7 matches no parameter/ });
  });

  test("costs nothing: the graph of a step with TL1 is smaller than with TL6", () => {
    const size = (name: "tl1" | "tl6"): number => {
      const model = tinyLlama();
      const adapter = adapt(model, methods[name]({ rank: 2 }));
      const optimizer = decaying(adapter);
      const { tensors, updates } = optimizer.trace(lossOf(model));
      return topological([...tensors.map(({ node }) => node), ...updates.map(({ value }) => value)]).length;
    };
    assert.ok(size("tl1") < 0.9 * size("tl6"), `${size("tl1")} ${size("tl6")}`);
  });
});

test("a masked element never moves, under decay and momentum, while the others do", async () => {
  const model = tinyLlama();
  const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
  const optimizer = decaying(adapter);
  await run(adapter, optimizer, model);
  const A = adapter.parameter("model.layers.0.self_attn.qkv.A");
  A.updateMask = model.device.tensor(
    new Float32Array(A.size).map((_, i) => i % 2),
    { shape: A.shape },
  );
  const before = await A.data();
  await run(adapter, optimizer, model);
  const after = await A.data();
  Array.from(after).forEach((value, i) => assert.equal(value !== before[i], i % 2 === 1, `element ${i}`));
});

suite("taking an adapter off", () => {
  test("gives the model's answers back exactly", async () => {
    const model = tinyLlama();
    const before = await logitsOf(model);
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    assert.ok(distance(await logitsOf(model), before) > 1e-3);
    adapter.detach();
    assert.deepEqual(await logitsOf(model), before);
    assert.ok(model.linears().every(([, linear]) => linear.adapter === null));
  });

  test("for a while is done by `active`", async () => {
    const model = tinyLlama();
    const before = await logitsOf(model);
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
    const adapted = await logitsOf(model);
    adapter.active = false;
    assert.deepEqual(await logitsOf(model), before);
    adapter.active = true;
    assert.deepEqual(await logitsOf(model), adapted);
  });

  test("leaves the other adapters in place", async () => {
    const model = tinyLlama();
    const first = randomize(adapt(model, methods.tl6({ rank: 2 }), { name: "first" }));
    const alone = await logitsOf(model);
    const second = randomize(
      adapt(model, methods.lora({ rank: 3, target: ["q_proj", "up_proj"] }), { name: "second" }),
    );
    assert.ok(distance(await logitsOf(model), alone) > 1e-3);
    second.detach();
    assert.deepEqual(await logitsOf(model), alone);
    first.detach();
  });
});

test("a second adapter of the same name is refused, and changes nothing", () => {
  const model = tinyLlama();
  adapt(model, methods.tl6({ rank: 2 }));
  const stacks = model.linears().map(([, linear]) => linear.adapter);
  assert.throws(() => adapt(model, methods.lora()), { message: /already has an adapter "default"/ });
  assert.deepEqual(
    model.linears().map(([, linear]) => linear.adapter),
    stacks,
  );
});

suite("dropout", () => {
  const make = () => {
    const model = tinyLlama();
    const adapter = randomize(adapt(model, methods.tl6({ rank: 2, dropout: 0.5 })));
    return { model, adapter };
  };

  test("acts in training alone, and is a function of seed and step", async () => {
    const { model, adapter } = make();
    const plain = await logitsOf(model);
    adapter.train();
    const first = await logitsOf(model);
    assert.ok(distance(first, plain) > 1e-3);
    assert.deepEqual(await logitsOf(model), first);
    adapter.step = 1;
    assert.ok(distance(await logitsOf(model), first) > 1e-3);
    adapter.train(false);
    assert.deepEqual(await logitsOf(model), plain);
  });

  test("is the same when activations are computed again: checkpointing changes no gradient", async () => {
    const { model, adapter } = make();
    adapter.train();
    const gradients = async (): Promise<number[][]> =>
      Promise.all(grad(lossOf(model), adapter.parameters()).map(async (g) => [...(await g.data())]));
    const kept = await gradients();
    model.checkpointing = true;
    const again = await gradients();
    kept.forEach((one, i) => assert.ok(distance(one, again[i]!) < 1e-6));
  });
});

test("a method of one's own needs only its factors and a formula", async () => {
  // Each layer has its own diagonal between a shared random pair: LoRA-XS's shape with VeRA's tying.
  const diagonal = defineMethod({
    name: "diagonal",
    rank: 4,
    factors: {
      A: { shape: ["rank", "in"], init: init.normal(), tie: "all", trained: false },
      d: { shape: ["rank"], init: init.zeros() },
      B: { shape: ["out", "rank"], init: init.normal(), tie: "all", trained: false },
    },
    lowRank: ({ A, B, d }) => ({ A: A.mul(d.unsqueeze(1)), B }),
  });
  const model = tinyLlama();
  const adapter = adapt(model, diagonal);
  assert.equal(adapter.count().trainable, 3 * 4);
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.1 });
  const before = await lossOf(model).item();
  for (let i = 0; i < 10; i++) optimizer.step(lossOf(model));
  assert.ok((await lossOf(model).item()) < before);
});
