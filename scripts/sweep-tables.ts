/**
 * Writes the tables of a page that quotes sweeps from the folders of its sweeps: the search for rates, the grid, and a calibration.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/sweep-tables.ts runs/grid-rates runs/paper-grid --out docs/paper-grid --pairs tl6:8=lora:8
 *   npx tsx --conditions=@tiedlora/source scripts/sweep-tables.ts --calibration runs/difficulty --out docs/difficulty
 *   npx tsx --conditions=@tiedlora/source scripts/sweep-tables.ts runs/real-text-rates runs/real-text --out docs/real-text --no-samples
 *
 * writes into --out the report of the grid with its tables (report.html, runs.csv, summary.csv, comparisons.csv), the scores of its single
 * test examples (examples.csv), and the runs of the search (rates.csv); those of a calibration are calibration.csv.
 * Without a grid, it writes rates.csv alone. --pairs also writes the differences of these pairs (pairs.csv), and --leave-out those over the
 * tasks that are not the one that it names (pairs-on-others.csv).
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeReport } from "../packages/experiments/src/node/report.ts";
import { compared, type Variant } from "../packages/experiments/src/report/compared.ts";
import { comparisonsCsv } from "../packages/experiments/src/report/csv.ts";
import { summarize } from "../packages/experiments/src/report/summary.ts";
import { RunStore } from "../packages/experiments/src/node/sweep/store.ts";
import { type RunResult, validationLoss } from "../packages/experiments/src/sweep/config.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: "string" },
    calibration: { type: "string" },
    title: { type: "string", default: "Tasks with room" },
    against: { type: "string", default: "lora:8" },
    "no-samples": { type: "boolean", default: false },
    pairs: { type: "string", default: "" },
    "leave-out": { type: "string" },
  },
});
const [rates, grid] = positionals;
const { calibration, out: OUT } = values;
if (OUT === undefined || (rates === undefined && calibration === undefined))
  throw new Error("give folders of sweeps, and where the tables go: [runs/grid-rates [runs/paper-grid]] [--calibration runs/difficulty] --out docs/paper-grid"); // prettier-ignore
const folder: string = OUT;
await mkdir(folder, { recursive: true });

/** A cell of a CSV file, in which examples with several numbers have commas. */
const quoted = (text: string): string => (text.includes(",") ? `"${text}"` : text);

type Cells = Readonly<Record<string, string | number>>;

async function write(name: string, rows: readonly Cells[]): Promise<void> {
  const lines = [Object.keys(rows[0]!), ...rows.map((row) => Object.values(row))];
  await writeFile(join(folder, name), lines.map((cells) => `${cells.join(",")}\r\n`).join(""));
}

if (calibration !== undefined) {
  const calibrated = await new RunStore(calibration).finished();
  await write(
    "calibration.csv",
    calibrated.map(({ id, config, trainable, test, ...run }) => ({
      id,
      task: config.task,
      method: config.method,
      rank: config.rank,
      seed: config.seed,
      lr: config.lr,
      steps: config.steps,
      trainable,
      test_count: test.count,
      metric: Object.keys(test.scores)[0]!,
      score: Object.values(test.scores)[0]!,
      loss: test.loss,
      duration: run.duration ?? 0,
    })),
  );
}
if (rates !== undefined) {
  const searched = await new RunStore(rates).outcomes();
  await write(
    "rates.csv",
    searched.map((run) => ({
      id: run.id,
      task: run.config.task,
      method: run.config.method,
      rank: run.config.rank,
      lr: run.config.lr,
      trainable: run.trainable,
      steps: run.steps,
      validation_loss: validationLoss(run),
      duration: run.duration ?? 0,
    })),
  );
}

/** "tl6:8" */
function variantOf(text: string): Variant {
  const [method, rank] = text.split(":") as [string, string];
  return { method, rank: Number(rank) };
}

/** The differences of pairs such as "tl6:8=lora:8", as a table. */
function pairsCsv(runs: readonly RunResult[], pairs: string): string {
  const tables = pairs.split(",").map((pair) => {
    const both = pair.split("=").map(variantOf) as [Variant, Variant];
    const own = runs.filter(({ config }) => both.some(({ method, rank }) => config.method === method && config.rank === rank)); // prettier-ignore
    return comparisonsCsv(compared(summarize(own), both[1])!).split(/(?<=\n)/);
  });
  return tables.flatMap((lines, i) => (i === 0 ? lines : lines.slice(1))).join("");
}

if (grid !== undefined) {
  const measured = await new RunStore(grid).finished();
  await write(
    "examples.csv",
    measured.map(({ test, ...run }) => ({
      id: run.id,
      validation_loss: run.valid.length === 0 ? "" : validationLoss(run),
      questions: test.examples!.questions,
      scores: quoted(test.examples!.scores!),
      ...(test.examples!.losses !== undefined && { losses: quoted(test.examples!.losses) }),
      duration: run.duration ?? 0,
    })),
  );
  if (values.pairs !== "") await writeFile(join(folder, "pairs.csv"), pairsCsv(measured, values.pairs));
  const left = values["leave-out"];
  if (left !== undefined) {
    const others = measured.filter(({ config }) => config.task !== left);
    await writeFile(join(folder, "pairs-on-others.csv"), pairsCsv(others, values.pairs));
  }
  await writeReport(grid, folder, {
    title: values.title,
    against: variantOf(values.against),
    samples: !values["no-samples"],
    force: true,
  });
}
