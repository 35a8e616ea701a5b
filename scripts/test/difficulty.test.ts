/**
 * The pages on difficulties quote numbers: all of them are those of the tables beside them, and the comparisons those of the examples'
 * scores.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { LEVELS, type ToyTaskName } from "../../packages/experiments/src/toy-tasks/index.ts";
import {
  checkBootstrap,
  checkDifferences,
  checkMeans,
  checkProse,
  checkRates,
  checkScores,
  fixed,
  minutesOf,
  openPage,
  percentage,
  tableOf,
} from "./support/pages.ts";

const PAGES = {
  "difficulty.md": await openPage("difficulty.md", "difficulty", "hard-grid"),
};
const TASKS = ["arithmetic-2", "translation-3"];

test("the table of difficulties has every run of the calibration", () => {
  const { text, tables } = PAGES["difficulty.md"];
  const { calibration } = tables;
  const rows = tableOf(text, "task", "difficulty", "base", "LoRA, rank 8", "full");
  const of = (task: string, method: string): string => {
    const found = calibration.find((row) => row["task"] === task && row["method"] === method);
    return found === undefined ? "–" : fixed(found["score"]!);
  };
  for (const { task, difficulty, ...cells } of rows) {
    const name = `${task}-${difficulty}`;
    assert.deepEqual(
      [cells["base"], cells["LoRA, rank 8"], cells["full"]].map((cell) => cell!.replaceAll("**", "")),
      ["none", "lora", "full"].map((method) => of(name, method)),
      name,
    );
  }
  const named = new Set(rows.map(({ task, difficulty }) => `${task}-${difficulty}`));
  assert.deepEqual(named, new Set(calibration.map((row) => row["task"]!)));
});

test("what grows is what the library says", () => {
  const rows = tableOf(PAGES["difficulty.md"].text, "task", "what grows", "from 1 to");
  assert.equal(rows.length, Object.keys(LEVELS).length);
  for (const { task, "what grows": grows, "from 1 to": most } of rows) {
    assert.deepEqual([grows, most], [LEVELS[task as ToyTaskName].grows, String(LEVELS[task as ToyTaskName].most)]); // prettier-ignore
  }
});

for (const [name, page] of Object.entries(PAGES)) {
  const { text, tables } = page;
  const { calibration, rates, runs, summary, comparisons, examples } = tables;

  describe(name, () => {
    test("the rates are those with the lowest validation loss, in the page and in the grid's file", () => {
      checkRates(page, tableOf(text, "method", "rates that were tried", "best rate", "its validation loss"));
    });

    test("the table of means is that of the summary", () => {
      const tasks = ["all tasks", "translation-3", "arithmetic-2"];
      checkMeans(page, tableOf(text, "method", "parameters", ...tasks), tasks);
    });

    test("the table of differences is that of the comparisons, all of them", () => {
      const rows = tableOf(text, "method", "task", "difference to LoRA", "95 % interval", "p");
      checkDifferences(comparisons, rows);
    });

    test("the comparisons over all tasks, and the means, are those of the single examples' scores", () => {
      checkScores(tables, runs.filter((row) => TASKS.includes(row["task"]!) && row["method"] !== "none")); // prettier-ignore
      const over = comparisons.filter((row) => row["task"] === "all tasks");
      assert.equal(over.length, 3);
      for (const row of over) checkBootstrap(page, row, TASKS, { score: percentage });
    });

    test("numbers in the prose are those of the tables, and times those of the runs", () => {
      const known = new Set([
        ...summary.flatMap((row) => [row["mean"]!, row["half_95"]!]),
        ...comparisons.flatMap((row) => ["difference", "low_95", "high_95"].map((column) => row[column]!)),
        ...calibration.map((row) => row["score"]!),
        ...examples.map(({ scores }) => {
          const each = scores!.split(" ").map(Number);
          return (100 * each.reduce((a, b) => a + b, 0)) / each.length;
        }),
      ].map((value) => fixed(Math.abs(Number(value))))); // prettier-ignore
      checkProse(text, known);
      const times = /(?:calibration took (\d+) minutes, )?the search (?:took )?(\d+) (?:minutes )?and the grid (\d+)/; // prettier-ignore
      const [, ...found] = times.exec(text)!;
      const expected = [calibration, rates, examples].filter((rows) => rows.length > 0).map(minutesOf);
      assert.deepEqual(found.filter((one) => one !== undefined), expected); // prettier-ignore
    });
  });
}
