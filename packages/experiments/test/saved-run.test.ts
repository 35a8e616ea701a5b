/** A run that goes on from its saved state has the result of one that never stopped. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, suite, test } from "node:test";
import { bytesSource, FormatError, openSafetensors } from "@tiedlora/core";
import { savedFile } from "../src/node/sweep/saved-file.ts";
import { type Outcome, runId, type RunConfig, wholeId } from "../src/sweep/config.ts";
import { parseResult } from "../src/sweep/results.ts";
import { runOne } from "../src/sweep/run.ts";
import type { SavedRun } from "../src/sweep/saved-run.ts";
import { TINY_RUN, tinyContext } from "./support/tiny.ts";

/** The saved state in memory. */
function kept(everySeconds = Infinity): SavedRun & { steps: number[]; bytes: Uint8Array | null } {
  return {
    name: "kept",
    steps: [],
    bytes: null,
    everySeconds,
    read() {
      return Promise.resolve(this.bytes);
    },
    write(bytes, step) {
      this.bytes = bytes;
      this.steps.push(step);
      return Promise.resolve();
    },
  };
}

/** A result without what depends on the clock. */
const timeless = ({ seconds: _s, tokensPerSecond: _t, ...rest }: Outcome): unknown => rest;

void suite("a run that goes on", async () => {
  const context = await tinyContext();
  after(() => context.model.device.close());
  const config: RunConfig = { ...TINY_RUN, dropout: 0.1, method: "lora" };
  const whole = timeless(await runOne(config, context));
  const [two, four] = [
    { ...config, until: 2 },
    { ...config, until: 4 },
  ];

  test("from one rung to the next has the bits of a run in one piece, and trains each step once", async () => {
    const saved = kept();
    const steps: number[] = [];
    const onStep = (step: number): void => void steps.push(step);
    const first = await runOne(two, { ...context, saved, onStep });
    const second = await runOne(four, { ...context, saved, onStep });
    assert.deepEqual([first.id, second.id], [`${wholeId(config)}-to-2`, `${wholeId(config)}-to-4`]);
    assert.deepEqual([first.steps, first.valid.length, second.valid.length], [2, 1, 2]);
    assert.deepEqual([first.valid[0], second.curve.slice(0, 2)], [second.valid[0], first.curve]);
    assert.ok(!("test" in second), "the test set is for the end");
    assert.deepEqual(timeless(await runOne(config, { ...context, saved, onStep })), whole);
    assert.deepEqual(steps, [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(saved.steps, [2, 4]);
    // Without a saved state, and with one that is further, the result is the same.
    const anew = await runOne(four, context);
    assert.deepEqual(timeless(anew), timeless(second));
    const { bytes } = saved;
    assert.deepEqual(timeless(await runOne(two, { ...context, saved })), timeless(first));
    assert.equal(saved.bytes, bytes, "the state that is further is kept");
    // The result of a rung is read back as one, and needs no test.
    assert.deepEqual(parseResult(JSON.stringify(second), "f", runId(four)), second);
  });

  test("has the bits of a run in one piece with moving averages, and with ranks that fall", async () => {
    const ranks = { rank: 4, rankSchedule: { rank: 1, warmup: 1, final: 2, every: 1 } };
    const other: RunConfig = { ...config, method: "ada-lora", ...ranks, ema: 0.5 };
    const saved = kept();
    await runOne({ ...other, until: 2 }, { ...context, saved });
    const inOne = timeless(await runOne(other, context));
    assert.deepEqual(timeless(await runOne(other, { ...context, saved })), inOne);
    assert.notDeepEqual(inOne, timeless(await runOne({ ...other, ema: undefined }, context)));
  });

  test("gives back the factors of its best step, though that was before it stopped", async () => {
    const worse: RunConfig = {
      ...config,
      dropout: 0,
      lr: 3,
      schedule: "constant",
      warmup: 0,
      clip: 100,
      steps: 8,
    };
    const expected = await runOne(worse, context);
    assert.ok(expected.bestStep < 6, `the best step is ${expected.bestStep}`);
    const saved = kept();
    await runOne({ ...worse, until: 6 }, { ...context, saved });
    assert.deepEqual(timeless(await runOne(worse, { ...context, saved })), timeless(expected));
  });

  test("after it was stopped between validations", async () => {
    for (const after of [1, 3, 5]) {
      const saved = kept();
      const stop = new AbortController();
      const onStep = (step: number): void => void (step === after && stop.abort(new Error("enough")));
      await assert.rejects(runOne(config, { ...context, saved, onStep, signal: stop.signal }), /enough/);
      assert.equal(saved.steps.length, 1);
      assert.ok(saved.steps[0]! >= after && saved.steps[0]! <= after + 1, `saved after ${saved.steps[0]}`);
      assert.deepEqual(timeless(await runOne(config, { ...context, saved })), whole);
    }
  });

  test("from a state that it saved on the way", async () => {
    const saved = kept(0);
    await runOne(config, { ...context, saved });
    assert.ok(
      saved.steps.length >= 4 && new Set(saved.steps).size === saved.steps.length,
      saved.steps.join(),
    );
    const file = await openSafetensors(bytesSource(saved.bytes!));
    assert.equal(file.metadata.get("id"), wholeId(config));
    assert.deepEqual(timeless(await runOne(config, { ...context, saved })), whole);
  });

  test("through a file; a damaged one, or another run's, is refused by name and changes nothing", async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "tiedlora-saved-"));
    t.after(() => rm(directory, { recursive: true }));
    const steps: number[] = [];
    const saved = savedFile(join(directory, "checkpoints", "a.safetensors"), (step) => void steps.push(step));
    await runOne(two, { ...context, saved });
    assert.deepEqual(steps, [2]);
    const bytes = (await saved.read())!;
    const refused = (run: RunConfig, damaged: Uint8Array): Promise<void> =>
      assert.rejects(
        runOne(run, { ...context, saved: { ...saved, read: () => Promise.resolve(damaged) } }),
        (error) => error instanceof FormatError && error.message.includes("a.safetensors"),
      );
    await refused({ ...config, seed: 9 }, bytes);
    await refused(config, bytes.subarray(0, bytes.length - 8));
    await refused(config, bytes.subarray(0, 40));
    assert.deepEqual(timeless(await runOne(config, { ...context, saved })), whole);
  });
});
