/** The page on learning rates says what the example's search finds on recorded grids: that is what it does find. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { expandSweep } from "../../packages/experiments/src/sweep/expand.ts";
import { parseSweep } from "../../packages/experiments/src/sweep/spec.ts";
import { LEARNING_RATES, type MethodName } from "../../packages/tiedlora/src/index.ts";
import { methodRates, rateRowOf, rowOf, searched } from "../learning-rates.ts";

const page = readFileSync(new URL("../../docs/learning-rates.md", import.meta.url), "utf8");
const section = page.split("## What it finds")[1]!;

const cells = (row: string): string[] => row.split("|").slice(1, -1).map((cell) => cell.trim()); // prettier-ignore

test("the table of the methods whose rate a grid found, which is the one that they have", () => {
  const rates = methodRates();
  const rows = page
    .split("## Rates of methods")[1]!
    .split("\n")
    .filter((line) => line.startsWith("| `"));
  assert.deepEqual(rows.slice(0, rates.length).map(cells), rates.map(rateRowOf));
  for (const { method, taken } of rates) assert.equal(LEARNING_RATES[method as MethodName], taken, method);
  const file = new URL("../../examples/method-rates.yaml", import.meta.url);
  const configs = expandSweep(parseSweep(readFileSync(file, "utf8"), "method-rates.yaml"));
  const tried = new Set(configs.map(({ method, lr }) => `${method} ${lr}`));
  assert.deepEqual(new Set(rates.flatMap(({ method, tried: all }) => all.map(([lr]) => `${method} ${lr}`))), tried); // prettier-ignore
});

test("the table of what successive halving finds", () => {
  const rows = section.split("\n").filter((line) => /^\| (arithmetic|translation)/.test(line));
  const sorted = (all: string[][]): string[][] => all.sort((a, b) => (a.join() < b.join() ? -1 : 1));
  assert.deepEqual(sorted(rows.map(cells)), sorted(searched().map(rowOf)));
});

test("in any of five orders a third of the grid's steps are enough to find its best variant, in all six cases", () => {
  for (let seed = 0; seed < 5; seed++) {
    const found = searched(seed);
    assert.equal(found.length, 6);
    for (const { share } of found) assert.ok(share <= 1 / 3 && share > 0.275, `${share}`);
    for (const { task, method, loss, lowest } of found) assert.ok(loss <= 1.02 * lowest, `${task} ${method}: ${loss / lowest}`); // prettier-ignore
  }
});
