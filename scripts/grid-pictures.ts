/**
 * Draws the pictures of the paper's grid for the documentation from the tables beside its report: quality against parameters, and
 * against rank.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/grid-pictures.ts
 *
 * writes docs/images/paper-grid-size.svg and docs/images/paper-grid-rank.svg.
 */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parse } from "csv-parse/sync";
import { chartsOf } from "../packages/experiments/src/report/charts.ts";
import { plot } from "../packages/experiments/src/report/figure/plot.ts";
import { svgFile } from "../packages/experiments/src/report/figure/svg.ts";
import { summarize } from "../packages/experiments/src/report/summary.ts";
import type { RunResult } from "../packages/experiments/src/sweep/config.ts";

const TABLES = new URL("../docs/paper-grid/", import.meta.url);
const IMAGES = new URL("../docs/images/", import.meta.url);
const SIZE = { width: 760, height: 430, letters: 15 };

/** The methods that the pictures show: the paper's, ours, and the one that gets most out of few parameters. */
const DRAWN: readonly string[] = [
  "none",
  "lora",
  "vera",
  "tl1",
  "tl2",
  "tl3",
  "tl4",
  "tl5",
  "tl6",
  "tied-gates",
  "lora-xs",
];

type Row = Readonly<Record<string, string>>;

async function rowsOf(name: string): Promise<Row[]> {
  return parse(await readFile(new URL(name, TABLES), "utf8"), { columns: true });
}

/** The results as far as a summary needs them; the metric is the one by which the grid's summary measures the task. */
function resultOf(row: Row, metrics: ReadonlyMap<string, string>): RunResult {
  const number = (name: string): number => Number(row[name]);
  const task = row["task"]!;
  const metric = metrics.get(task)!;
  const config = { task, method: row["method"], rank: number("rank"), seed: number("seed"), lossOnly: false };
  const test = {
    count: number("test_count"),
    skipped: 0,
    loss: number("test_loss"),
    perplexity: number("test_perplexity"),
    scores: { [metric]: number(metric) },
  };
  return {
    id: row["id"],
    config,
    trainable: number("trainable"),
    valid: [],
    samples: [],
    test,
  } as unknown as RunResult;
}

/** The text of each picture, by its name. */
export async function pictures(): Promise<ReadonlyMap<string, string>> {
  const metrics = new Map((await rowsOf("summary.csv")).map((row) => [row["task"]!, row["metric"]!]));
  const runs = (await rowsOf("runs.csv")).filter((row) => DRAWN.includes(row["method"]!));
  const results = runs.map((row) => resultOf(row, metrics));
  const charts = chartsOf(summarize(results));
  return new Map(
    (["size", "rank"] as const).map((section) => {
      const chart = charts.find((one) => one.id === `${section}-all-tasks`)!;
      return [`paper-grid-${section}.svg`, svgFile(plot(chart, SIZE))];
    }),
  );
}

/** The picture that stands in the documentation under this name. */
export const pictureFile = (name: string): string => fileURLToPath(new URL(name, IMAGES));

if (import.meta.url === pathToFileURL(process.argv[1]!).href)
  for (const [name, svg] of await pictures()) await writeFile(pictureFile(name), svg);
