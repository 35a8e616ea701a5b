/**
 * Writes the report of the paper's grid for the documentation from what is beside it: runs.csv has each run's numbers, curves.json
 * the validation losses (means over seeds) and the first answers of the best adapters.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/grid-report.ts
 *
 * writes docs/paper-grid/report.html, runs.csv and summary.csv; the numbers of the tables stay the same.
 */
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "csv-parse/sync";
import { writeReport } from "../packages/experiments/src/node/report.ts";
import { RunStore } from "../packages/experiments/src/node/sweep/store.ts";
import { type RunConfig, runId, type RunResult } from "../packages/experiments/src/sweep/config.ts";
import { expandSweep } from "../packages/experiments/src/sweep/expand.ts";
import { parseSweep } from "../packages/experiments/src/sweep/spec.ts";
import { taskByName } from "../packages/experiments/src/tasks/index.ts";

const TABLES = new URL("../docs/paper-grid/", import.meta.url);
const SWEEP = new URL("../examples/paper-grid.yaml", import.meta.url);

interface Beside {
  /** The validation losses by "TASK METHOD RANK". */
  readonly curves: Readonly<Record<string, readonly (readonly [number, number])[]>>;
  /** By task, the method and rank of the answers, and rows of a prompt, the base model's text, the adapter's, and the right one. */
  readonly examples: Readonly<
    Record<string, { readonly method: string; readonly rank: number; readonly rows: readonly string[][] }>
  >;
}

type Row = Readonly<Record<string, string>>;

function resultOf(config: RunConfig, row: Row, { curves, examples }: Beside): RunResult {
  const number = (name: string): number => Number(row[name]);
  const { task, method, rank } = config;
  const metrics = taskByName(task).metrics.map(({ name }) => name);
  const own = examples[task];
  const shown = method === "none" ? 1 : own?.method === method && own.rank === rank ? 2 : null;
  const rows = shown === null ? [] : (own?.rows ?? []);
  return {
    id: runId(config),
    config,
    trainable: number("trainable"),
    total: number("trainable"),
    steps: number("steps_done"),
    bestStep: number("best_step"),
    curve: [],
    valid: curves[`${task} ${method} ${rank}`] ?? [],
    seconds: number("seconds"),
    tokensPerSecond: number("tokens_per_second"),
    device: row["device"]!,
    note: null,
    test: {
      count: number("test_count"),
      skipped: 0,
      loss: number("test_loss"),
      perplexity: number("test_perplexity"),
      scores: Object.fromEntries(metrics.map((name) => [name, number(name)])),
    },
    samples: rows.map((cells) => ({ prompt: cells[0]!, text: cells[shown!]!, answer: cells[3]! })),
  };
}

const text = await readFile(SWEEP, "utf8");
const beside = JSON.parse(await readFile(new URL("curves.json", TABLES), "utf8")) as Beside;
const csv: Row[] = parse(await readFile(new URL("runs.csv", TABLES), "utf8"), { columns: true });
const byId = new Map(csv.map((row) => [row["id"]!, row]));
const folder = await mkdtemp(join(tmpdir(), "tiedlora-grid-"));
try {
  const store = new RunStore(folder);
  await store.prepare(text);
  for (const config of expandSweep(parseSweep(text, fileURLToPath(SWEEP)))) {
    const row = byId.get(runId(config));
    if (row === undefined)
      throw new Error(`runs.csv has no ${runId(config)}, which is in ${fileURLToPath(SWEEP)}`);
    await store.finish(resultOf(config, row, beside));
  }
  const { files } = await writeReport(folder, folder, { title: "The paper's grid on a laptop" });
  for (const file of files) await cp(file, fileURLToPath(new URL(file.slice(folder.length + 1), TABLES)));
} finally {
  await rm(folder, { recursive: true });
}
