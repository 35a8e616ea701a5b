import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, grad } from "@tiedlora/core";
import { type AdapterChoice, type Decoder, generateTokens, KvCache } from "@tiedlora/models";
import { adapt, adaptersOf, BASE, methods } from "../src/index.ts";
import { randomize } from "./support/files.ts";
import { distance, IDS, logitsOf, tinyLlama } from "./support/tiny.ts";

const device: Device = await cpu();
after(() => device.close());

const CHOICES: readonly AdapterChoice[] = ["one", ["two"], ["one", "two"], [], { rows: ["two", BASE] }];
const PROMPTS = IDS.map((row): number[] => [...row]);

/** A model with adapters "one" and "two", of which only "two" is active. */
function adapted(): Decoder {
  const model = tinyLlama(device);
  const lora = methods.lora({ rank: 2, target: ["q_proj", "v_proj"] });
  randomize(adapt(model, lora, { name: "one", active: false }), 1, 0.3);
  randomize(adapt(model, methods.tl6({ rank: 3 }), { name: "two" }), 2, 0.3);
  return model;
}

async function generate(model: Decoder, adapters: AdapterChoice): Promise<number[][]> {
  const out: number[][] = PROMPTS.map(() => []);
  for await (const tokens of generateTokens(model, PROMPTS, { maxTokens: 6, stopTokens: [], adapters }))
    tokens.forEach((token, row) => token !== null && out[row]!.push(token));
  return out;
}

const numbers = async (work: () => { data(): Promise<ArrayLike<number>> }): Promise<number[]> =>
  Array.from(await work().data());

/** A promise that the test settles itself. */
function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}

suite("adapters chosen by the call", () => {
  test("answer as they do in a scope of their own", async () => {
    const model = adapted();
    const set = adaptersOf(model);
    const byCall = (choice: AdapterChoice): Promise<number[]> =>
      numbers(() => model.forward(PROMPTS, { adapters: choice }));
    assert.deepEqual(await byCall("one"), await set.withActive(["one"], () => logitsOf(model)));
    assert.deepEqual(
      await byCall(["two", "one"]),
      await set.withActive(["one", "two"], () => logitsOf(model)),
    );
    assert.deepEqual(await byCall([]), await set.disabled(() => logitsOf(model)));
    const rows = ["two", BASE];
    assert.deepEqual(
      await byCall({ rows }),
      await numbers(() => set.mixed(rows, () => model.forward(PROMPTS))),
    );
    const hidden = model.hidden(PROMPTS, { adapters: "one" });
    assert.deepEqual(await numbers(() => model.logits(hidden, { adapters: "one" })), await byCall("one"));
    const loss = { inputIds: PROMPTS };
    assert.deepEqual(
      await numbers(() => model.loss(loss, { adapters: "one" })),
      await numbers(() => set.using("one", () => model.loss(loss))),
    );
    assert.deepEqual(set.active, ["two"]);
  });

  test("run one program for all arrangements of a batch's rows", async () => {
    const own = await cpu({ threads: 1 });
    const model = tinyLlama(own);
    const lora = methods.lora({ rank: 2, target: ["q_proj", "v_proj"] });
    for (const name of ["a", "b", "c"]) adapt(model, lora, { name, active: false });
    const programs = async (rows: string): Promise<number> => {
      const before = own.memory().cachedPrograms;
      const prompts = Array.from(rows, (_, i) => PROMPTS[i % PROMPTS.length]!);
      await model.forward(prompts, { adapters: { rows: rows.split("") } }).data();
      return own.memory().cachedPrograms - before;
    };
    assert.equal(await programs("aabc"), 1);
    for (const rows of ["baca", "caab", "bbca", "cabb", "ccba", "abcc"])
      assert.equal(await programs(rows), 0, rows);
    own.close();
  });

  test("keep requests apart that are under way at once", async () => {
    const model = adapted();
    const apart: number[][][] = [];
    for (const choice of CHOICES) apart.push(await generate(model, choice));
    assert.deepEqual(await Promise.all(CHOICES.map((choice) => generate(model, choice))), apart);
    const without = await generate(model, []);
    assert.ok(
      apart.some((tokens) => String(tokens) !== String(without)),
      "the adapters make a difference",
    );
  });

  test("and their settings, changed between two tokens, act from the next token on", async () => {
    const run = async (next: (model: Decoder) => AsyncIterable<number>): Promise<number[]> => {
      const model = adapted();
      const [one, two] = [adaptersOf(model).get("one"), adaptersOf(model).get("two")];
      const changes: Record<number, () => void> = {
        4: () => (two.multiplier = -3),
        8: () => (one.active = true),
        12: () => two.detach(),
        16: () => void adapt(model, methods.ia3(), { name: "three", replace: true }),
        18: () => randomize(adaptersOf(model).get("three"), 4, 2),
        22: () => (one.active = false),
      };
      const tokens: number[] = [];
      for await (const token of next(model)) {
        tokens.push(token);
        changes[tokens.length]?.();
      }
      return tokens;
    };
    const prompt = PROMPTS[0]!;
    async function* generated(model: Decoder): AsyncGenerator<number> {
      const options = { maxTokens: 26, stopTokens: [] };
      for await (const [token] of generateTokens(model, [prompt], options)) yield token!;
    }
    async function* built(model: Decoder): AsyncGenerator<number> {
      const cache = new KvCache(model.config, model.device, [0], 64);
      let ids = prompt;
      for (let i = 0; i < 26; i++) {
        const logits = model.forward([ids], { cache });
        cache.commit([logits]);
        const token = Array.from(await logits.narrow(1, ids.length - 1, 1).argmax(-1).data())[0]!; // prettier-ignore
        yield token;
        ids = [token];
      }
      cache.free();
    }
    const tokens = await run(generated);
    assert.deepEqual(tokens, await run(built));
    assert.ok(new Set(tokens).size > 3, `the tokens differ: ${tokens.join()}`);
  });

  test("count within scopes of others, and while one of those is open", async () => {
    const model = adapted();
    const set = adaptersOf(model);
    const one = await numbers(() => model.forward(PROMPTS, { adapters: "one" }));
    const inside = await set.disabled(async () => {
      const before = await numbers(() => model.forward(PROMPTS, { adapters: "one" }));
      return [before, await numbers(() => set.using(["one"], () => model.forward(PROMPTS)))];
    });
    assert.deepEqual(inside, [one, one]);
  });

  test("are those of the backward pass too, when layers are computed again", async () => {
    const model = adapted();
    const parameters = adaptersOf(model).get("one").parameters();
    const gradients = async (): Promise<number[][]> => {
      const loss = model.loss({ inputIds: PROMPTS }, { adapters: "one" });
      return Promise.all(grad(loss, parameters).map((g) => numbers(() => g)));
    };
    const kept = await gradients();
    model.checkpointing = true;
    (await gradients()).forEach((g, i) => assert.ok(distance(g, kept[i]!) < 1e-6, parameters[i]!.name));
    const active = model.loss({ inputIds: PROMPTS });
    adaptersOf(model).setActive();
    const two = grad(active, adaptersOf(model).get("two").parameters());
    assert.ok(Math.max(...(await numbers(() => two[0]!))) > 0, "what was active when the loss was built");
  });

  test("are read anew if the rows of a choice have been changed", async () => {
    const model = adapted();
    const rows = ["one", "two"];
    const forward = (adapters: AdapterChoice): Promise<number[]> =>
      numbers(() => model.forward(PROMPTS, { adapters }));
    const choice = { rows };
    await forward(choice);
    rows[0] = BASE;
    assert.deepEqual(await forward(choice), await forward({ rows: [BASE, "two"] }));
  });

  test("are refused where they cannot be had", async () => {
    const model = adapted();
    const forward = (choice: AdapterChoice): unknown => model.forward(PROMPTS, { adapters: choice });
    assert.throws(() => forward("on"), { message: /no adapter "on"; did you mean "one"/ });
    assert.throws(() => forward({ rows: ["one"] }), {
      message: /the batch has 2 rows, but adapters are named for 1/,
    });
    assert.throws(() => tinyLlama(device).forward(PROMPTS, { adapters: "one" }), {
      message: /"one" given, but the model has no adapters; attach one first/,
    });
    tinyLlama(device).forward(PROMPTS, { adapters: [] });
    await adaptersOf(model).merge({ names: ["two"] });
    assert.throws(() => forward("one"), {
      message: /"two" merged into the weights would take part beside "one"/,
    });
    forward(["one", "two"]);
    forward([]);
    assert.throws(() => adaptersOf(model).using("two", async () => {}), {
      message: /is asynchronous.*name the adapters/,
    });
  });
});

suite("scopes of asynchronous work", () => {
  test("that overlap and choose otherwise are refused, before their work begins", async () => {
    const model = adapted();
    const set = adaptersOf(model);
    const gate = deferred();
    const first = set.withActive(["one"], () => gate.promise.then(() => logitsOf(model)));
    let begun = false;
    const begin = (): Promise<void> => ((begun = true), Promise.resolve());
    const refused = {
      message: /cannot be chosen while "one" is chosen for asynchronous work.*forward\(ids, \{ adapters/,
    };
    assert.throws(() => set.withActive(["two"], begin), refused);
    assert.throws(() => set.disabled(begin), refused);
    assert.throws(() => set.mixed(["one", BASE], begin), refused);
    assert.throws(() => set.setActive("two"), {
      message: /setActive would have no effect within a scope in which "one" is chosen; call it after/,
    });
    assert.throws(() => (set.get("two").active = false), {
      message: /two\.active would have no effect within a scope in which "one" is chosen/,
    });
    await assert.rejects(set.merge(), {
      message: /merge would have no effect within a scope in which "one" is chosen/,
    });
    assert.equal(begun, false);
    const alike = set.withActive(["one"], () => logitsOf(model));
    gate.resolve();
    assert.deepEqual(await first, await alike);
    assert.deepEqual(await first, await numbers(() => model.forward(IDS, { adapters: "one" })));
    assert.deepEqual(await set.withActive(["two"], () => logitsOf(model)), await logitsOf(model));
  });

  test("may be nested, and end in any order", async () => {
    const model = adapted();
    const set = adaptersOf(model);
    const gate = deferred();
    let inner: Promise<number[]> | undefined;
    await set.withActive(["one"], async () => {
      inner = set.disabled(() => gate.promise.then(() => logitsOf(model)));
    });
    gate.resolve();
    assert.deepEqual(await inner, await set.disabled(() => logitsOf(model)));
    assert.deepEqual(await logitsOf(model), await numbers(() => model.forward(IDS, { adapters: "two" })));
  });
});
