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
  type Row,
  tableOf,
} from "./support/pages.ts";

const docs = new URL("../../docs/", import.meta.url);
const SECOND = "## On a base of another shape";
const TASKS = ["arithmetic-2", "translation-3"];
const ALL = ["all tasks", "translation-3", "arithmetic-2"];

/** The part of the page about one base. */
async function part(folder: string, grid: string, which: 0 | 1): Promise<Page> {
  const page = await openPage("paper-grid.md", folder, grid);
  const text = page.text.split("## What it does not show")[0]!.split(SECOND)[which]!;
  return { ...page, text };
}

const PARTS = {
  "the embedded base": await part("paper-grid", "paper-grid", 0),
  "the base of GPT-2's shape": await part("paper-grid/gpt2", "paper-grid-gpt2", 1),
};

for (const [name, page] of Object.entries(PARTS)) {
  const { text, tables, grid } = page;
  const { runs, summary, comparisons, rates, pairs, examples } = tables;
  const overAll = comparisons.filter(({ task }) => task === "all tasks");

  describe(name, () => {
    test("the rates are those with the lowest validation loss, in the page and in the grid's file", () => {
      const headers = ["method", "rank", "rates that were tried", "best rate", "its validation loss"];
      checkRates(page, tableOf(text, ...headers));
    });

    test("the grid has every run, and every method and rank is in the table of means", () => {
      const each = summary.filter(({ task }) => task === "all tasks").length;
      assert.equal(runs.filter(({ method }) => method !== "none").length, each * 2 * grid.vary.seed.length);
      checkMeans(page, tableOf(text, "method", "rank", "parameters", ...ALL), ALL);
    });

    test("the table of differences to LoRA is that of the comparisons", () => {
      const rows = tableOf(text, "method", "rank", "task", "difference to LoRA", "95 % interval", "p");
      checkDifferences(overAll, rows);
    });

    test("the table of pairs is that of the pairs", () => {
      checkPairs(
        pairs,
        tableOf(text, "first", "second", "difference", "95 % interval", "p", ...ALL.slice(1)),
      );
    });

    test("means and differences are those of the single examples' scores", () => {
      checkScores(tables, runs.filter((row) => row["method"] !== "none")); // prettier-ignore
      const all = pairs.filter(({ task }) => task === "all tasks");
      for (const row of all) checkBootstrap(page, row, TASKS, { score: percentage });
    });

    test("numbers in the prose are those of the tables, and times those of the runs", () => {
      const known = [
        ...summary.flatMap((row) => [row["mean"]!, row["half_95"]!]),
        ...[...overAll, ...pairs].flatMap((row) =>
          ["difference", "low_95", "high_95"].map((column) => row[column]!),
        ),
        ...runs.map((row) => String(scoreOf(row))),
      ];
      checkProse(text, new Set([...known.map((value) => fixed(Math.abs(Number(value)))), ...FOREIGN]));
      const [, search, took] = /search took (\d+) minutes[^.]* and the grid (\d+)/.exec(text)!;
      assert.deepEqual([search, took], [minutesOf(rates), minutesOf(examples)]);
    });
  });
}

/** What the model answers without an adapter. */
const FOREIGN: readonly string[] = ["0.0", "5.5"];

test("the README quotes differences of the table of pairs", async () => {
  const readme = await readFile(new URL("../README.md", docs), "utf8");
  const text = readme.split("We repeated the paper's experiment")[1]!.split("On text written")[0]!;
  const { tables } = PARTS["the embedded base"];
  const pairs = Object.values(PARTS).flatMap(({ tables: own }) => own.pairs);
  const columns = ["difference", "low_95", "high_95"];
  checkProse(text, new Set(pairs.flatMap((row) => columns.map((name) => fixed(Math.abs(Number(row[name]))))))); // prettier-ignore
  const sizes = new Set(tables.summary.map((row) => Number(row["trainable"]).toLocaleString("en-US")));
  for (const size of text.match(/\d,\d{3}/g)!)
    assert.ok(sizes.has(size), `no adapter has ${size} parameters`);
});

test("the table of means by rank", () => {
  const { text, tables } = PARTS["the embedded base"];
  const ranks = ["2", "8", "32", "128"];
  const size = "parameters at ranks 2 to 128";
  const rows = tableOf(text, "method", ...ranks.map((rank) => `rank ${rank}`), size);
  assert.equal(rows.length, 8);
  const of = (method: string, rank: string): Row =>
    tables.summary.find((one) => one["task"] === "all tasks" && one["method"] === method && one["rank"] === rank)!; // prettier-ignore
  for (const row of rows) {
    const all = ranks.map((rank) => of(row["method"]!, rank));
    for (const [i, found] of all.entries())
      assert.equal(
        row[`rank ${ranks[i]}`],
        `${fixed(found["mean"]!)} ± ${fixed(found["half_95"]!)}`,
        row["method"],
      );
    const [least, most] = [all[0]!, all.at(-1)!].map((one) => Number(one["trainable"]).toLocaleString("en-US")); // prettier-ignore
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
