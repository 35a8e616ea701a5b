/** The page on difficulties quotes numbers: all of them are those of the tables beside it, and the comparisons those of the examples' scores. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { pairedBootstrap } from "../../packages/experiments/src/metrics/index.ts";
import { parseSweep } from "../../packages/experiments/src/sweep/spec.ts";
import { LEVELS, type ToyTaskName } from "../../packages/experiments/src/toy-tasks/index.ts";

const docs = new URL("../../docs/", import.meta.url);
const page = await readFile(new URL("difficulty.md", docs), "utf8");

type Row = Readonly<Record<string, string>>;
const csv = async (name: string): Promise<Row[]> =>
  parse(await readFile(new URL(`difficulty/${name}.csv`, docs), "utf8"), { columns: true });
const sweep = async (name: string): Promise<ReturnType<typeof parseSweep>> =>
  parseSweep(await readFile(new URL(`../examples/${name}.yaml`, docs), "utf8"), name);

const [calibration, rates, runs, summary, comparisons, scores] = await Promise.all(
  ["calibration", "rates", "runs", "summary", "comparisons", "examples"].map(csv),
) as [Row[], Row[], Row[], Row[], Row[], Row[]]; // prettier-ignore

const { seed: seeds } = (await sweep("hard-grid")).vary;

/** The rows of the page's table with these headers. */
function table(...headers: readonly string[]): Row[] {
  const cells = (line: string): string[] => line.split("|").slice(1, -1).map((cell) => cell.trim().replaceAll("`", "")); // prettier-ignore
  const blocks = page.split("\n\n").filter((block) => block.trim().startsWith("|"));
  const found = blocks.map((block) => block.trim().split("\n").map(cells)).find(([head]) => head!.join() === headers.join()); // prettier-ignore
  assert.ok(found !== undefined, `there is no table with ${headers.join()}`);
  const [head, , ...rows] = found as [string[], string[], ...string[][]];
  return rows.map((row) => Object.fromEntries(head.map((name, i) => [name, row[i]!])));
}

const scoreOf = (row: Row): number =>
  Number(row[row["task"]!.startsWith("arithmetic") ? "result" : "accuracy"]);
const fixed = (value: number | string, digits = 1): string => Number(value).toFixed(digits);

test("the table of difficulties has every run of the calibration", () => {
  const rows = table("task", "difficulty", "base", "LoRA, rank 8", "full");
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
  const rows = table("task", "what grows", "from 1 to");
  assert.equal(rows.length, Object.keys(LEVELS).length);
  for (const { task, "what grows": grows, "from 1 to": most } of rows) {
    assert.deepEqual([grows, most], [LEVELS[task as ToyTaskName].grows, String(LEVELS[task as ToyTaskName].most)]); // prettier-ignore
  }
});

test("the rates are those with the lowest validation loss, in the page and in the grid's file", async () => {
  const { train, vary } = await sweep("hard-grid");
  const rows = table("method", "rates that were tried", "best rate", "its validation loss");
  const named = rows.map(({ method }) => method);
  assert.deepEqual(new Set(named), new Set(rates.map((row) => row["method"])));
  assert.ok(vary.method.every((method) => named.includes(method)));
  for (const {
    method,
    "best rate": best,
    "its validation loss": loss,
    "rates that were tried": tried,
  } of rows) {
    const own = rates.filter((row) => row["method"] === method);
    const last = Math.max(...own.map((row) => Number(row["steps"])));
    const finalists = own.filter((row) => Number(row["steps"]) === last);
    const least = finalists.reduce((a, b) => (Number(b["validation_loss"]) < Number(a["validation_loss"]) ? b : a)); // prettier-ignore
    assert.deepEqual([best, loss], [least["lr"], fixed(least["validation_loss"]!, 3)]);
    if (vary.method.includes(method!)) assert.equal((train.lr as Record<string, number>)[method!], Number(best)); // prettier-ignore
    const all = [...new Set(own.map((row) => Number(row["lr"])))].sort((a, b) => a - b);
    assert.equal(tried, all.join(", "));
  }
});

test("the table of means is that of the summary", () => {
  const tasks = ["all tasks", "translation-3", "arithmetic-2"];
  const rows = table("method", "parameters", ...tasks);
  assert.equal(rows.length, 4);
  for (const { method, parameters, ...cells } of rows)
    for (const task of tasks) {
      const found = summary.find((row) => row["task"] === task && row["method"] === method)!;
      assert.equal(cells[task], `${fixed(found["mean"]!)} ± ${fixed(found["half_95"]!)}`, `${method}, ${task}`); // prettier-ignore
      assert.equal(parameters, Number(found["trainable"]).toLocaleString("en-US"));
      assert.equal(found["seeds"], String(seeds.length));
    }
});

test("the table of differences is that of the comparisons, all of them", () => {
  const rows = table("method", "task", "difference to LoRA", "95 % interval", "p");
  assert.equal(rows.length, comparisons.length);
  for (const { method, task, ...cells } of rows) {
    const found = comparisons.find((row) => row["task"] === task && row["method"] === method)!;
    const p = Number(found["p"]) < 0.001 ? "< 0.001" : fixed(found["p"]!, 3);
    const signed = (value: string): string =>
      `${Number(value) > 0 ? "+" : ""}${fixed(value)}`.replace("-", "−");
    assert.deepEqual(
      [cells["difference to LoRA"], cells["95 % interval"], cells["p"]],
      [signed(found["difference"]!), `${signed(found["low_95"]!)} to ${signed(found["high_95"]!)}`, p],
      `${method}, ${task}`,
    );
    assert.deepEqual([found["against_method"], found["against_rank"]], ["lora", "8"]);
  }
});

test("the comparisons over all tasks, and the means, are those of the single examples' scores", () => {
  const of = (task: string, method: string): number[][][] =>
    seeds.map(String).map((seed) => {
      const run = runs.find(
        (row) => row["task"] === task && row["method"] === method && row["seed"] === seed,
      )!;
      const { scores: text } = scores.find((row) => row["id"] === run["id"]) as { scores: string };
      const each = text.split(" ").map(Number);
      const mean = (100 * each.reduce((a, b) => a + b, 0)) / each.length;
      assert.ok(Math.abs(mean - scoreOf(run)) < 1e-9);
      return each.map((score) => [score]);
    });
  const tasks = ["arithmetic-2", "translation-3"];
  const over = comparisons.filter((row) => row["task"] === "all tasks");
  assert.equal(over.length, 3);
  for (const row of over) {
    const found = pairedBootstrap(
      tasks.map((task) => ({
        ours: of(task, row["method"]!),
        theirs: of(task, "lora"),
        score: ([sum], count) => (100 * sum!) / count,
      })),
    );
    for (const [name, value] of [["difference", found.mean], ["low_95", found.low], ["high_95", found.high], ["p", found.p]] as const)
      assert.ok(Math.abs(Number(row[name]) - value) < 1e-9, `${row["method"]}: ${name}`); // prettier-ignore
  }
});

test("numbers in the prose are those of the tables, and times those of the runs", () => {
  const prose = page.split("\n").filter((line) => !line.startsWith("|")).join("\n"); // prettier-ignore
  const known = new Set([
    ...[...summary].flatMap((row) => [row["mean"]!, row["half_95"]!]),
    ...comparisons.flatMap((row) => ["difference", "low_95", "high_95"].map((name) => row[name]!)),
  ].map((value) => fixed(Math.abs(Number(value))))); // prettier-ignore
  for (const row of calibration) known.add(fixed(row["score"]!));
  for (const { scores: text } of scores) {
    const each = text!.split(" ").map(Number);
    known.add(fixed((100 * each.reduce((a, b) => a + b, 0)) / each.length));
  }
  for (const number of prose.match(/(?<![\d.])\d+\.\d(?!\d)/g) ?? [])
    assert.ok(known.has(number), `${number} is in no table`);
  const minutes = (rows: readonly Row[]): string => String(Math.round(rows.reduce((sum, row) => sum + Number(row["duration"]), 0) / 60)); // prettier-ignore
  const [, calibrated, searched, measured] =
    /calibration took (\d+) minutes, the search (\d+) and the grid (\d+)/.exec(page)!;
  assert.deepEqual([calibrated, searched, measured], [calibration, rates, scores].map(minutes)); // prettier-ignore
});
