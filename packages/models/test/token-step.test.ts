import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device, Tensor, TypedArray } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import fc from "fast-check";
import { KvCache } from "../src/cache.ts";
import { configFrom } from "../src/config.ts";
import { nextLogits } from "../src/decode.ts";
import { Decoder } from "../src/decoder.ts";
import { createModel } from "../src/load.ts";
import { SMALL, SMALL_GPT2 } from "./support/generation.ts";

const device = await cpu({ threads: 1 });
after(() => device.close());

type Raw = Readonly<Record<string, unknown>>;
type Rows = readonly (readonly number[])[];
const modelOf = (raw: Raw, on: Device = device): Decoder =>
  createModel(configFrom(raw), { device: on, seed: 3 });
const llama = (on: Device = device): Decoder => modelOf({ ...SMALL, model_type: "llama" }, on);

/** Two rows, of which the second is padded by two tokens. */
const PROMPT = [
  [3, 1, 4, 1, 5],
  [0, 0, 2, 7, 1],
];
const PADS = [0, 2];

/** The ids of the rows at a step. */
const idsAt = (step: number): number[][] => [[(3 * step + 2) % 29], [(5 * step + 1) % 29]];

/** The logits of a prompt and of the tokens after it; `before` is called before each step. */
async function logitsOf(
  model: Decoder,
  steps: number,
  pass: (input: Rows, cache: KvCache) => Promise<TypedArray>,
  before: (step: number, cache: KvCache) => void = () => undefined,
): Promise<number[][]> {
  const cache = new KvCache(model.config, model.device, PADS, 16);
  const logits: number[][] = [];
  for (let step = 0; step <= steps; step++) {
    before(step, cache);
    logits.push(Array.from(await pass(step === 0 ? PROMPT : idsAt(step), cache)));
  }
  cache.free();
  return logits;
}

/** As `nextLogits`, but the graph of each step is built. */
async function built(model: Decoder, input: Rows, cache: KvCache): Promise<TypedArray> {
  cache.reserve(input[0]!.length);
  const logits = model.logits(model.hidden(input, { cache }).narrow(1, input[0]!.length - 1, 1));
  cache.commit([logits]);
  return logits.data();
}

/** Counts how often the layer's graph is built. `state` is what it says that its results depend on. */
class Counter implements nn.LinearAdapter {
  built = 0;
  factor = 1;
  state?: () => nn.GraphState;
  apply(_x: Tensor, y: Tensor): Tensor {
    this.built++;
    return y.mul(this.factor);
  }
}

function counted(model: Decoder): Counter {
  const counter = new Counter();
  model.linear("model.layers.0.self_attn.q_proj")!.adapter = counter;
  return counter;
}

/** The logits of two caches in turn, with a change of the model, an adapter or a cache before each token; the tape says which. */
async function changing(pass: typeof nextLogits, tape: readonly number[]): Promise<number[][]> {
  const model = llama();
  const linear = (n: number): nn.Linear => model.linears()[n % model.linears().length]![1];
  const valuesOf = ({ weight }: nn.Linear, n: number): number[] =>
    Array.from({ length: weight.size }, (_, i) => Math.sin(i + n) / 3);
  const counter = (): Counter => {
    const made = new Counter();
    made.state = () => [made.factor];
    return made;
  };
  const changes: readonly ((n: number) => void)[] = [
    (n) => void (linear(n).adapter = counter()),
    (n) => void (linear(n).adapter = null),
    (n) =>
      model.linears().forEach(([, { adapter }]) => adapter instanceof Counter && (adapter.factor = n % 7)),
    (n) => linear(n).weight.set(valuesOf(linear(n), n)),
    (n) => (linear(n).weight = nn.Parameter.from(device, valuesOf(linear(n), n), linear(n).weight.shape, n % 2 ? "f32" : "f16")), // prettier-ignore
    (n) => void (linear(n).weight.requiresGrad = n % 2 === 0),
    (n) => {
      let calls = n;
      linear(n).forward = (x) => nn.Linear.prototype.forward.call(linear(n), x).mul(++calls % 5);
    },
    (n) => void Reflect.deleteProperty(linear(n), "forward"),
    (n) => caches[n % 2]!.begun && caches[n % 2]!.release(n % 3 === 0 ? 1 : 0),
    (n) => {
      caches[n % 2]!.free();
      caches[n % 2] = new KvCache(model.config, device, PADS, 8);
    },
  ];
  const caches = [0, 1].map(() => new KvCache(model.config, device, PADS, 8));
  const logits: number[][] = [];
  for (const [step, n] of tape.entries()) {
    if (n % 5 === 0) changes[Math.floor(n / 5) % changes.length]!(Math.floor(n / 50));
    const cache = caches[n % 4 === 0 ? 1 : 0]!;
    logits.push(Array.from(await pass(model, cache.begun ? idsAt(step) : PROMPT, cache, {})));
  }
  for (const cache of caches) cache.free();
  return logits;
}

const MODELS: Readonly<Record<string, Raw>> = {
  gpt2: SMALL_GPT2,
  llama: { ...SMALL, model_type: "llama" },
  "llama, dynamic rope": {
    ...SMALL,
    model_type: "llama",
    max_position_embeddings: 30,
    rope_scaling: { rope_type: "dynamic", factor: 2 },
  },
  "gemma3_text, windows and rotations of two kinds": {
    ...SMALL,
    model_type: "gemma3_text",
    head_dim: 6,
    sliding_window: 4,
    sliding_window_pattern: 2,
    rope_local_base_freq: 50,
  },
  olmoe: { ...SMALL, model_type: "olmoe", num_experts: 4, num_experts_per_tok: 2 },
};

describe("steps whose graph is not built again", () => {
  for (const [name, raw] of Object.entries(MODELS)) {
    test(`give the bits of built ones, also when the cache grows and its slots begin again: ${name}`, async () => {
      const model = modelOf(raw);
      // rows that begin again make the ring turn: the cache of 16 slots does not grow before step 12 and once more in 24 steps
      const turn = (step: number, cache: KvCache): void => {
        if (step % 8 === 6) cache.release(step % 16 === 6 ? 0 : 1);
      };
      const known = await logitsOf(model, 24, (input, cache) => nextLogits(model, input, cache, {}), turn);
      assert.deepEqual(known, await logitsOf(model, 24, (input, cache) => built(model, input, cache), turn));
    });
  }

  test("are built twice, and once more when the cache has grown", async () => {
    const model = llama();
    const counter = counted(model);
    counter.state = () => [counter.factor];
    const counts: number[] = [];
    const count = (): void => void counts.push(counter.built);
    await logitsOf(model, 14, (input, cache) => nextLogits(model, input, cache, {}), count);
    // the prompt takes 5 of 16 slots, so that the twelfth token after it needs more
    assert.deepEqual(counts, [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4]);
  });

  test("are built for each token if an adapter does not say what its results depend on", async () => {
    const model = llama();
    const counter = counted(model);
    await logitsOf(model, 6, (input, cache) => nextLogits(model, input, cache, {}));
    assert.equal(counter.built, 7);
  });

  test("are built if their graphs differ although the state is the same", async () => {
    const model = llama();
    const counter = counted(model);
    counter.state = () => [];
    const change = (step: number): void => void (counter.factor = 1 + step / 8);
    const steps = (pass: typeof nextLogits): Promise<number[][]> =>
      logitsOf(model, 5, (input, cache) => pass(model, input, cache, {}), change);
    assert.deepEqual(await steps(nextLogits), await steps(built));
  });

  test("follow changes of parameters and adapters between tokens", async () => {
    const run = (pass: typeof nextLogits): Promise<number[][]> => {
      const model = llama();
      const counter = counted(model);
      counter.state = () => [counter.factor];
      const up = model.linear("model.layers.1.mlp.up_proj")!;
      const changes: Record<number, () => void> = {
        5: () => (counter.factor = 3),
        6: () => (counter.factor = 1),
        7: () => (counter.factor = 2),
        8: () => up.weight.set(Array.from({ length: up.weight.size }, (_, i) => Math.sin(i))),
        9: () => (up.weight = nn.Parameter.from(device, new Float32Array(up.weight.size).fill(0.1), up.weight.shape)), // prettier-ignore
        12: () => (model.linear("model.layers.0.self_attn.q_proj")!.adapter = null),
      };
      return logitsOf(
        model,
        16,
        (input, cache) => pass(model, input, cache, {}),
        (step) => changes[step]?.(),
      );
    };
    assert.deepEqual(await run(nextLogits), await run(built));
  });

  test("are built for each token while a function of the model or of a module is replaced", async () => {
    const run = (pass: typeof nextLogits, where: "module" | "model"): Promise<number[][]> => {
      const model = llama();
      const up = model.linear("model.layers.1.mlp.up_proj")!;
      let factor = 1;
      const hook = (step: number): void => {
        factor = step < 9 ? 1 : step;
        if (step === 4 && where === "module")
          up.forward = (x) => nn.Linear.prototype.forward.call(up, x).mul(factor);
        if (step === 4 && where === "model")
          model.logits = (x) => Decoder.prototype.logits.call(model, x).mul(factor);
        if (step === 13)
          Reflect.deleteProperty(where === "module" ? up : model, where === "module" ? "forward" : "logits");
      };
      return logitsOf(model, 16, (input, cache) => pass(model, input, cache, {}), hook);
    };
    for (const where of ["module", "model"] as const)
      assert.deepEqual(await run(nextLogits, where), await run(built, where), where);
  });

  test("give the bits of built ones for two caches in turn, whatever is changed in between", async () => {
    const tapes = fc.array(fc.nat(9999), { minLength: 50, maxLength: 50 });
    await fc.assert(
      fc.asyncProperty(tapes, async (tape) => {
        assert.deepEqual(await changing(nextLogits, tape), await changing(built, tape));
      }),
      { numRuns: 3 },
    );
  });

  test("are built again when their program has been dropped for others", async () => {
    const small = await cpu({ threads: 1, cachedPrograms: 1 });
    const model = llama(small);
    const other = (step: number): void => {
      if (step % 2 === 0) void small.tensor([1, 2, step]).mul(2).sum().data();
    };
    const steps = (pass: typeof nextLogits): Promise<number[][]> =>
      logitsOf(model, 8, (input, cache) => pass(model, input, cache, {}), other);
    assert.deepEqual(await steps(nextLogits), await steps(built));
    small.close();
  });

  test("refuse ids outside of the vocabulary, and go on after that", async () => {
    const model = llama();
    const pass = async (input: Rows, cache: KvCache): Promise<TypedArray> => {
      if (cache.slot > 9) await assert.rejects(nextLogits(model, [[29], [0]], cache, {}), /29 in row 0/);
      return nextLogits(model, input, cache, {});
    };
    assert.deepEqual(
      await logitsOf(model, 8, pass),
      await logitsOf(model, 8, (input, cache) => built(model, input, cache)),
    );
  });

  test("leave no memory behind", async () => {
    const model = llama();
    const run = (): Promise<number[][]> =>
      logitsOf(model, 6, (input, cache) => nextLogits(model, input, cache, {}));
    await run();
    const before = device.memory().liveBytes;
    await run();
    assert.equal(device.memory().liveBytes, before);
  });
});
