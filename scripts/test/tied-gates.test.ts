/** The page on tied gates quotes the runs by which they were found: its table is that of the runs beside it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import {
  checkBootstrap,
  checkPairs,
  fixed,
  openPage,
  percentage,
  type Row,
  tableOf,
} from "./support/pages.ts";

const docs = new URL("../../docs/", import.meta.url);
const page = await readFile(new URL("tied-gates.md", docs), "utf8");
const runs: Row[] = parse(await readFile(new URL("tied-gates/design.csv", docs), "utf8"), { columns: true });

test("the table of the design is that of its runs", () => {
  const tasks = ["choice-4", "extraction-1"];
  const rows = tableOf(page, "variant", "rank", "parameters", ...tasks);
  const measured = runs.filter((run) => run["lr"] === "0.03");
  const variantOf = ({ variant, rank }: Row): string => `${variant}, ${rank}`;
  assert.deepEqual(new Set(rows.map(variantOf)), new Set(measured.map(variantOf)));
  for (const row of rows)
    for (const task of tasks) {
      const own = measured.filter((run) => run["task"] === task && variantOf(run) === variantOf(row));
      const mean = own.reduce((sum, run) => sum + Number(run["validation_loss"]), 0) / own.length;
      assert.equal(row[task], own.length === 0 ? "–" : `${fixed(mean, 3)} (${own.length})`, variantOf(row));
      for (const run of own)
        assert.equal(row["parameters"], Number(run["trainable"]).toLocaleString("en-US"));
    }
});

/** The rows of one base of a table of the page, as those of a table of pairs. */
function quoted(rows: readonly Row[], base: string): Row[] {
  return rows
    .filter((row) => row["base"] === base)
    .map((row) => {
      const [, difference, interval] = /^(\S+) \((.*)\)$/.exec(row["difference"]!)!;
      const [first, second] = ["tied gates", "TL6"].map((name) => row[name]!.slice("rank ".length));
      return {
        first: `tied-gates:${first}`,
        second: `tl6:${second}`,
        difference: difference!,
        "95 % interval": interval!,
        p: row["p"]!,
      };
    });
}

const isOurs = (pair: Row): boolean => pair["method"] === "tied-gates" && pair["against_method"] === "tl6";

test("the differences to TL6 are those of the grid", async () => {
  const rows = tableOf(page, "base", "task", "tied gates", "TL6", "parameters", "difference", "p");
  assert.equal(rows.length, 18);
  for (const [base, folder, task] of [
    ["Llama", "", "both"],
    ["Llama", "", "choice-6"],
    ["Llama", "summary/", "summary-3"],
    ["GPT-2", "gpt2/", "both"],
    ["GPT-2", "gpt2/", "choice-6"],
  ] as const) {
    const table = task === "both" ? "pairs-on-others" : "pairs";
    const csv = await readFile(new URL(`paper-grid/${folder}${table}.csv`, docs), "utf8");
    const pairs: Row[] = parse(csv, { columns: true });
    const over = task === "both" ? "all tasks" : task;
    checkPairs(pairs.filter(isOurs), quoted(rows.filter((row) => row["task"] === task), base), over); // prettier-ignore
  }
});

for (const [folder, grid] of [
  ["paper-grid", "paper-grid"],
  ["paper-grid/gpt2", "paper-grid-gpt2"],
] as const)
  test(`the differences over both tasks of the criterion are those of the examples' scores: ${grid}`, async () => {
    const csv = await readFile(new URL(`${folder}/pairs-on-others.csv`, docs), "utf8");
    const pairs: Row[] = parse(csv, { columns: true });
    const opened = await openPage("tied-gates.md", folder, grid);
    for (const row of pairs.filter(({ task }) => task === "all tasks"))
      checkBootstrap(opened, row, ["arithmetic-2", "translation-6"], { score: percentage });
  });

test("the differences of the first run are those of its tables", async () => {
  const csv = await readFile(new URL("tied-gates/first-run.csv", docs), "utf8");
  const pairs: Row[] = parse(csv, { columns: true });
  const rows = tableOf(page, "base", "tied gates", "TL6", "difference", "p");
  assert.equal(rows.length, pairs.length);
  for (const base of ["Llama", "GPT-2"])
    checkPairs(pairs.filter((pair) => pair["base"] === base), quoted(rows, base)); // prettier-ignore
});
