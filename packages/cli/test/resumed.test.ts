/** Runs that are interrupted and resumed give the bits of runs that are not, whatever a run keeps beside its adapter: ranks, averages, starts, buffers, dropout. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { pathToFileURL } from "node:url";
import { EXIT } from "../src/exit.ts";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const path = (...names: string[]): string => join(folder, ...names);
const [model, data, pairs] = [path("model"), path("train.jsonl"), path("pairs.jsonl")];

/** Flags of runs; `after`: the step after which a run is interrupted. */
const RUNS: Readonly<Record<string, { readonly flags: readonly string[]; readonly after: number }>> = {
  "with ranks that fall, and moving averages": {
    flags: ["--data", data, "--method", "ada-lora", "--rank-schedule", "rank=1,warmup=1,final=1,every=1", "--ema", "0.9"], // prettier-ignore
    after: 2,
  },
  "with ranks that have fallen": {
    flags: ["--data", data, "--method", "ada-lora", "--rank-schedule", "rank=1,warmup=0,final=4,every=1"],
    after: 3,
  },
  "from a start that observes data": { flags: ["--data", data, "--init", "eva", "--valid-split", "2", "--optimizer", "muon"], after: 2 }, // prettier-ignore
  "of data that are read through a buffer": { flags: ["--data", data, "--valid", data, "--shuffle-buffer", "5", "--accumulate", "2"], after: 2 }, // prettier-ignore
  "of preferences, with dropout": { flags: ["--data", pairs, "--loss", "dpo", "--dropout", "0.3", "--ema", "0.5"], after: 2 }, // prettier-ignore
};

suite("a run that is interrupted and resumed", () => {
  before(async () => {
    await writeModel(model);
    writeExamples(data, 12);
    const pair = (i: number): string =>
      JSON.stringify({ prompt: `say ${i}`, chosen: `${i}!`, rejected: `${i + 1}?` });
    writeFileSync(pairs, Array.from({ length: 9 }, (_, i) => `${pair(i)}\n`).join("")); // prettier-ignore
  });

  /** A file of callbacks that interrupts the first run that is told it, after a step. */
  function stopAfter(step: number, name: string): string {
    const interrupt = pathToFileURL(join(import.meta.dirname, "../src/interrupt.ts")).href;
    const file = path(`${name}.mjs`);
    writeFileSync(
      file,
      `import { requestStop } from ${JSON.stringify(interrupt)};\nlet stopped = false;\n` +
        `export const onStep = ({ step }) => { if (step === ${step} && !stopped) { stopped = true; requestStop(); } };\n`,
    );
    return file;
  }

  for (const [i, [what, { flags, after }]] of Object.entries(RUNS).entries()) {
    test(`${what} gives the same adapter, bit for bit`, async () => {
      const train = (out: string, ...more: string[]): ReturnType<typeof tiedlora> =>
        tiedlora("train", "--model", model, "--batch", "2", "--target", "q_proj", "--seq", "24", "--rank", "4", "--steps", "6", "--eval-every", "2", "--out", out, ...flags, ...more); // prettier-ignore
      const [whole, part] = [path(`whole${i}`), path(`part${i}`)];
      const one = await train(whole);
      assert.equal(one.code, 0, one.info);
      const first = await train(part, "--callbacks", stopAfter(after, `stop${i}`));
      assert.equal(first.code, EXIT.interrupted, first.info);
      assert.match(first.info, /interrupted after step [2-5]/);
      const rest = await tiedlora("train", "--resume", "--out", part);
      assert.equal(rest.code, 0, rest.info);
      assert.match(rest.info, /going on after step [2-5] of 6/);
      const tensors = (out: string): Buffer => readFileSync(join(out, "adapter_model.safetensors"));
      assert.deepEqual(tensors(part), tensors(whole));
      const steps = (out: string): unknown[] =>
        readFileSync(join(out, "logs/metrics.jsonl"), "utf8")
          .trim()
          .split("\n")
          .map((line) => {
            const { step, loss, valid_loss } = JSON.parse(line) as Record<string, number>;
            return [step, loss, valid_loss];
          });
      assert.deepEqual(steps(part), steps(whole));
    });
  }
});
