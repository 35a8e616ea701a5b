/** The page on the paper's grid quotes numbers: all of them are those of the tables beside its report, and so are its pictures. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { pictureFile, pictures } from "../grid-pictures.ts";

const docs = new URL("../../docs/", import.meta.url);
const page = await readFile(new URL("paper-grid.md", docs), "utf8");
const summary: Record<string, string>[] = parse(
  await readFile(new URL("paper-grid/summary.csv", docs), "utf8"),
  { columns: true },
);

/** The cells of the page's tables whose first header is `first`. */
function tables(first: string): string[][][] {
  const blocks = page.split("\n\n").filter((block) => new RegExp(`^\\| ${first} +\\|`).test(block));
  const cells = (row: string): string[] =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", ""));
  return blocks.map((block) => block.trim().split("\n").map(cells));
}

const row = (task: string, method: string, rank: string): Record<string, string> =>
  summary.find((one) => one["task"] === task && one["method"] === method && one["rank"] === rank)!;

const rounded = (value: string): string => Number(value).toFixed(1);

test("the table of means over all tasks", () => {
  const [[header, , ...rows]] = tables("method").filter(([head]) => /rank 2/.test(head!.join())) as [
    string[][],
  ];
  assert.equal(rows.length, 8);
  for (const [method, ...cells] of rows)
    for (const [i, cell] of cells.entries()) {
      const rank = /^rank (\d+)$/.exec(header![i + 1]!)?.[1];
      if (rank === undefined) continue;
      const { mean, half_95: half } = row("all tasks", method!, rank);
      assert.equal(cell, `${rounded(mean!)} ± ${rounded(half!)}`, `${method}, rank ${rank}`);
    }
  const sizes = rows.map(([method, ...cells]) => [method, cells.at(-1)]);
  for (const [method, text] of sizes) {
    const [least, most] = ["2", "128"].map((rank) => Number(row("all tasks", method!, rank)["trainable"]).toLocaleString("en-US")); // prettier-ignore
    assert.equal(text, `${least} to ${most}`);
  }
});

test("the tables of single tasks", () => {
  let seen = 0;
  for (const [header, , ...rows] of tables("task"))
    for (const [name, metric, ...cells] of rows) {
      const [task, rank = "rank 8"] = name!.split(", ");
      for (const [i, cell] of cells.entries()) {
        const found = row(task!, header![i + 2]!, rank.slice(5));
        assert.deepEqual(
          [cell, metric],
          [rounded(found["mean"]!), found["metric"]],
          `${name}, ${header![i + 2]}`,
        );
        seen++;
      }
    }
  assert.equal(seen, 9 * 8);
});

test("numbers in the findings' prose are means of the tables", () => {
  const findings = page.split("## What it shows")[1]!.split("![Quality against rank]")[0]!;
  const prose = findings
    .split("\n")
    .filter((line) => !line.startsWith("|"))
    .join("\n");
  const known = new Set(summary.flatMap(({ mean, half_95: half }) => [rounded(mean!), rounded(half!)]));
  const at32 = (method: string): number => Number(row("all tasks", method, "32")["mean"]);
  const behind = rounded(String(at32("lora") - at32("tl6")));
  const foreign = ["12.5"]; // the paper's own share
  const quoted = prose.match(/\b\d+\.\d\b/g)!;
  assert.ok(quoted.length > 12);
  for (const number of quoted)
    assert.ok(known.has(number) || number === behind || foreign.includes(number), `${number} is in no table`);
});

test("the pictures are those of the tables", async () => {
  for (const [name, svg] of await pictures())
    assert.ok(
      (await readFile(pictureFile(name), "utf8")) === svg,
      `docs/images/${name} is not that of docs/paper-grid: npx tsx --conditions=@tiedlora/source scripts/grid-pictures.ts`,
    );
});
