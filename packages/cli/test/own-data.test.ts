/** The paper's grid on a real model and real data sets: one line of its file changes, the one that stands there as a comment. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { BASELINE } from "../../experiments/src/sweep/config.ts";
import { parseSweep, type SweepSpec } from "../../experiments/src/sweep/spec.ts";
import { SHARED, without } from "../../../test/support/shared.ts";
import { tiedlora } from "./support/command.ts";
import { temporary } from "./support/model-directory.ts";

const GRID = join(import.meta.dirname, "../../../examples/paper-grid.yaml");
const TASKS = ["gsm8k", "squad", "hellaswag", "multi30k", "dialogsum", "e2e"];
const missing = ["models/stories260K", ...TASKS.map((task) => `data/${task}`)].map(without).find(Boolean);

/** The grid's text with its other line in force; `shared` is where that line says ../shared. */
function otherGrid(shared: string): string {
  const text = readFileSync(GRID, "utf8");
  const [, line = ""] = /^# +(on: \{.*\})$/m.exec(text) ?? [];
  assert.ok(line.includes("../shared/"), `there is a line to take instead, on ../shared: ${line}`);
  return text.replace(/^on: .*$/m, line.replaceAll("../shared", shared));
}

test("one line of the grid's file is another, and the rest of the experiment the same", () => {
  const [own, other] = [readFileSync(GRID, "utf8"), otherGrid("../shared")].map((text) => parseSweep(text, "grid")) as [SweepSpec, SweepSpec]; // prettier-ignore
  assert.deepEqual({ ...other, on: null }, { ...own, on: null });
  assert.deepEqual(other.on, {
    model: "../shared/models/stories260K",
    data: "../shared/data",
    tasks: TASKS,
    seq: 512,
    "loss-only": true,
  });
});

test(
  "it trains and evaluates all six tasks, and reports loss and perplexity",
  { skip: missing ?? false },
  async () => {
    const folder = temporary();
    const [file, out] = [join(folder, "grid.yaml"), join(folder, "run")];
    const grid = parse(otherGrid(SHARED)) as Record<string, object>;
    const shorter = {
      ...grid,
      vary: { method: "tl6", rank: 2 },
      train: { ...grid["train"], steps: 4, batch: 2, warmup: 1, lr: 0.03 },
      evaluate: { ...grid["evaluate"], every: 2, train: 16, valid: 4, test: 4 },
    };
    writeFileSync(file, stringify(shorter));
    const sweep = await tiedlora("sweep", file, "--out", out);
    assert.equal(sweep.code, 0, sweep.info);
    const results = await new RunStore(out).finished();
    for (const task of TASKS) {
      const runs = results.filter(({ config }) => config.task === task);
      assert.deepEqual(runs.map(({ config }) => config.method).sort(), [BASELINE, "tl6"], task);
      const [before, after] = [BASELINE, "tl6"].map((method) => runs.find(({ config }) => config.method === method)!.test); // prettier-ignore
      assert.deepEqual([before!.count, before!.skipped, after!.count], [4, 0, 4], task);
      assert.ok(after!.loss < before!.loss, `${task} is learned: from ${before!.loss} to ${after!.loss}`);
      assert.ok(Math.abs(after!.perplexity / Math.exp(after!.loss) - 1) < 1e-12, task);
      assert.match(
        sweep.info,
        new RegExp(`${task} tl6 rank 2 seed 0: perplexity ${after!.perplexity.toFixed(2)}`),
      );
    }
    const report = await tiedlora("report", out);
    assert.equal(report.code, 0, report.info);
    const page = readFileSync(join(out, "report.html"), "utf8");
    for (const { config, test: measured } of results) {
      const method = config.method === BASELINE ? "no adapter" : config.method;
      const row = page
        .split("<tr>")
        .find((text) => text.startsWith(`<td>${config.task}</td><td>${method}</td>`));
      const shown = [measured.perplexity.toFixed(2), measured.loss.toFixed(4)].map(
        (text) => `<td>${text}</td>`,
      );
      assert.ok(row?.includes(`<td>perplexity</td>${shown.join("")}`), `${config.task} ${method}: ${row}`);
    }
  },
);
