/**
 * Pages of the docs that quote the numbers of a sweep, with the tables that lie beside them. The checks compare what a page says with the
 * tables, and the tables with the scores of single examples.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { parse } from "csv-parse/sync";
import { type Pairing, pairedBootstrap } from "../../../packages/experiments/src/metrics/index.ts";
import { pText } from "../../../packages/experiments/src/report/compared.ts";
import { ranksOf } from "../../../packages/experiments/src/sweep/options.ts";
import { parseSweep } from "../../../packages/experiments/src/sweep/spec.ts";

const docs = new URL("../../../docs/", import.meta.url);

/** The cells of a row, by column. */
export type Row = Readonly<Record<string, string>>;

const TABLES = ["rates", "runs", "summary", "comparisons", "pairs", "examples"] as const;
/** Those that not every page has. */
const OPTIONAL: readonly string[] = ["rates", "pairs"];

/** A page and one folder of tables that it quotes. */
export interface Page {
  readonly text: string;
  /** The tables by name; those of a search and of pairs are empty where there are none. */
  readonly tables: Readonly<Record<(typeof TABLES)[number], readonly Row[]>>;
  /** The sweep of which the tables are. */
  readonly grid: ReturnType<typeof parseSweep>;
}

/** Opens docs/`name` with the tables of docs/`folder`, which are those of the sweep examples/`grid`.yaml. */
export async function openPage(name: string, folder: string, grid: string): Promise<Page> {
  const csv = async (table: string): Promise<readonly Row[]> => {
    const path = new URL(`${folder}/${table}.csv`, docs);
    if (OPTIONAL.includes(table) && !existsSync(path)) return [];
    return parse(await readFile(path, "utf8"), { columns: true });
  };
  const tables = await Promise.all(TABLES.map(async (table) => [table, await csv(table)] as const));
  return {
    text: await readFile(new URL(name, docs), "utf8"),
    tables: Object.fromEntries(tables) as Page["tables"],
    grid: parseSweep(await readFile(new URL(`../examples/${grid}.yaml`, docs), "utf8"), grid),
  };
}

/** The rows of a page's table with these headers. */
export function tableOf(page: string, ...headers: readonly string[]): Row[] {
  const cells = (line: string): string[] => line.split("|").slice(1, -1).map((cell) => cell.trim().replaceAll("`", "")); // prettier-ignore
  const blocks = page.split("\n\n").filter((block) => block.trim().startsWith("|"));
  const found = blocks.map((block) => block.trim().split("\n").map(cells)).find(([head]) => head!.join() === headers.join()); // prettier-ignore
  assert.ok(found !== undefined, `there is no table with ${headers.join()}`);
  const [head, , ...rows] = found as [string[], string[], ...string[][]];
  return rows.map((row) => Object.fromEntries(head.map((name, i) => [name, row[i]!])));
}

/** A number of a table, as pages have it. */
export const fixed = (value: number | string, digits = 1): string => Number(value).toFixed(digits);

/** A difference, as pages have it: with its sign. */
const signed = (value: string, digits: number): string =>
  `${Number(value) > 0 ? "+" : ""}${fixed(value, digits)}`.replace("-", "−");

/** The rank of a page's row, for tables that have one rank alone. */
const RANK = "8";

/** The row of a table for a task and the method, and the rank if it has one, of a row of a page. */
function rowOf(table: readonly Row[], task: string, { method, rank = RANK }: Row): Row {
  const found = table.find((row) => row["task"] === task && row["method"] === method && row["rank"] === rank);
  assert.ok(found !== undefined, `there is no row for ${method} of rank ${rank} on ${task}`);
  return found;
}

/** A search for rates, and the grid that takes them. */
export interface Searched {
  readonly tables: Pick<Page["tables"], "rates">;
  readonly grid: Page["grid"];
}

/** The rates of `rows` are those with the lowest validation loss, and those of the grid's file. */
export function checkRates(
  { tables: { rates }, grid: { train, vary } }: Searched,
  rows: readonly Row[],
): void {
  const named = rows.map(({ method }) => method);
  assert.deepEqual(new Set(named), new Set(rates.map((row) => row["method"])));
  assert.ok(vary.method.every((method) => named.includes(method)));
  for (const row of rows) {
    const { method, rank = RANK, "best rate": best, "its validation loss": loss } = row;
    const own = rates.filter((one) => one["method"] === method && one["rank"] === rank);
    const last = Math.max(...own.map((one) => Number(one["steps"])));
    const finalists = own.filter((one) => Number(one["steps"]) === last);
    const least = finalists.reduce((a, b) => (Number(b["validation_loss"]) < Number(a["validation_loss"]) ? b : a)); // prettier-ignore
    assert.deepEqual([best, loss], [least["lr"], fixed(least["validation_loss"]!, 3)]);
    const taken = train.lr as Record<string, number>;
    if (vary.method.includes(method!) && ranksOf(vary.rank, method!).includes(Number(rank)))
      assert.equal(taken[`${method}:${rank}`] ?? taken[method!], Number(best));
    const all = [...new Set(own.map((one) => Number(one["lr"])))].sort((a, b) => a - b);
    assert.equal(row["rates that were tried"], all.join(", "));
  }
}

/** The means of `rows` are those of the summary, in a column for each of `tasks`. */
export function checkMeans(
  { tables: { summary }, grid: { vary } }: Page,
  rows: readonly Row[],
  tasks: readonly string[],
): void {
  const variants = new Set(summary.map((row) => `${row["method"]} ${row["rank"]}`));
  assert.deepEqual(new Set(rows.map(({ method, rank = RANK }) => `${method} ${rank}`)), variants);
  for (const row of rows)
    for (const task of tasks) {
      const found = rowOf(summary, task, row);
      const value = `${fixed(found["mean"]!)} ± ${fixed(found["half_95"]!)}`;
      assert.equal(row[task], value, `${row["method"]}, ${task}`);
      assert.equal(row["parameters"], Number(found["trainable"]).toLocaleString("en-US"));
      assert.equal(found["seeds"], String(vary.seed.length));
    }
}

/** The differences of `rows` to LoRA of rank `against` are all of those `comparisons`, with so many digits. */
export function checkDifferences(
  comparisons: readonly Row[],
  rows: readonly Row[],
  { digits = 1, against = RANK } = {},
): void {
  assert.equal(rows.length, comparisons.length);
  for (const row of rows) {
    const { method, task, "difference to LoRA": difference, "95 % interval": interval } = row;
    const found = rowOf(comparisons, task!, row);
    const p = pText(Number(found["p"]));
    assert.deepEqual(
      [difference, interval, row["p"]],
      [
        signed(found["difference"]!, digits),
        `${signed(found["low_95"]!, digits)} to ${signed(found["high_95"]!, digits)}`,
        p,
      ],
      `${method}, ${task}`,
    );
    assert.deepEqual([found["against_method"], found["against_rank"]], ["lora", against]);
  }
}

/** The rows of a page's table of pairs, "tl6:8" against "lora:8", are those of pairs.csv: over all tasks, or on `over`, and the difference on each other. */
export function checkPairs(pairs: readonly Row[], rows: readonly Row[], over = "all tasks"): void {
  const nameOf = (row: Row, which: string): string => `${row[`${which}method`]}:${row[`${which}rank`]}`;
  assert.equal(rows.length, pairs.filter(({ task }) => task === over).length);
  for (const { first, second, difference, "95 % interval": interval, p, ...tasks } of rows) {
    const of = (task: string): Row =>
      pairs.find((one) => one["task"] === task && nameOf(one, "") === first && nameOf(one, "against_") === second)!; // prettier-ignore
    const all = of(over);
    const [low, high] = ["low_95", "high_95"].map((column) => signed(all[column]!, 1));
    assert.deepEqual(
      [difference, interval, p],
      [signed(all["difference"]!, 1), `${low} to ${high}`, pText(Number(all["p"]))],
      `${first}, ${second}`,
    );
    for (const [task, cell] of Object.entries(tasks)) assert.equal(cell, signed(of(task)["difference"]!, 1));
  }
}

/** The numbers of each example of a run, from a column of examples.csv. */
export function examplesOf({ examples }: Page["tables"], run: Row, column = "scores"): number[][] {
  const found = examples.find((row) => row["id"] === run["id"])!;
  return found[column]!.split(" ").map((one) => one.split(",").map(Number));
}

/** The share of right answers that a run of a generated task has in its table. */
export const scoreOf = (row: Row): number =>
  Number(row[row["task"]!.startsWith("arithmetic") ? "result" : "accuracy"]);

/** The share of right answers, in percent, from the sum of the examples' scores and their number. */
export const percentage: Pairing["score"] = ([sum], count) => (100 * sum!) / count;

/** The shares of right answers of `runs` are those of their single examples. */
export function checkScores(tables: Page["tables"], runs: readonly Row[]): void {
  for (const run of runs) {
    const each = examplesOf(tables, run);
    const sum = each.reduce((all, [score]) => all + score!, 0);
    assert.ok(Math.abs(percentage([sum], each.length) - scoreOf(run)) < 1e-9, run["id"]);
  }
}

/** A comparison is what the paired bootstrap says of the single examples of `tasks`, over the seeds that both methods have. */
export function checkBootstrap(
  { tables, grid: { vary } }: Page,
  row: Row,
  tasks: readonly string[],
  { column = "scores", score }: { readonly column?: string; readonly score: Pairing["score"] },
): void {
  const run = (task: string, method: string, rank: string, seed: number): Row | undefined =>
    tables.runs.find(
      (one) =>
        one["task"] === task &&
        one["method"] === method &&
        one["rank"] === rank &&
        one["seed"] === String(seed),
    );
  const { method, rank, against_method: other, against_rank: otherRank } = row as Record<string, string>;
  const seeds = vary.seed.filter((seed) => tasks.every((task) => run(task, method!, rank!, seed) && run(task, other!, otherRank!, seed))); // prettier-ignore
  assert.equal(row["seeds"], String(seeds.length));
  const of = (task: string, name: string, at: string): number[][][] =>
    seeds.map((seed) => examplesOf(tables, run(task, name, at, seed)!, column));
  const { mean, low, high, p } = pairedBootstrap(
    tasks.map((task) => ({
      ours: of(task, method!, rank!),
      theirs: of(task, other!, otherRank!),
      score,
    })),
  );
  for (const [name, value] of Object.entries({ difference: mean, low_95: low, high_95: high, p }))
    assert.ok(Math.abs(Number(row[name]) - value) < 1e-9, `${row["method"]}, ${row["task"]}: ${name}`);
}

/** Every number of the prose with exactly so many decimals is one of `known`. */
export function checkProse(text: string, known: ReadonlySet<string>, digits = 1): void {
  const prose = text.split("\n").filter((line) => !line.startsWith("|")).join("\n"); // prettier-ignore
  for (const number of prose.match(new RegExp(`(?<![\\d.])\\d+\\.\\d{${digits}}(?!\\d)`, "g")) ?? [])
    assert.ok(known.has(number), `${number} is in no table`);
}

/** The minutes that the runs of a table took. */
export const minutesOf = (rows: readonly Row[]): string =>
  String(Math.round(rows.reduce((sum, row) => sum + Number(row["duration"]), 0) / 60));
