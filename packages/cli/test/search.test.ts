/** A sweep by successive halving, as a command: it trains a part of the grid, and what it trains to the end is the grid's. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { expandSweep } from "../../experiments/src/sweep/expand.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import type { Outcome } from "../../experiments/src/sweep/config.ts";
import { tiedlora } from "./support/command.ts";
import { temporary, writeModel, writeSums } from "./support/model-directory.ts";

/** A result without what depends on the clock. */
const timeless = ({ seconds: _s, tokensPerSecond: _t, duration: _d, ...rest }: Outcome): unknown => rest;

void suite("a sweep that searches", async () => {
  const folder = temporary();
  await writeModel(join(folder, "model"));
  writeSums(join(folder, "data"));
  const text = `
on: { model: ${folder}/model, tasks: [gsm8k], data: ${folder}/data, seq: 32, loss-only: true }
out: ${folder}/search
search: { successive-halving: { min-steps: 2 } }
vary: { method: [lora, tl6], rank: 2, lr: { lora: [0.0001, 0.001, 0.01], default: [0.001, 0.01, 0.1, 1] } }
train: { steps: 18, batch: 2, warmup: 0 }
evaluate: { every: 2, test: 4, baseline: false }
`;
  const file = join(folder, "search.yaml");
  const grid = join(folder, "grid.yaml");
  writeFileSync(file, text);
  writeFileSync(grid, text.replace(/search: .*/, "").replace("/search", "/grid"));

  test("trains the promising runs on, with the results of the grid, and repeats nothing", async () => {
    const sweep = await tiedlora("sweep", file, "--parallel", "2");
    assert.equal(sweep.code, 0, sweep.info);
    assert.match(sweep.info, /lora rank 2 seed 0, lr 0\.0001, to step 2: validation loss \d/);
    const all = await new RunStore(join(folder, "search")).outcomes();
    const whole = all.filter(({ config }) => config.until === undefined);
    assert.equal(all.filter(({ config }) => config.until === 2).length, 7);
    assert.ok(whole.length >= 2 && whole.length < 5, `${whole.length} whole runs`);
    const wanted = new Map(
      expandSweep(parseSweep(readFileSync(grid, "utf8"), grid)).map((one) => [JSON.stringify(one), one]),
    );
    assert.equal(wanted.size, 7);

    assert.equal((await tiedlora("sweep", grid, "--parallel", "2")).code, 0);
    const ofGrid = new Map((await new RunStore(join(folder, "grid")).outcomes()).map((one) => [one.id, one]));
    for (const one of whole) assert.deepEqual(timeless(one), timeless(ofGrid.get(one.id)!));

    const decisions = readdirSync(join(folder, "search/decisions"));
    assert.equal(decisions.length, all.length - 7, "one for each run that went on");
    const again = await tiedlora("sweep", file);
    assert.equal(again.code, 0, again.info);
    assert.match(again.info, new RegExp(`${all.length} runs, ${all.length} of them finished earlier`));
  });

  test("has a report that says what was stopped early", async () => {
    const { code, info } = await tiedlora("report", join(folder, "search"));
    assert.equal(code, 0, info);
    assert.match(
      info,
      /successive halving: \d+ of 126 steps of the grid \(\d+ %\); \d variants were stopped early/,
    );
    assert.match(readFileSync(join(folder, "search/report.html"), "utf8"), /<h2>Stopped early<\/h2>/);
  });

  test("is refused, with the line, before anything is written", async () => {
    const wrong = join(folder, "wrong.yaml");
    writeFileSync(wrong, text.replace("min-steps", "min-step").replace("/search", "/wrong"));
    const { code, info } = await tiedlora("sweep", wrong);
    assert.equal(code, 2, info);
    assert.match(
      info,
      /line 4: search\.successive-halving: there is no "min-step"; did you mean "min-steps"\?/,
    );
    assert.ok(!existsSync(join(folder, "wrong")));
  });
});
