/** The page on difficulties quotes numbers: all of them are those of the table beside it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { LEVELS, type ToyTaskName } from "../../packages/experiments/src/toy-tasks/index.ts";
import { parseSweep } from "../../packages/experiments/src/sweep/spec.ts";
import { checkProse, fixed, minutesOf, type Row, tableOf } from "./support/pages.ts";

const docs = new URL("../../docs/", import.meta.url);
const page = await readFile(new URL("difficulty.md", docs), "utf8");
const runs: Row[] = parse(await readFile(new URL("difficulty/calibration.csv", docs), "utf8"), {
  columns: true,
});
const { train, on } = parseSweep(
  await readFile(new URL("../examples/difficulty.yaml", docs), "utf8"),
  "difficulty",
);
const rateOf = (method: string): number => (train.lr as Record<string, number>)[method]!;
/** Those with the steps and rates of the sweep's file, and those of the base. */
const table = runs.filter(
  ({ method, steps, lr }) => method === "none" || (steps === "150" && Number(lr) === rateOf(method!)),
);

test("the table of difficulties has every run of the calibration", () => {
  const rows = tableOf(page, "task", "difficulty", "base", "LoRA, rank 8", "full");
  const of = (task: string, method: string): string => {
    const found = table.filter((row) => row["task"] === task && row["method"] === method);
    assert.ok(found.length <= 1, `${task} has ${found.length} runs of ${method}`);
    return found.length === 0 ? "–" : fixed(found[0]!["score"]!);
  };
  for (const { task, difficulty, ...cells } of rows) {
    const name = `${task}-${difficulty}`;
    assert.deepEqual(
      [cells["base"], cells["LoRA, rank 8"], cells["full"]].map((cell) => cell!.replaceAll("**", "")),
      ["none", "lora", "full"].map((method) => of(name, method)),
      name,
    );
  }
  const named = rows.map(({ task, difficulty }) => `${task}-${difficulty}`);
  assert.deepEqual(new Set(named), new Set(table.map((row) => row["task"]!)));
  assert.equal(new Set(named).size, named.length);
});

test("every task of the table is in the sweep's file", () => {
  for (const { task } of table) assert.ok(on.tasks.includes(task!), task);
});

test("what grows is what the library says", () => {
  const rows = tableOf(page, "task", "what grows", "from 1 to");
  assert.equal(rows.length, Object.keys(LEVELS).length);
  for (const { task, "what grows": grows, "from 1 to": most } of rows) {
    assert.deepEqual([grows, most], [LEVELS[task as ToyTaskName].grows, String(LEVELS[task as ToyTaskName].most)]); // prettier-ignore
  }
});

test("numbers in the prose are those of the table, and its time that of the runs", () => {
  checkProse(page, new Set(runs.map((row) => fixed(row["score"]!))));
  const [, took] = /calibration took (\d+) minutes/.exec(page)!;
  assert.equal(took, minutesOf(runs));
});
