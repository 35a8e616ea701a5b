/** Training with evaluations: the best step, the end of training, the adapter's values then, and continuing from a state. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  type Adapter,
  type Batch,
  batchesOf,
  evaluate,
  fit,
  type FitOptions,
  type FitReport,
  methods,
  stackBatch,
} from "../src/index.ts";
import { type Row, testWrongArguments } from "../../../test/support/wrong-arguments.ts";
import { countingExample, tinyLlama } from "./support/tiny.ts";

const TRAIN = Array.from({ length: 8 }, (_, i) => countingExample(i));
const VALID: readonly Batch[] = [stackBatch([countingExample(9), countingExample(10)], 16, 0)];

interface Setup {
  readonly adapter: Adapter;
  readonly options: FitOptions;
}

function setup(lr: number | optim.Schedule, given: Partial<FitOptions> = {}): Setup {
  const model = tinyLlama();
  const adapter = adapt(model, methods.tl6({ rank: 2 }), { seed: 3 });
  const optimizer = optim.adamW(adapter.parameters(), { lr, weightDecay: 0 });
  const batch = batchesOf(TRAIN, { batch: 2, maxLength: 16, seed: 4, padId: 0 });
  return {
    adapter,
    options: { model, adapter, optimizer, steps: 6, batch, valid: VALID, evalEvery: 1, ...given },
  };
}

async function values(adapter: Adapter): Promise<number[]> {
  const all: number[] = [];
  for (const parameter of adapter.parameters()) all.push(...(await parameter.data()));
  return all;
}

async function reports(options: FitOptions): Promise<FitReport[]> {
  const all: FitReport[] = [];
  for await (const report of fit(options)) all.push(report);
  return all;
}

/** A schedule of learning rates with which the loss falls for three steps, and then rises. */
const overshooting = (step: number): number => (step < 3 ? 0.02 : 2);

suite("the best step", () => {
  test("is the one with the lowest held-out loss, and the adapter has its values in the end", async () => {
    const { adapter, options } = setup(overshooting);
    const seen: { step: number; loss: number; values: number[] }[] = [];
    let last: FitReport["state"] | null = null;
    for await (const { training, evaluation, improved, state } of fit(options)) {
      last = state;
      if (training === null) continue;
      seen.push({ step: training.step, loss: evaluation!.loss, values: await values(adapter) });
      const lowest = Math.min(...seen.map(({ loss }) => loss));
      assert.equal(improved, evaluation!.loss === lowest);
      assert.equal(state.best!.loss, lowest);
    }
    const best = seen.find(({ step }) => step === last!.best!.step)!;
    assert.ok(best.step < 6 && best.loss < seen.at(-1)!.loss, "the last step is worse");
    assert.deepEqual(await values(adapter), best.values);
    assert.equal((await evaluate(options.model, VALID)).loss, best.loss);
  });

  test("is not restored where that is not wanted", async () => {
    const { adapter, options } = setup(overshooting, { restoreBest: false });
    let last: number[] = [];
    for await (const _ of fit(options)) last = await values(adapter);
    assert.deepEqual(await values(adapter), last);
  });

  test("is restored with what was frozen since", async () => {
    const { adapter, options } = setup(0.02, { steps: 3 });
    let atBest: number[] = [];
    for await (const { training, improved } of fit(options)) {
      if (improved) atBest = await values(adapter);
      if (training?.step === 2) adapter.freeze({ factors: ["A"] });
    }
    assert.deepEqual(await values(adapter), atBest);
  });

  test("is restored when a signal ends the training", async () => {
    const stop = new AbortController();
    const { adapter, options } = setup(overshooting, { steps: 100, signal: stop.signal });
    let atBest: number[] = [];
    for await (const { training, improved } of fit(options)) {
      if (improved) atBest = await values(adapter);
      if (training?.step === 5) stop.abort();
    }
    assert.deepEqual(await values(adapter), atBest);
  });

  test("of equal losses is the first", async () => {
    const { options } = setup(0, { steps: 3 });
    const all = await reports(options);
    assert.deepEqual(
      all.map(({ improved, state: { best, sinceBest } }) => [improved, best?.step ?? null, sinceBest]),
      [
        [false, null, 0],
        [true, 1, 0],
        [false, 1, 1],
        [false, 1, 2],
      ],
    );
  });
});

suite("evaluations", () => {
  test("are those of the steps that are due, of the last one, and one before the first", async () => {
    const { options } = setup(0.01, { steps: 5, evalEvery: 2 });
    const before = await evaluate(options.model, VALID);
    const all = await reports(options);
    assert.deepEqual(
      all.filter(({ evaluation }) => evaluation !== null).map(({ training }) => training?.step ?? 0),
      [0, 2, 4, 5],
    );
    assert.deepEqual(all[0], {
      training: null,
      evaluation: before,
      improved: false,
      state: { step: 0, tokens: 0, best: null, sinceBest: 0, finished: false },
    });
  });

  test("are one after the last step alone, where no interval is given", async () => {
    const { options } = setup(0.01, { steps: 3, evalEvery: undefined, evalFirst: false });
    assert.deepEqual(
      (await reports(options)).map(({ evaluation }) => evaluation !== null),
      [false, false, true],
    );
  });

  test("do not make the untrained model the best step, however good it was", async () => {
    const { options } = setup(2, { steps: 2 });
    const [first, ...rest] = await reports(options);
    assert.ok(rest.every(({ evaluation }) => evaluation!.loss > first!.evaluation!.loss));
    assert.equal(rest.at(-1)!.state.best!.step, rest[0]!.evaluation!.loss <= rest[1]!.evaluation!.loss ? 1 : 2); // prettier-ignore
  });

  test("are none without held-out batches", async () => {
    const { options } = setup(0.01, { steps: 2, valid: undefined, evalEvery: undefined });
    assert.deepEqual(
      (await reports(options)).map(({ evaluation, state }) => [evaluation, state.best, state.finished]),
      [
        [null, null, false],
        [null, null, true],
      ],
    );
  });
});

suite("patience", () => {
  test("ends the training after that many evaluations without a lower loss", async () => {
    const { options } = setup(0, { steps: 100, evalEvery: 2, patience: 3 });
    const { state, training } = (await reports(options)).at(-1)!;
    assert.deepEqual([training!.step, state.best!.step, state.sinceBest, state.finished], [8, 2, 3, true]);
    assert.equal(options.optimizer.stepCount, 8, "no step was begun after that");
  });

  test("begins anew with each lower loss", async () => {
    // nothing is learned at steps 3 and 5
    const { options } = setup((step) => (step % 2 === 0 && step > 0 ? 0 : 0.01), {
      steps: 5,
      patience: 2,
      valid: [stackBatch(TRAIN, 16, 0)],
    });
    const all = await reports(options);
    assert.deepEqual(
      all.slice(1).map(({ state }) => state.sinceBest),
      [0, 0, 1, 0, 1],
    );
  });
});

suite("a training that goes on from a state", () => {
  test("is the one that was not cut off", async () => {
    const uncut = setup(overshooting, { steps: 6 });
    const whole = await reports(uncut.options);
    const { adapter, options } = setup(overshooting, { steps: 6 });
    let from: FitReport["state"] | undefined;
    for await (const { training, state } of fit(options)) {
      from = state;
      if (training?.step === 5) break;
    }
    assert.ok(from!.best!.step < 5, "no later step beats the best one before the cut");
    const rest = await reports({ ...options, from: from! });
    const lasting = ({ training, evaluation, improved, state }: FitReport): unknown =>
      [training?.step, training?.loss, evaluation, improved, state]; // prettier-ignore
    assert.deepEqual(rest.map(lasting), whole.slice(6).map(lasting));
    assert.deepEqual(await values(adapter), await values(uncut.adapter));
  });

  test("that has ended already sets the adapter to the values of the best step", async () => {
    const { adapter, options } = setup(overshooting);
    let from: FitReport["state"] | undefined;
    for await (const { state } of fit(options)) {
      from = state;
      if (state.finished) break;
    }
    const last = await values(adapter);
    assert.deepEqual(await reports({ ...options, from: from! }), []);
    assert.notDeepEqual(await values(adapter), last);
    assert.equal((await evaluate(options.model, VALID)).loss, from!.best!.loss);
  });

  test("without the values of its best step goes on if it is at that step, and is refused after it", async () => {
    const { adapter, options } = setup(overshooting, { restoreBest: false });
    let from: FitReport["state"] | undefined;
    const cutAt = async (step: number): Promise<number[]> => {
      for await (const { training, state } of fit(from ? { ...options, from } : options)) {
        from = JSON.parse(JSON.stringify(state)) as FitReport["state"];
        if (training?.step === step) break;
      }
      return values(adapter);
    };
    const atBest = await cutAt(2);
    assert.equal(from!.best!.step, 2);
    const best = from!;
    await cutAt(3);
    assert.equal(from!.best!.step, 2, "step 3 is worse");
    const after = { ...options, from: from!, restoreBest: true };
    const message =
      /from\.best is step 2, and from\.best\.values has no \d+ values of model\.\S+; give .* restoreBest: false/;
    await assert.rejects(fit(after).next(), { name: "TypeError", message });
    assert.equal(options.optimizer.stepCount, 3, "no step was begun");

    const again = setup(overshooting);
    for await (const { training } of fit(again.options)) if (training?.step === 2) break;
    await reports({ ...again.options, from: best });
    assert.deepEqual(await values(again.adapter), atBest);
  });

  test("ends at once if nothing is left to do", async () => {
    const { options } = setup(0, { patience: 1 });
    const last = (await reports(options)).at(-1)!.state;
    assert.deepEqual([last.step, last.finished], [2, true]);
    assert.deepEqual(await reports({ ...options, from: last }), []);
    assert.equal(
      (await reports({ ...options, from: last, patience: 2 })).length,
      1,
      "with more patience it goes on",
    );
  });
});

const { options } = setup(0.01);
const rows: readonly Row[] = [
  ["fit: steps", [[0, /0/], [1.5, /1\.5/], ["3", /"3"/]], (steps) => fit({ ...options, steps }).next()], // prettier-ignore
  [
    "fit: evalEvery",
    [
      [0, /0/],
      [null, /null/],
    ],
    (evalEvery) => fit({ ...options, evalEvery }).next(),
  ],
  [
    "fit: patience",
    [
      [0, /0/],
      [-1, /-1/],
    ],
    (patience) => fit({ ...options, patience }).next(),
  ],
  [
    "fit: valid",
    [
      [[], /\[\]/],
      [3, /3/],
    ],
    (valid) => fit({ ...options, valid }).next(),
  ],
  ["fit: patience", [[2, /without valid/]], (patience) => fit({ ...options, valid: undefined, evalEvery: undefined, patience }).next()], // prettier-ignore
];
testWrongArguments(rows);
