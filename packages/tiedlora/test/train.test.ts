import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { reference } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  adaptersOf,
  type Batch,
  batchesOf,
  type BatchSource,
  DivergedError,
  evaluate,
  lossInputs,
  methods,
  packExamples,
  stackBatch,
  type StepReport,
  train,
  type TrainOptions,
} from "../src/index.ts";
import type { EncodedExample } from "../src/data/encode.ts";
import { distance, tinyLlama } from "./support/tiny.ts";

/** Sequences that count up from different numbers: something to learn. */
const EXAMPLES = Array.from({ length: 12 }, (_, i): EncodedExample => {
  const length = 5 + (i % 7);
  const tokens = Int32Array.from({ length }, (_, t) => (3 * i + t) % 17);
  return { tokens, spans: [[1 + (i % 3), length]], line: i + 1, truncated: false };
});
const OPTIONS = { batch: 3, maxLength: 16, seed: 4, padId: 0 };

interface Setup {
  readonly options: Omit<TrainOptions, "batch"> & { readonly batch: BatchSource };
  readonly adapter: Adapter;
}

function setup(
  given: Partial<TrainOptions> & { readonly lr?: number; readonly batch?: BatchSource } = {},
  dropout = 0,
): Setup {
  const model = tinyLlama();
  const adapter = adapt(model, methods.tl6({ rank: 2, dropout }), { seed: 3 });
  const optimizer = optim.adamW(adapter.parameters(), { lr: given.lr ?? 0.02, clipNorm: 1 });
  return {
    adapter,
    options: { model, adapter, optimizer, steps: 6, batch: batchesOf(EXAMPLES, OPTIONS), ...given },
  };
}

async function reports(options: TrainOptions): Promise<StepReport[]> {
  const all: StepReport[] = [];
  for await (const report of train(options)) all.push(report);
  return all;
}

/** Equal up to the rounding of f32 results. */
function close(a: number, b: number): void {
  assert.ok(Math.abs(a - b) <= 1e-6 * Math.abs(b), `${a} and ${b} differ`);
}

async function values(adapter: Adapter): Promise<number[]> {
  const all: number[] = [];
  for (const parameter of adapter.parameters()) all.push(...(await parameter.data()));
  return all;
}

suite("training", () => {
  test("lowers the loss, and reports every step once, in order", async () => {
    const { options } = setup({ steps: 30 });
    const before = await evaluate(options.model, [options.batch(0), options.batch(1)]);
    const all = await reports(options);
    assert.deepEqual(
      all.map(({ step }) => step),
      Array.from({ length: 30 }, (_, i) => i + 1),
    );
    const after = await evaluate(options.model, [options.batch(0), options.batch(1)]);
    assert.ok(after.loss < before.loss - 0.1, `${before.loss} -> ${after.loss}`);
    assert.equal(all.at(-1)!.tokens, all.reduce((n, _, i) => n + options.batch(i).tokenCount, 0)); // prettier-ignore
    assert.equal(all.at(-1)!.secondsLeft, 0);
    for (const [i, { padding }] of all.entries()) {
      const { batch, length, mask, tokenCount } = options.batch(i);
      assert.equal(mask.length, batch * length);
      assert.equal(padding, 1 - tokenCount / mask.length);
    }
    assert.deepEqual(
      all.filter(({ gradNorm }) => !(gradNorm! > 0 && gradNorm! < 100)),
      [],
    );
  });

  test("reports the loss of before the step's update", async () => {
    const { options } = setup();
    const first = await options.model.loss(lossInputs(options.model, options.batch(0))).item();
    assert.equal((await reports(options))[0]!.loss, first);
  });

  test("gives the caller the adapter as it is after a step that it wants to pause after", async () => {
    const straight = setup({ steps: 3 });
    await reports(straight.options);
    const paused = setup({ steps: 6, pauseAfter: (step) => step === 3 });
    for await (const { step } of train(paused.options)) {
      if (step !== 3) continue;
      assert.deepEqual(await values(paused.adapter), await values(straight.adapter));
    }
    await reports({ ...straight.options, steps: 6, start: 3 });
    assert.deepEqual(await values(paused.adapter), await values(straight.adapter), "a pause changes nothing");
  });

  test("ends after the current step when it is told to", async () => {
    const stop = new AbortController();
    const { options } = setup({ steps: 100, signal: stop.signal });
    let last = 0;
    for await (const { step } of train(options)) {
      last = step;
      if (step === 4) stop.abort();
    }
    assert.ok(last >= 4 && last <= 6, `${last}`);
    assert.equal(options.optimizer.stepCount, last, "what was submitted was reported");
  });

  test("refuses an adapter of which everything is frozen", async () => {
    const { options, adapter } = setup();
    adapter.freeze();
    await assert.rejects(reports(options), { message: /every parameter of it is frozen/ });
  });

  test("is refused at the first step where nothing of the adapter would be trained", async () => {
    const refused = async (
      reason: RegExp,
      change: (made: Setup) => Partial<TrainOptions> | void,
    ): Promise<void> => {
      const made = setup();
      const before = await values(made.adapter);
      const options = { ...made.options, ...change(made) };
      await assert.rejects(reports(options), (error: Error) => {
        assert.match(error.message, /^train: nothing of adapter "default" would be trained: /);
        assert.match(error.message, reason);
        return true;
      });
      assert.deepEqual(await values(made.adapter), before);
    };
    await refused(/made for another model/, () => ({ model: tinyLlama() }));
    await refused(/not on its model: it was detached/, ({ adapter }) => adapter.detach());
    await refused(/not on its model: it was detached, deleted or replaced/, ({ options: { model } }) => {
      adapt(model, methods.lora({ rank: 2 }), { replace: true });
    });
    await refused(/not active/, ({ options: { model } }) => adaptersOf(model).setActive());
    await refused(/the optimizer has none of its parameters/, () => ({
      optimizer: setup().options.optimizer,
    }));
    const merged = setup();
    await adaptersOf(merged.options.model).merge();
    await assert.rejects(reports(merged.options), {
      message: /it is merged into the weights; unmerge first/,
    });
    const { options } = setup();
    await assert.rejects(
      adaptersOf(options.model).disabled(() => reports(options)),
      { message: /a scope has chosen other adapters .*; await its work first/ },
    );
  });

  test("stops when the adapter is taken off the model between two steps", async () => {
    const { options, adapter } = setup({ pauseAfter: () => true });
    const all: number[] = [];
    const run = async (): Promise<void> => {
      for await (const { step } of train(options)) {
        all.push(step);
        if (step === 2) adapter.detach();
      }
    };
    await assert.rejects(run(), {
      message: /nothing of adapter "default" would be trained: it is not on its model/,
    });
    assert.deepEqual(all, [1, 2]);
  });

  test("leaves dropout off behind itself, also when the caller stops early", async () => {
    const { options, adapter } = setup({}, 0.5);
    for await (const _ of train(options)) {
      assert.equal(adapter.training, true);
      break;
    }
    assert.equal(adapter.training, false);
  });

  test("needs the memory of 20 steps for 200", async () => {
    const { options } = setup({ steps: 200, lr: 1e-3 });
    const all = await reports(options);
    const most = (from: number): number => Math.max(...all.slice(from, from + 10).map((r) => r.memoryBytes));
    const loss = 4; // bytes of one that is about to be read, as it may be in either ten or not
    assert.ok(
      Math.abs(most(190) - most(10)) <= loss,
      `${most(10)} bytes after 10 steps, ${most(190)} after 190`,
    );
  });
});

suite("a factor", () => {
  test("is frozen and thawed at any step: it stands still in between, and moves before and after", async () => {
    const { options, adapter } = setup({ steps: 9, pauseAfter: () => true });
    const A = adapter.parameter("model.layers.0.self_attn.qkv.A");
    const history: number[][] = [Array.from(await A.data())];
    for await (const { step } of train(options)) {
      history.push(Array.from(await A.data()));
      if (step === 3) adapter.freeze({ factors: ["A"] });
      if (step === 6) adapter.unfreeze({ factors: ["A"] });
    }
    const moved = history.slice(1).map((now, i) => distance(now, history[i]!) > 0);
    assert.deepEqual(moved, [true, true, true, false, false, false, true, true, true]);
  });
});

suite("accumulated batches", () => {
  test("give the step of one batch of all their examples, however many tokens each has", async () => {
    const parts = [EXAMPLES.slice(0, 2), EXAMPLES.slice(5, 7), EXAMPLES.slice(9, 11)];
    const of = (examples: readonly EncodedExample[]): Batch => stackBatch(examples, 16, 0);
    const whole = setup({ steps: 1, batch: () => of(parts.flat()) });
    const split = setup({ steps: 1, accumulate: 3, batch: (index) => of(parts[index]!) });
    const [a] = await reports(whole.options);
    const [b] = await reports(split.options);
    close(a!.loss, b!.loss);
    close(a!.gradNorm!, b!.gradNorm!);
    assert.equal(a!.tokens, b!.tokens);
  });

  test("are taken in order: step s takes batches s·k and the following", async () => {
    const asked: number[] = [];
    const { options } = setup({ steps: 3, accumulate: 2 });
    await reports({
      ...options,
      batch: (index) => {
        asked.push(index);
        return options.batch(index);
      },
    });
    assert.deepEqual(asked, [0, 1, 2, 3, 4, 5]);
  });

  test("of the last step of an epoch may be fewer: none is of the next", async () => {
    const asked: number[] = [];
    const given = batchesOf(EXAMPLES, { ...OPTIONS, batch: 5 });
    assert.equal(given.perEpoch, 3);
    const batch = (index: number): Batch => {
      asked.push(index);
      return given(index);
    };
    const { options } = setup({ steps: 4, accumulate: 2, batch: Object.assign(batch, { perEpoch: 3 }) });
    const all = await reports(options);
    assert.deepEqual(asked, [0, 1, 2, 3, 4, 5]);
    // An epoch, which contains all examples, is two steps.
    assert.equal(all[1]!.tokens, EXAMPLES.reduce((n, { tokens }) => n + tokens.length, 0)); // prettier-ignore
  });
});

suite("packed examples", () => {
  test("have the loss that they have in rows of their own", async () => {
    const { model } = setup().options;
    const packed = packExamples(EXAMPLES, 32);
    assert.ok(packed.length <= 4);
    const loss = (examples: readonly EncodedExample[]): Promise<number> =>
      model.loss(lossInputs(model, stackBatch(examples, 33, 0))).item();
    close(await loss(packed), await loss(EXAMPLES));
  });
});

suite("a loss that is no number", () => {
  test("ends the run at its step, and the parameter is named", async () => {
    const { options, adapter } = setup({ steps: 8, pauseAfter: () => true });
    const u = adapter.parameter("model.layers.1.self_attn.qkv.u");
    const run = async (): Promise<void> => {
      for await (const { step } of train(options)) if (step === 3) u.set([NaN, 1]);
    };
    await assert.rejects(run(), (error) => {
      assert.ok(error instanceof DivergedError);
      assert.equal(error.step, 4);
      assert.match(
        error.message,
        /^the loss is NaN at step 4: \d+ of \d+ values of model\.layers\.\d\.self_attn\.qkv\.\w are not finite/,
      );
      assert.match(
        error.message,
        /after a loss of [\d.]+ at step 3 with a gradient of norm [\d.]+.*lower learning rate/,
      );
      return true;
    });
    assert.ok(options.optimizer.stepCount <= 5, "no further steps were begun");
  });

  test("because of a token that the model does not know is not come to: token, row and position are named", async () => {
    const stray: EncodedExample = { ...EXAMPLES[0]!, tokens: EXAMPLES[0]!.tokens.with(3, 17) };
    const bad = stackBatch([EXAMPLES[1]!, stray], 16, 0);
    const said = /token ids: 17 in row 1, position 3; the vocabulary has 17/;
    const { options, adapter } = setup({ batch: (i) => (i === 1 ? bad : batchesOf(EXAMPLES, OPTIONS)(i)) });
    await assert.rejects(reports(options), said);
    assert.equal(options.optimizer.stepCount, 1);
    await assert.rejects(evaluate(options.model, [bad], adapter), said);
  });

  test("that the model's own weights make is said to be theirs", async () => {
    const { options } = setup();
    const weight = options.model.stateDict().get("model.layers.2.mlp.up_proj.weight")!;
    weight.set(Float32Array.from({ length: weight.size }, (_, i) => (i === 5 ? Infinity : 0)));
    await assert.rejects(reports(options), {
      message:
        /at step 1: 1 of 96 values of model\.layers\.2\.mlp\.up_proj\.weight are not finite, a weight of the model itself/,
    });
  });
});

suite("an evaluation", () => {
  test("is the mean over all predicted tokens, whatever the batches", async () => {
    const model = tinyLlama();
    const batches = (batch: number): Batch[] =>
      Array.from({ length: EXAMPLES.length / batch }, (_, i) =>
        stackBatch(EXAMPLES.slice(i * batch, (i + 1) * batch), 16, 0),
      );
    const one = await evaluate(model, batches(1));
    const all = await evaluate(model, batches(12));
    close(one.loss, all.loss);
    assert.equal(one.tokens, all.tokens);
    close(all.perplexity, Math.exp(all.loss));
  });

  test("is done without dropout, which is back on afterwards", async () => {
    const model = tinyLlama(reference());
    const adapter = adapt(model, methods.lora({ rank: 2, dropout: 0.5 }));
    for (const parameter of adapter.parameters()) parameter.set(new Float32Array(parameter.size).fill(0.3));
    const batch = batchesOf(EXAMPLES, OPTIONS)(0);
    const plain = await evaluate(model, [batch], adapter);
    adapter.train();
    const dropped = await model.loss(lossInputs(model, batch)).item();
    assert.notEqual(dropped, plain.loss);
    assert.equal((await evaluate(model, [batch], adapter)).loss, plain.loss);
    assert.equal(adapter.training, true);
  });
});

test("checkpointing changes no bit of what is trained", async () => {
  const kept = setup({}, 0.2);
  await reports(kept.options);
  const again = setup({}, 0.2);
  (again.options.model as Decoder).checkpointing = true;
  await reports(again.options);
  assert.deepEqual(await values(again.adapter), await values(kept.adapter));
});
