import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { key, normalArray } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods, RankSchedule } from "../src/index.ts";
import { lossOf, tinyLlama } from "./support/tiny.ts";

suite("a schedule of ranks", () => {
  test("falls along the paper's cubic curve, from the adapter's rank to the given one", () => {
    const adapter = adapt(tinyLlama(), methods.adaLora({ rank: 4 }));
    const schedule = new RankSchedule(adapter, { steps: 100, rank: 1, warmup: 10, final: 30 });
    assert.deepEqual(
      [0, 10, 70, 100].map((step) => schedule.budget(step)),
      [12, 12, 3, 3],
    );
    assert.equal(schedule.budget(40), Math.round(3 + 9 * 0.5 ** 3));
  });

  test("sets the smallest triplets of the whole model to zero, and keeps them there in the end", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.adaLora({ rank: 4 }));
    const lambdas = adapter.select({ factors: ["lambda"] });
    lambdas.forEach((one, i) => one.set(normalArray(key(i), 4)));
    const all = (await Promise.all(lambdas.map((one) => one.data()))).flatMap((list) => [...list]);
    const threshold = all.map(Math.abs).sort((a, b) => b - a)[5]!;
    const schedule = new RankSchedule(adapter, { steps: 10, rank: 2, warmup: 2, final: 4 });
    assert.equal(schedule.due(1), false);
    await schedule.apply(1); // not due: nothing changes
    await schedule.apply(6);
    const read = async (): Promise<number[]> =>
      (await Promise.all(lambdas.map((one) => one.data()))).flatMap((list) => [...list]);
    assert.deepEqual(
      await read(),
      all.map((value) => (Math.abs(value) >= threshold ? value : 0)),
    );
    assert.equal(
      [...(await schedule.ranks()).values()].reduce((a, b) => a + b),
      6,
    );
    assert.equal(adapter.count().trainable, adapter.count().total - 6);
    optim.adamW(adapter.parameters(), { lr: 0.1 }).step(lossOf(model));
    const after = await read();
    all.forEach((value, i) => assert.equal(after[i] === 0, Math.abs(value) < threshold));
  });

  test("prunes moving averages too, which are saved in the place of what is trained", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.adaLora({ rank: 4 }));
    const lambdas = adapter.select({ factors: ["lambda"] });
    const optimizer = optim.adamW(adapter.parameters(), { lr: 0.1 });
    const average = new optim.EMA(adapter.parameters(), { decay: 0.9 });
    const schedule = new RankSchedule(adapter, { steps: 6, rank: 1, warmup: 1, final: 2 });
    for (let step = 1; step <= 6; step++) {
      optimizer.step(lossOf(model));
      average.update();
      await schedule.apply(step, average);
    }
    average.swap();
    const values = (await Promise.all(lambdas.map((one) => one.data()))).flatMap((list) => [...list]);
    assert.equal(values.filter((value) => value !== 0).length, lambdas.length);
  });

  test("that cannot be is refused", () => {
    const adapter = adapt(tinyLlama(), methods.adaLora({ rank: 4 }));
    assert.throws(() => new RankSchedule(adapter, { steps: 10, rank: 5 }), {
      message:
        /ends at rank 5, above its start: the adapter has a mean rank of 4\. Declare the method with a higher rank/,
    });
    assert.throws(
      () => new RankSchedule(adapter, { steps: 10, rank: 2, warmup: 5, final: 5 }),
      /leave none of 10/,
    );
    const lora = adapt(tinyLlama(), methods.lora());
    assert.throws(
      () => new RankSchedule(lora, { steps: 10, rank: 2 }),
      /method is lora, which has no triplets/,
    );
  });
});
