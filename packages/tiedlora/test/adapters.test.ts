import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, key } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { type Decoder, generateTokens } from "@tiedlora/models";
import {
  adapt,
  type Adapter,
  adaptersOf,
  BASE,
  combine,
  combineMeasured,
  type Method,
  methods,
  loadAdapterFiles,
  nativeFiles,
  type PlainMethod,
} from "../src/index.ts";
import { createAdapter } from "../src/adapter/adapter.ts";
import { ELEMENTWISE, largest } from "../src/combine/elementwise.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, IDS, logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const device: Device = await cpu();
after(() => device.close());

const qv = (options: Parameters<typeof methods.lora>[0] = {}): PlainMethod =>
  methods.lora({ rank: 2, alpha: 3, target: ["q_proj", "v_proj"], ...options });

function add(model: Decoder, name: string, method: PlainMethod = qv(), seed = name.length): Adapter {
  return randomize(adapt(model, method, { name, active: false }), seed, 0.3);
}

/** The model's outputs with exactly these adapters. */
async function answers(model: Decoder, ...names: string[]): Promise<number[]> {
  return adaptersOf(model).withActive(names, () => logitsOf(model));
}

const bits = async (model: nn.Module): Promise<number[][]> =>
  Promise.all(model.parameters().map(async (p) => [...new Uint8Array(await p.storage.buffer.read())]));

suite("several adapters on a model", () => {
  test("act alone, together, or not at all, as they are set", async () => {
    const model = tinyLlama(device);
    const base = await logitsOf(model);
    const set = adaptersOf(model);
    add(model, "one");
    add(model, "three", methods.tl6({ rank: 3 }));
    assert.deepEqual(await logitsOf(model), base);
    const [one, three, both] = [
      await answers(model, "one"),
      await answers(model, "three"),
      await answers(model, "one", "three"),
    ];
    for (const [a, b] of [
      [one, base],
      [three, base],
      [one, three],
      [both, one],
      [both, three],
    ] as const)
      // prettier-ignore
      assert.ok(distance(a, b) > 1e-2);
    assert.deepEqual(set.active, [], "withActive has put back what was");
    set.setActive("three");
    assert.deepEqual(await logitsOf(model), three);
    set.setActive();
    assert.deepEqual(await logitsOf(model), base);
  });

  test("are found by their names alone, even if those contain one another", async () => {
    const model = tinyLlama(device);
    const names = ["default", "default2", "other_default", "foodefault_bar", "efaul"];
    const seeds = names.map((name, i) => [name, add(model, name, qv(), i)] as const);
    for (const [name, adapter] of seeds) {
      assert.equal(adaptersOf(model).get(name), adapter);
      const files = await collect(nativeFiles(adapter));
      const fresh = tinyLlama(device);
      await loadAdapterFiles(fresh, asFiles(files));
      assert.deepEqual(await logitsOf(fresh), await answers(model, name));
    }
    assert.throws(() => adaptersOf(model).get("defaultt"), {
      message: /no adapter "defaultt"; did you mean "default"/,
    });
  });

  test("errors leave everything as it was", async () => {
    const model = tinyLlama(device);
    const set = adaptersOf(model);
    add(model, "one").active = true;
    add(model, "two", qv(), 9);
    const before = await logitsOf(model);
    assert.throws(() => set.setActive("two", "missing"), { message: /no adapter "missing"/ });
    assert.throws(() => set.delete("missing"), { message: /no adapter "missing"/ });
    assert.throws(() => adapt(model, qv(), { name: "two" }), { message: /already has an adapter "two"/ });
    assert.throws(() => adapt(model, qv(), { name: BASE }), { message: /means the model without adapters/ });
    assert.deepEqual([set.names, set.active], [["one", "two"], ["one"]]);
    assert.deepEqual(await logitsOf(model), before);
  });

  test("one that is deleted leaves no trace, active or not", async () => {
    const model = tinyLlama(device);
    const base = await logitsOf(model);
    const set = adaptersOf(model);
    add(model, "one");
    add(model, "two", qv({ target: ["up_proj"] })).active = true;
    set.delete("one");
    const left = await logitsOf(model);
    assert.deepEqual(left, await answers(model, "two"));
    set.delete("two");
    assert.deepEqual(await logitsOf(model), base);
    assert.ok(model.linears().every(([, linear]) => linear.adapter === null));
    assert.deepEqual(set.names, []);
  });

  test("only the adapter and what it replaces are updated by training", async () => {
    const model = tinyGpt2(device);
    const other = add(model, "other", qv({ target: ["c_proj"] }));
    const adapter = adapt(model, qv({ target: ["c_attn"], modulesToSave: ["ln_f"], bias: "all" }));
    const base = adaptersOf(model).ownParameters();
    const values = async (parameters: Iterable<nn.Parameter>): Promise<number[][]> =>
      Promise.all([...parameters].map(async (p) => [...(await p.data())]));
    const [ownBefore, otherBefore] = [await values(base.values()), await values(other.parameters())];
    const before = await values(adapter.parameters());
    const optimizer = optim.sgd(adapter.parameters(), { lr: 0.5 });
    for (let i = 0; i < 3; i++) optimizer.step(lossOf(model));
    assert.deepEqual(await values(base.values()), ownBefore);
    assert.deepEqual(await values(other.parameters()), otherBefore);
    const changed = await values(adapter.parameters());
    changed.forEach((now, i) => assert.ok(distance(now, before[i]!) > 0, adapter.parameters()[i]!.name));
  });
});

suite("switching adapters off for a while", () => {
  test("gives the base model's answers bit for bit, and then what was before, nested too", async () => {
    const model = tinyGpt2(device);
    const base = await logitsOf(model);
    const set = adaptersOf(model);
    randomize(adapt(model, methods.tl6({ rank: 2, modulesToSave: ["ln_f"], bias: "all" })), 3);
    const adapted = await logitsOf(model);
    assert.ok(distance(adapted, base) > 1e-2);
    await set.disabled(async () => {
      assert.deepEqual(await logitsOf(model), base);
      await set.disabled(async () => assert.deepEqual(await logitsOf(model), base));
      assert.deepEqual(await logitsOf(model), base);
    });
    assert.deepEqual(await logitsOf(model), adapted);
    assert.throws(() =>
      set.disabled(() => {
        throw new Error("in the scope");
      }),
    );
    assert.deepEqual(await logitsOf(model), adapted);
  });

  test("works while they are merged", async () => {
    const model = tinyGpt2(device);
    const base = await logitsOf(model);
    const set = adaptersOf(model);
    randomize(adapt(model, methods.tl6({ rank: 2, bias: "all" })), 3);
    await set.merge();
    const merged = await logitsOf(model);
    assert.deepEqual(await set.disabled(() => logitsOf(model)), base);
    assert.deepEqual(await logitsOf(model), merged);
  });
});

suite("within a scope", () => {
  const scopes: [string, (set: ReturnType<typeof adaptersOf>, work: () => Promise<void>) => Promise<void>][] =
    [
      ["withActive", (set, work) => set.withActive(["a"], work)],
      ["mixed", (set, work) => set.mixed(["a", "__base__"], work)],
    ];
  for (const [name, run] of scopes) {
    test(`of ${name}, a chosen adapter cannot be taken off or replaced, and others can`, async () => {
      const model = tinyLlama(device);
      const [a] = [add(model, "a"), add(model, "b")];
      const set = adaptersOf(model);
      const other = createAdapter(model, qv(), { name: "a", replace: true });
      await run(set, async () => {
        await Promise.resolve();
        const refused = (change: () => void, message: RegExp): void => assert.throws(change, { message });
        const stays =
          /adapter "a" cannot be taken off within a scope in which .*"a".* is chosen; do it after the scope has ended/;
        refused(() => set.delete("a"), stays);
        refused(() => a.detach(), stays);
        refused(() => set.unload(), stays);
        refused(() => set.swap(other), /adapter "a" cannot be replaced within a scope in which .* is chosen/);
        assert.deepEqual([set.names, set.get("a") === a], [["a", "b"], true]);
        set.delete("b");
      });
      set.swap(other);
      set.delete("a");
      assert.deepEqual(set.names, []);
    });
  }

  test("without adapters all can be taken off, and a new one takes part after it", async () => {
    const model = tinyLlama(device);
    add(model, "a");
    const set = adaptersOf(model);
    const base = await answers(model);
    await set.disabled(async () => {
      set.unload();
      randomize(adapt(model, qv(), { name: "late" }), 4, 0.3);
      assert.deepEqual(await logitsOf(model), base);
    });
    assert.ok(distance(await logitsOf(model), base) > 1e-3);
  });
});

suite("a mixed batch", () => {
  const three = [IDS[0], IDS[1], IDS[0]].map((row): number[] => Array.from(row));
  async function mixed(model: Decoder, names: string[]): Promise<number[][]> {
    const logits = await adaptersOf(model)
      .mixed(names, () => model.forward(three))
      .data();
    const row = logits.length / 3;
    return [0, 1, 2].map((i) => Array.from(logits.subarray(i * row, (i + 1) * row)));
  }
  const alone = async (model: Decoder, row: number, ...names: string[]): Promise<number[]> =>
    adaptersOf(model).withActive(names, async () => [...(await model.forward([three[row]!]).data())]);

  test("sends row i through adapter i alone, whatever is active", async () => {
    const model = tinyLlama(device);
    add(model, "one");
    add(model, "two", methods.tl6({ rank: 3 })).active = true;
    add(model, "three", methods.vera({ rank: 2, target: "all-linear" }), 8);
    for (const names of [
      ["one", "two", BASE],
      ["two", "one", "two"],
      ["three", "three", "three"],
      [BASE, "three", "one"],
    ]) {
      // prettier-ignore
      const rows = await mixed(model, names);
      for (const [i, name] of names.entries()) {
        const expected = await alone(model, i, ...(name === BASE ? [] : [name]));
        assert.ok(distance(rows[i]!, expected) < 1e-5, `${names.join()} row ${i}`);
      }
    }
    assert.deepEqual(adaptersOf(model).active, ["two"]);
  });

  test("may have a scope without adapters inside, or around", async () => {
    const model = tinyLlama(device);
    add(model, "one");
    const set = adaptersOf(model);
    const wanted = await mixed(model, ["one", BASE, "one"]);
    const base = [...(await model.forward(three).data())];
    const inside = await set.mixed(["one", BASE, "one"], () =>
      set.disabled(() => model.forward(three)).data(),
    );
    assert.deepEqual([...inside], base);
    assert.deepEqual(await set.disabled(() => mixed(model, ["one", BASE, "one"])), wanted);
  });

  test("works with embeddings and DoRA, and while text is generated", async () => {
    const model = tinyLlama(device);
    add(model, "words", methods.lora({ rank: 2, target: ["embed_tokens", "lm_head"] }));
    randomize(await adapt(model, methods.dora({ rank: 2 }), { name: "dora", active: false }), 4);
    const rows = await mixed(model, ["dora", "words", BASE]);
    assert.ok(distance(rows[0]!, await alone(model, 0, "dora")) < 1e-5);
    assert.ok(distance(rows[1]!, await alone(model, 1, "words")) < 1e-5);
    const generate = async (prompts: number[][]): Promise<number[][]> => {
      const out: number[][] = prompts.map(() => []);
      for await (const tokens of generateTokens(model, prompts, { maxTokens: 4 }))
        tokens.forEach((token, i) => token !== null && out[i]!.push(token));
      return out;
    };
    const [first, second] = await adaptersOf(model).mixed(["dora", BASE], () =>
      generate([three[0]!, three[1]!]),
    );
    assert.deepEqual([first], await adaptersOf(model).withActive(["dora"], () => generate([three[0]!])));
    assert.deepEqual([second], await adaptersOf(model).disabled(() => generate([three[1]!])));
  });

  test("is refused where it cannot be right", async () => {
    const model = tinyLlama(device);
    const set = adaptersOf(model);
    add(model, "one");
    assert.throws(() => set.mixed(["one", BASE], () => model.forward(three)), {
      message: /the batch has 3 rows, but adapters are named for 2/,
    });
    assert.throws(() => set.mixed(["one", "two", BASE], () => model.forward(three)), {
      message: /no adapter "two"/,
    });
    add(model, "norms", qv({ modulesToSave: ["norm"] }));
    assert.throws(() => set.mixed(["norms", "one", BASE], () => model.forward(three)), {
      message: /"norms" replaces model\.norm\.weight.*cannot be mixed/,
    });
    await set.merge({ names: ["one"] });
    assert.throws(() => set.mixed(["one", "one", BASE], () => model.forward(three)), {
      message: /"one" merged into the weights would take part in every row; unmerge before mixing/,
    });
    set.unmerge();
    assert.equal(set.rows, null, "an error inside ends the scope");
  });
});

suite("a hot swap", () => {
  test("answers as the new adapter, and compiles nothing anew", async () => {
    const model = tinyLlama(device);
    const other = tinyLlama(device);
    randomize(adapt(model, methods.tl6({ rank: 2 })), 1);
    const next = randomize(adapt(other, methods.tl6({ rank: 2 })), 2);
    const files = await collect(nativeFiles(next));
    const wanted = await logitsOf(other);
    const old = await logitsOf(model);
    assert.ok(distance(old, wanted) > 1e-2);
    const programs = device.memory().cachedPrograms;
    await loadAdapterFiles(model, asFiles(files), { replace: true });
    assert.deepEqual(await logitsOf(model), wanted);
    assert.equal(device.memory().cachedPrograms, programs);
    assert.deepEqual(adaptersOf(model).names, ["default"]);
  });

  test("keeps the place and the state of the old one, and an error keeps the old one", async () => {
    const model = tinyLlama(device);
    const set = adaptersOf(model);
    add(model, "a");
    const b = add(model, "b", methods.tl6({ rank: 2 }));
    add(model, "c");
    const files = await collect(nativeFiles(b));
    const swapped = await loadAdapterFiles(model, asFiles(files), { name: "b", replace: true });
    assert.equal(set.get("b"), swapped);
    assert.deepEqual([set.names, set.active], [["a", "b", "c"], []]);
    files.delete("adapter_model.safetensors");
    await assert.rejects(loadAdapterFiles(model, asFiles(files), { name: "b", replace: true }));
    assert.equal(set.get("b"), swapped);
  });
});

suite("a weighted combination", () => {
  async function setup(): Promise<Decoder> {
    const model = tinyLlama(device);
    add(model, "a");
    add(model, "b", methods.tl6({ rank: 3, alpha: 2 }));
    add(model, "c", qv({ rankPattern: { "layers\\.0\\..*": 4 }, target: ["q_proj", "up_proj"] }), 7);
    return model;
  }
  const close = (a: number[], b: number[], limit = 2e-5): void => assert.ok(distance(a, b) < limit, String(distance(a, b))); // prettier-ignore

  test("of two adapters with weight one answers as both together", async () => {
    const model = await setup();
    await combine(model, { a: 1, b: 1, c: 1 }, { name: "sum", active: false });
    close(await answers(model, "sum"), await answers(model, "a", "b", "c"));
  });

  test("of one adapter is its update times the weight, also a negative one", async () => {
    const model = await setup();
    for (const how of ["cat", "linear", "svd"] as const) {
      for (const weight of [0.5, -2]) {
        const name = `${how} ${weight}`;
        await combine(model, { b: weight }, { name, how, active: false });
        const b = adaptersOf(model).get("b");
        b.multiplier = weight;
        close(await answers(model, name), await answers(model, "b"));
        b.multiplier = 1;
      }
    }
  });

  test("of an adapter and its opposite is nothing", async () => {
    const model = await setup();
    randomize(adapt(model, qv(), { name: "twin", active: false }), "a".length, 0.3);
    await combine(model, { a: 1, twin: -1 }, { name: "nothing", active: false });
    close(await answers(model, "nothing"), await answers(model), 1e-6);
  });

  test("by singular vectors of the full rank is the sum, and at a smaller one near it", async () => {
    const model = await setup();
    const sum = await answers(model, "a", "b");
    await combine(model, { a: 1, b: 1 }, { name: "full", how: "svd", rank: 5, active: false });
    close(await answers(model, "full"), sum);
    await combine(model, { a: 1, b: 1 }, { name: "small", how: "svd", rank: 2, active: false });
    const [near, far] = [distance(await answers(model, "small"), sum), distance(await answers(model), sum)];
    assert.ok(near > 1e-4 && near < far, `${near} ${far}`);
  });

  test("refuses what has no sum", async () => {
    const model = await setup();
    const rejected = (weights: Record<string, number>, message: RegExp, how?: "linear"): Promise<void> =>
      assert.rejects(combine(model, weights, { name: "x", ...(how && { how }) }), { message });
    await rejected({ a: 1, b: 1 }, /ranks 2, 3 at .*"linear" needs equal ones/, "linear");
    await rejected({ a: 1, missing: 1 }, /no adapter "missing"/);
    await rejected({}, /no adapter given/);
    await rejected(
      { a: 1 },
      /combine: how: "mean" is no known name; give one of "cat", "linear", "svd", "magnitude"/,
      "mean" as "linear",
    );
    await rejected({ a: Number.NaN }, /combine: the weight of "a" is NaN; give a finite number/);
    const half = combine(model, { a: 1 }, { name: "x", how: "svd", rank: 0.5 });
    await assert.rejects(half, /combine: rank is 0\.5; give a whole number of at least 1/);
    for (const how of ["cat", "linear", undefined] as const) {
      const ranked = combine(model, { a: 1 }, { name: "x", rank: 2, ...(how && { how }) });
      await assert.rejects(ranked, { message: `combine: rank 2 is given, but "${how ?? "cat"}" determines the rank itself; give how: "svd", or no rank` }); // prettier-ignore
    }
    randomize(await adapt(model, methods.dora({ rank: 2 }), { name: "dora", active: false }));
    await rejected({ dora: 1 }, /dora of "dora" has no update of the form B A/);
    assert.ok(!adaptersOf(model).has("x"));
    const dense = combine(model, { a: 1 }, { name: "x", how: "ties", density: 0 });
    await assert.rejects(dense, /combine: density is 0; give a number above 0, at most 1/);
    const strange = combine(model, { a: 1 }, { name: "x", how: "svd", seed: 1 });
    await assert.rejects(
      strange,
      /combine: seed is for magnitude, ties, dare, dare-ties, and "svd" has none/,
    );
    adaptersOf(model).remove("dora");
    randomize(adapt(model, methods.ia3({ target: ["q_proj"] }), { name: "ia3", active: false }));
    randomize(adapt(model, methods.bitfit({ target: ["q_proj"] }), { name: "bias", active: false }));
    await assert.rejects(combine(model, { bias: 1 }, { name: "x", how: "svd" }), /bitfit of "bias" changes the bias of .*q_proj|adds a constant, but the module has no bias/); // prettier-ignore
  });

  test("of one adapter of any method whose update is linear is its LoRA, with the error that is left", async () => {
    const model = await setup();
    randomize(
      await adapt(model, methods.dora({ rank: 2, target: ["q_proj"] }), { name: "dora", active: false }),
    );
    randomize(
      adapt(model, methods.loha({ rank: 2, target: ["q_proj"] }), { name: "loha", active: false }),
      3,
      0.3,
    );
    for (const name of ["dora", "loha"]) {
      const wanted = await answers(model, name);
      const whole = await combineMeasured(model, { [name]: 1 }, { name: `${name} 8`, how: "svd", rank: 8, active: false }); // prettier-ignore
      close(await answers(model, `${name} 8`), wanted);
      for (const error of whole.errors.values()) assert.ok(error < 1e-5, String(error));
      const errorAt = async (rank: number): Promise<number> => {
        const options = { name: `${name} ${rank}`, how: "svd", rank, active: false } as const;
        const { errors } = await combineMeasured(model, { [name]: 1 }, options);
        assert.equal(errors.size, 3, "one for each layer's q_proj");
        return Math.max(...errors.values());
      };
      const [small, large] = [await errorAt(1), await errorAt(2)];
      assert.ok(1 > small && small > large && large > 1e-3, `${name}: ${small}, ${large}`);
    }
  });

  test("element by element at a density of 1 is the sum, or where signs differ the mean of the elected ones", async () => {
    const model = await setup();
    const sum = await answers(model, "a", "b");
    for (const how of ["magnitude", "dare"] as const) {
      await combine(model, { a: 1, b: 1 }, { name: how, how, rank: 5, density: 1, active: false });
      close(await answers(model, how), sum);
    }
    await combine(model, { a: 1, b: 1 }, { name: "ties", how: "ties", rank: 8, density: 1, active: false });
    assert.ok(distance(await answers(model, "ties"), sum) > 1e-3);
    const again = async (name: string, seed: number): Promise<number[]> => {
      await combine(model, { a: 1, b: 0.5 }, { name, how: "dare-ties", rank: 8, density: 0.4, seed, active: false }); // prettier-ignore
      return answers(model, name);
    };
    const first = await again("first", 1);
    assert.deepEqual(await again("second", 1), first);
    assert.ok(distance(await again("third", 2), first) > 1e-3);
  });
});

suite("updates merged element by element", () => {
  const of = (...values: number[]): Float32Array => Float32Array.from(values);
  const options = { density: 1, key: key(3) };

  test("keep the largest elements, of equal ones the first", () => {
    assert.deepEqual(largest(of(3, -5, 1, 5, -3), 0.6), of(3, -5, 0, 5, 0));
    assert.deepEqual(largest(of(1, 1, 1, 1), 0.5), of(1, 1, 0, 0));
    assert.deepEqual(largest(of(1, 2), 0.4), of(0, 0));
  });

  test("by TIES: the mean of the weighted values whose sign has the larger sum", () => {
    const updates = [{ values: of(4, -1, 0, 2), weight: 1 }, { values: of(-1, -3, 0, -2), weight: 0.5 }, { values: of(2, 0, 0, 1), weight: 1 }]; // prettier-ignore
    // elected: +, -, +, +
    assert.deepEqual(ELEMENTWISE.ties(updates, options), of((4 + 2) / 2, (-1 - 1.5) / 2, 0, (2 + 1) / 2));
    assert.deepEqual(ELEMENTWISE.magnitude(updates, options), of(5.5, -2.5, 0, 2));
    const opposite = [{ values: of(1, -2), weight: -2 }];
    assert.deepEqual(ELEMENTWISE.ties(opposite, options), of(-2, 4), "a negative weight turns a sign around");
  });

  test("by DARE: about the density of the elements, divided by it, each update with choices of its own", () => {
    const ones = { values: new Float32Array(10_000).fill(1), weight: 1 };
    const found = ELEMENTWISE.dare([ones], { density: 0.25, key: key(1) });
    const kept = found.filter((value) => value !== 0);
    assert.ok(kept.every((value) => value === 4) && Math.abs(kept.length - 2500) < 150, String(kept.length));
    const both = ELEMENTWISE.dare([ones, ones], { density: 0.25, key: key(1) }).filter(
      (value) => value === 8,
    );
    assert.ok(Math.abs(both.length - 625) < 100, `${both.length} of 10000 were kept twice`);
  });
});

test("single elements are chosen by a mask, and the others stay exactly as they are", async () => {
  const model = tinyLlama(device);
  const adapter = randomize(adapt(model, methods.tl6({ rank: 2 })));
  const [A] = adapter.select({ factors: ["A"] });
  adapter.mask({ factors: ["A"] }, Array.from({ length: A!.size }, (_, i) => i % 3 === 0 ? 1 : 0)); // prettier-ignore
  const before = await A!.data();
  const optimizer = optim.adamW(adapter.parameters(), { lr: 0.1, weightDecay: 0.5 });
  for (let i = 0; i < 2; i++) optimizer.step(lossOf(model));
  (await A!.data()).forEach((value, i) => assert.equal(value !== before[i], i % 3 === 0));
  adapter.mask({ factors: ["A"] }, null);
  assert.equal(A!.updateMask, null);
  assert.throws(() => adapter.mask({ factors: ["A"] }, [1]), { message: /the mask of .*qkv\.A \[2, 8\] has 1 elements; give 16/ }); // prettier-ignore
});

suite("parameters that an adapter replaces", () => {
  test("start as the model's own: the answers do not change", async () => {
    const model = tinyGpt2(device);
    const base = await logitsOf(model);
    adapt(model, methods.lora({ rank: 2, modulesToSave: ["ln_f", "wte"], bias: "all" }));
    assert.deepEqual(await logitsOf(model), base);
  });

  test("are given back when the adapter is inactive or off", async () => {
    const model = tinyGpt2(device);
    const [base, weights] = [await logitsOf(model), await bits(model)];
    const adapter = randomize(adapt(model, methods.lora({ rank: 2, modulesToSave: ["ln_f"] })));
    adapter.active = false;
    assert.deepEqual(await logitsOf(model), base);
    adapter.active = true;
    assert.ok(distance(await logitsOf(model), base) > 1e-2);
    adapter.detach();
    assert.deepEqual(await logitsOf(model), base);
    assert.deepEqual(await bits(model), weights);
  });

  test("cannot be replaced by two active adapters at once", async () => {
    const model = tinyGpt2(device);
    const method = (): Method & PlainMethod => methods.lora({ rank: 2, bias: "adapted" });
    adapt(model, method(), { name: "one" });
    const conflict = { message: /"one" and "two" both replace transformer\.h\.0\.attn\.c_attn\.bias/ };
    assert.throws(() => adapt(model, method(), { name: "two" }), conflict);
    const two = adapt(model, method(), { name: "two", active: false });
    assert.throws(() => (two.active = true), conflict);
    assert.throws(() => adaptersOf(model).setActive("one", "two"), conflict);
    assert.deepEqual(adaptersOf(model).active, ["one"]);
    adaptersOf(model).setActive("two");
  });

  test("are named by modules that exist, and are not adapted besides", () => {
    const model = tinyGpt2(device);
    assert.throws(() => adapt(model, methods.lora({ modulesToSave: ["norm"] })), {
      message: /modulesToSave "norm" matches no module; the model has wte, wpe, ln_1/,
    });
    const adapter = adapt(model, methods.lora({ rank: 2, target: "all-linear", modulesToSave: ["mlp"] }));
    assert.ok(adapter.plan.sites.every(({ site }) => !site.path.includes("mlp")));
    assert.equal(adapter.select({ factors: ["saved"] }).length, 3 * 4);
  });

  test("are counted, selected and frozen like factors", () => {
    const model = tinyGpt2(device);
    const adapter = adapt(model, methods.lora({ rank: 2, modulesToSave: ["ln_f"], bias: "adapted" }));
    const lora = 3 * 2 * (8 + 24);
    assert.equal(adapter.count().trainable, lora + 16 + 3 * 24);
    adapter.freeze({ factors: ["saved"] });
    assert.equal(adapter.count().trainable, lora + 3 * 24);
    adapter.freeze().unfreeze({ factors: ["bias"], layers: [1] });
    assert.equal(adapter.count().trainable, 24);
  });
});
