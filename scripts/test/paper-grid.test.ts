/** The page on the paper's grid quotes numbers: all of them are those of the tables beside its reports, and so are its pictures. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { pictureFile, pictures } from "../grid-pictures.ts";
import {
  checkBootstrap,
  checkDifferences,
  checkMeans,
  checkPairs,
  checkProse,
  checkRates,
  checkScores,
  fixed,
  minutesOf,
  openPage,
  percentage,
  scoreOf,
  type Page,
  tableOf,
} from "./support/pages.ts";

const docs = new URL("../../docs/", import.meta.url);
const HEADINGS = /^## (?:A task that separates nothing|On a base of another shape|What it does not show)$/m;
const TASKS = ["translation-6", "arithmetic-2", "choice-6"];

/** A part of the page, about the runs of one sweep, and its tasks. */
interface Part extends Page {
  readonly tasks: readonly string[];
  /** What it compares methods over. */
  readonly over: string;
}

async function part(folder: string, grid: string, which: number, tasks: readonly string[]): Promise<Part> {
  const page = await openPage("paper-grid.md", folder, grid);
  const text = page.text.split(HEADINGS)[which]!;
  return { ...page, text, tasks, over: tasks.length > 1 ? "all tasks" : tasks[0]! };
}

const PARTS = {
  "the embedded base": await part("paper-grid", "paper-grid", 0, TASKS),
  "a task that separates nothing": await part("paper-grid/summary", "paper-grid-summary", 1, ["summary-3"]),
  "the base of GPT-2's shape": await part("paper-grid/gpt2", "paper-grid-gpt2", 2, TASKS),
};

for (const [name, page] of Object.entries(PARTS)) {
  const { text, tables, grid, tasks, over } = page;
  const columns = tasks.length > 1 ? [over, ...tasks] : tasks;
  const { runs, summary, comparisons, rates, pairs, examples } = tables;
  const overAll = comparisons.filter(({ task }) => task === over);

  describe(name, () => {
    test("the rates are those with the lowest validation loss, in the page and in the grid's file", () => {
      const headers = ["method", "rank", "rates that were tried", "best rate", "its validation loss"];
      const searched = rates.length > 0 ? page : { ...PARTS["the embedded base"], grid };
      checkRates(searched, tableOf(searched.text, ...headers));
    });

    test("the grid has every run, and every method and rank is in the table of means", () => {
      const each = summary.filter(({ task }) => task === over).length;
      const trained = runs.filter(({ method }) => method !== "none");
      assert.equal(trained.length, each * tasks.length * grid.vary.seed.length);
      checkMeans(page, tableOf(text, "method", "rank", "parameters", ...columns), columns);
    });

    test("the table of differences to LoRA is that of the comparisons", () => {
      const rows = tableOf(text, "method", "rank", "task", "difference to LoRA", "95 % interval", "p");
      checkDifferences(overAll, rows);
    });

    test("the table of pairs is that of the pairs", () => {
      const each = tasks.length > 1 ? tasks : [];
      checkPairs(pairs, tableOf(text, "first", "second", "difference", "95 % interval", "p", ...each), over);
    });

    test("means and differences are those of the single examples' scores", () => {
      checkScores(tables, runs.filter((row) => row["method"] !== "none")); // prettier-ignore
      const all = pairs.filter(({ task }) => task === over);
      for (const row of all) checkBootstrap(page, row, [...tasks].sort(), { score: percentage });
    });

    test("numbers in the prose are those of the tables, and times those of the runs", () => {
      const known = [
        ...summary.flatMap((row) => [row["mean"]!, row["half_95"]!]),
        ...[...overAll, ...pairs].flatMap((row) =>
          ["difference", "low_95", "high_95"].map((column) => row[column]!),
        ),
        ...runs.map((row) => String(scoreOf(row))),
      ];
      checkProse(text, new Set(known.map((value) => fixed(Math.abs(Number(value))))));
      const [, search, took] = /(?:search took (\d+) minutes[^.]* and )?the grid (?:took )?(\d+)/.exec(text)!;
      assert.deepEqual([search, took], [rates.length > 0 ? minutesOf(rates) : undefined, minutesOf(examples)]); // prettier-ignore
    });
  });
}

test("the README quotes differences of the table of pairs", async () => {
  const readme = await readFile(new URL("../README.md", docs), "utf8");
  const text = readme.split("We repeated the paper's experiment")[1]!.split("On text written")[0]!;
  const { tables } = PARTS["the embedded base"];
  const pairs = Object.values(PARTS).flatMap(({ tables: own }) => own.pairs);
  const columns = ["difference", "low_95", "high_95"];
  checkProse(text, new Set(pairs.flatMap((row) => columns.map((name) => fixed(Math.abs(Number(row[name]))))))); // prettier-ignore
  const sizes = new Set(tables.summary.map((row) => Number(row["trainable"]).toLocaleString("en-US")));
  for (const size of text.match(/\d{1,3}(?:,\d{3})+/g)!)
    assert.ok(sizes.has(size), `no adapter has ${size} parameters`);
});

test("the table of means by rank", () => {
  const { text, tables } = PARTS["the embedded base"];
  const ranks = ["2", "8", "32", "128"];
  const size = "parameters at ranks 2 to 128";
  const rows = tableOf(text, "method", ...ranks.map((rank) => `rank ${rank}`), size);
  assert.equal(rows.length, 8);
  for (const row of rows) {
    const own = tables.summary.filter(
      (one) => one["task"] === "all tasks" && one["method"] === row["method"],
    );
    for (const rank of ranks) {
      const found = own.find((one) => one["rank"] === rank)!;
      assert.equal(row[`rank ${rank}`], `${fixed(found["mean"]!)} ± ${fixed(found["half_95"]!)}`);
    }
    const sizes = own.map((one) => Number(one["trainable"])).sort((x, y) => x - y);
    const [least, most] = [sizes[0]!, sizes.at(-1)!].map((size) => size.toLocaleString("en-US"));
    assert.equal(row[size], `${least} to ${most}`);
  }
});

test("the pictures are those of the tables", async () => {
  for (const [name, svg] of await pictures())
    assert.ok(
      (await readFile(pictureFile(name), "utf8")) === svg,
      `docs/images/${name} is not that of docs/paper-grid: npx tsx --conditions=@tiedlora/source scripts/grid-pictures.ts`,
    );
});
