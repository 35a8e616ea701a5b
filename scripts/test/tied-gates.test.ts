/** The page on tied gates quotes the runs by which they were found: its table is that of the runs beside it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { checkPairs, fixed, type Row, tableOf } from "./support/pages.ts";

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
  assert.equal(rows.length, 11);
  for (const [base, folder, over] of [
    ["Llama", "", "all tasks"],
    ["Llama", "summary/", "summary-3"],
    ["GPT-2", "gpt2/", "all tasks"],
  ] as const) {
    const csv = await readFile(new URL(`paper-grid/${folder}pairs.csv`, docs), "utf8");
    const pairs: Row[] = parse(csv, { columns: true });
    const task = over === "all tasks" ? "both" : over;
    checkPairs(pairs.filter(isOurs), quoted(rows.filter((row) => row["task"] === task), base), over); // prettier-ignore
  }
});

test("the differences of the first run are those of its tables", async () => {
  const csv = await readFile(new URL("tied-gates/first-run.csv", docs), "utf8");
  const pairs: Row[] = parse(csv, { columns: true });
  const rows = tableOf(page, "base", "tied gates", "TL6", "difference", "p");
  assert.equal(rows.length, pairs.length);
  for (const base of ["Llama", "GPT-2"])
    checkPairs(pairs.filter((pair) => pair["base"] === base), quoted(rows, base)); // prettier-ignore
});
