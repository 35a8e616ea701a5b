/**
 * Writes the tables of a page that quotes sweeps (docs/difficulty.md, docs/real-text.md) from the folders of its sweeps.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/difficulty-tables.ts runs/hard-rates runs/hard-grid runs/difficulty
 *   npx tsx --conditions=@tiedlora/source scripts/difficulty-tables.ts runs/hard-rates-gpt2 runs/hard-grid-gpt2 --out docs/difficulty/gpt2
 *
 *   npx tsx --conditions=@tiedlora/source scripts/difficulty-tables.ts runs/real-text-rates runs/real-text --out docs/real-text --no-samples
 *
 * writes docs/difficulty/, or --out: the report of the grid with its tables (report.html, runs.csv, summary.csv, comparisons.csv), the scores of
 * its single test examples (examples.csv), the runs of the search (rates.csv) and, with a third folder, those of the calibration
 * (calibration.csv). Without a grid, it writes rates.csv alone.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeReport } from "../packages/experiments/src/node/report.ts";
import { RunStore } from "../packages/experiments/src/node/sweep/store.ts";
import { validationLoss } from "../packages/experiments/src/sweep/config.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: "string", default: "docs/difficulty" },
    title: { type: "string", default: "Tasks with room" },
    against: { type: "string", default: "lora:8" },
    "no-samples": { type: "boolean", default: false },
  },
});
const [rates, grid, calibration] = positionals;
if (rates === undefined)
  throw new Error("give one to three folders of sweeps: runs/hard-rates [runs/hard-grid [runs/difficulty]]");
const OUT = values.out;
await mkdir(OUT, { recursive: true });

/** A cell of a CSV file, in which examples with several numbers have commas. */
const quoted = (text: string): string => (text.includes(",") ? `"${text}"` : text);

type Cells = Readonly<Record<string, string | number>>;

async function write(name: string, rows: readonly Cells[]): Promise<void> {
  const lines = [Object.keys(rows[0]!), ...rows.map((row) => Object.values(row))];
  await writeFile(join(OUT, name), lines.map((cells) => `${cells.join(",")}\r\n`).join(""));
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
  const [method, rank] = values.against.split(":") as [string, string];
  await writeReport(grid, OUT, {
    title: values.title,
    against: { method, rank: Number(rank) },
    samples: !values["no-samples"],
    force: true,
  });
}
