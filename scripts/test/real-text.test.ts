/**
 * The page on text written by people quotes numbers: all of them are those of the tables beside it, and the comparisons those of the
 * single examples. Nothing is trained, and no data set is read.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { taskByName } from "../../packages/experiments/src/tasks/index.ts";
import { parseSweep } from "../../packages/experiments/src/sweep/spec.ts";
import { checkBootstrap, checkDifferences, checkProse, checkRates, examplesOf, fixed, minutesOf, openPage, type Row, type Searched, tableOf } from "./support/pages.ts"; // prettier-ignore

const docs = new URL("../../docs/", import.meta.url);
const csv = async (name: string): Promise<readonly Row[]> =>
  parse(await readFile(new URL(`real-text/${name}`, docs), "utf8"), { columns: true });

const page = await openPage("real-text.md", "real-text", "real-text");
const { text, tables } = page;
const linear: Searched = {
  tables: { rates: await csv("linear/rates.csv") },
  grid: parseSweep(
    await readFile(new URL("../examples/real-text-linear.yaml", docs), "utf8"),
    "real-text-linear",
  ),
};
const others = await csv("others/runs.csv");

const bleu = taskByName("e2e").metrics[0];
assert.ok(bleu.kind === "text");
const SCORES = {
  scores: bleu.parts!.score,
  losses: ([sum, tokens]: readonly number[]): number => sum! / tokens!,
};

const mean = (runs: readonly Row[], column: string): number =>
  runs.reduce((sum, run) => sum + Number(run[column]), 0) / runs.length;
const whole = (value: string): string => Number(value).toLocaleString("en-US");

for (const [name, searched, ...rank] of [
  ["queries, keys and values", page],
  ["all linear layers", linear, "rank"],
] as const)
  // prettier-ignore
  test(`${name}: the rates are those with the lowest validation loss, in the page and in the grid's file`, () => {
    const rows = tableOf(text, "method", ...rank, "parameters", "rates that were tried", "best rate", "its validation loss"); // prettier-ignore
    checkRates(searched, rows);
    for (const { method, rank: own = "8", parameters } of rows) {
      const run = searched.tables.rates.find((one) => one["method"] === method && one["rank"] === own)!;
      assert.equal(parameters, whole(run["trainable"]!), `${method}, rank ${own}`);
    }
  });

test("the table of means is that of the runs", () => {
  const rows = tableOf(text, "method", "parameters", "seeds", "validation loss", "test loss", "BLEU");
  assert.deepEqual(
    new Set(rows.map(({ method }) => method)),
    new Set(tables.runs.map(({ method }) => method)),
  );
  for (const { method, ...cells } of rows) {
    const own = tables.runs.filter((run) => run["method"] === method);
    const runs = own.map((run) => ({ ...tables.examples.find(({ id }) => id === run["id"])!, ...run }));
    const validation = method === "none" ? "–" : fixed(mean(runs, "validation_loss"), 2);
    assert.deepEqual(
      [cells["parameters"], cells["seeds"], cells["validation loss"], cells["test loss"], cells["BLEU"]],
      [whole(own[0]!["trainable"]!), String(runs.length), validation, fixed(mean(runs, "test_loss"), 2), fixed(mean(runs, "BLEU"))],
      method,
    ); // prettier-ignore
  }
});

test("the table of differences is that of the comparisons, and these are those of the single examples", () => {
  const rows = tableOf(text, "method", "measure", "seeds", "difference to LoRA", "95 % interval", "p");
  for (const [measure, column, digits] of [
    ["loss", "losses", 2],
    ["BLEU", "scores", 1],
  ] as const) {
    // prettier-ignore
    const own = tables.comparisons.filter((row) => row["metric"] === measure);
    const quoted = rows
      .filter((row) => row["measure"] === measure)
      .map((row): Row => ({ ...row, task: "e2e" }));
    checkDifferences(own, quoted, { digits });
    for (const row of own) {
      checkBootstrap(page, row, ["e2e"], { column, score: SCORES[column] });
      assert.equal(quoted.find(({ method }) => method === row["method"])!["seeds"], row["seeds"]);
    }
  }
  assert.equal(rows.length, tables.comparisons.length);
});

test("the overview and the page of the paper's grid quote TL6's difference", async () => {
  const row = tables.comparisons.find((one) => one["method"] === "tl6" && one["metric"] === "loss")!;
  const [difference, low, high] = [row["difference"]!, row["low_95"]!, row["high_95"]!].map((value) => fixed(value, 2)); // prettier-ignore
  for (const name of ["../README.md", "paper-grid.md"]) {
    const other = (await readFile(new URL(name, docs), "utf8")).replaceAll(/\s+/g, " ");
    assert.match(other, new RegExp(`${difference} .{0,40}\\(95 % interval ${low} to ${high}\\)`), name);
  }
  const [ours, theirs] = ["tl6", "lora"].map((method) => Number(tables.runs.find((run) => run["method"] === method)!["trainable"])); // prettier-ignore
  const grid = await readFile(new URL("paper-grid.md", docs), "utf8");
  assert.ok(grid.includes(`with ${fixed((100 * ours!) / theirs!, 0)} % of LoRA's parameters: [text`));
});

test("losses and scores of the runs are those of their single examples", () => {
  for (const run of tables.runs)
    for (const [column, measured] of [
      ["losses", "test_loss"],
      ["scores", "BLEU"],
    ] as const) {
      // prettier-ignore
      const each = examplesOf(tables, run, column);
      const sums = each[0]!.map((_, part) => each.reduce((sum, one) => sum + one[part]!, 0));
      assert.ok(Math.abs(SCORES[column](sums, each.length) - Number(run[measured])) < 1e-6, run["id"]);
    }
});

test("the table of four data sets is that of its runs", () => {
  const rows = tableOf(text, "task", "loss of the base", "loss with LoRA", "metric", "base", "LoRA");
  assert.deepEqual(new Set(rows.map(({ task }) => task)), new Set(others.map(({ task }) => task)));
  for (const { task, metric, ...cells } of rows) {
    const of = (method: string): Row =>
      others.find((run) => run["task"] === task && run["method"] === method)!;
    const [base, lora] = [of("none"), of("lora")];
    assert.equal(metric, taskByName(task!).metrics[0].name);
    assert.deepEqual(
      [cells["loss of the base"], cells["loss with LoRA"], cells["base"], cells["LoRA"]],
      [
        fixed(base["test_loss"]!, 2),
        fixed(lora["test_loss"]!, 2),
        fixed(base[metric]!),
        fixed(lora[metric]!),
      ],
    );
  }
});

test("numbers in the prose are those of the tables, and times those of the runs", () => {
  const inTables = text.split("\n").filter((line) => line.startsWith("|")).join(" ").match(/\d+[.,]\d+/g)!; // prettier-ignore
  for (const digits of [1, 2, 3]) checkProse(text, new Set(inTables), digits);
  const prose = text.split("\n").filter((line) => !line.startsWith("|")).join("\n"); // prettier-ignore
  for (const number of prose.match(/\d+,\d{3}/g)!)
    assert.ok(inTables.includes(number), `${number} is in no table`);
  const [, search, grid] = /the searches took (\d+) minutes and the runs of the grid (\d+)/.exec(text)!;
  assert.deepEqual(
    [search, grid],
    [minutesOf([...tables.rates, ...linear.tables.rates]), minutesOf(tables.examples)],
  );
  const { vary, on } = page.grid;
  assert.equal(tables.runs.length, vary.method.length * vary.seed.length + on.tasks.length); // and the base
});

test("neither reports nor tables quote the data sets or what models wrote", async () => {
  for (const folder of ["", "others/"]) {
    const report = await readFile(new URL(`real-text/${folder}report.html`, docs), "utf8");
    assert.ok(!/Meaning:|Dialogue:|English:|Context:/.test(report));
    assert.match(report, /left out of this report/);
  }
  for (const { scores, losses } of tables.examples) assert.match(`${scores} ${losses}`, /^[\d., e-]+$/);
});
