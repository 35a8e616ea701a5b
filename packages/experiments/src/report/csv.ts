/** A sweep as tables for other programs (RFC 4180). */
import type { RunResult } from "../sweep/config.ts";
import type { Compared } from "./compared.ts";
import type { Summary } from "./summary.ts";
import { settingName, VARIED } from "./varied.ts";

type Cell = string | number | boolean | null;

function csv(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cell = (value: Cell): string => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [header, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** One row for each run: its config, and everything that was measured. */
export function runsCsv(results: readonly RunResult[]): string {
  const metrics = [...new Set(results.flatMap(({ test }) => Object.keys(test.scores)))];
  const header = [
    "id", "model", "task", "method", "rank", "seed", "lr", "schedule", "warmup", "steps", "batch", "seq", "weight_decay", "clip",
    "dropout", "target", "trainable", "steps_done", "best_step", "test_count", "test_loss", "test_perplexity", ...metrics,
    "seconds", "tokens_per_second", "device",
  ]; // prettier-ignore
  const rows = results.map(({ id, config: c, test, ...run }) => [
    id, c.model, c.task, c.method, c.rank, c.seed, c.lr, c.schedule, c.warmup, c.steps, c.batch, c.seq, c.weightDecay, c.clip,
    c.dropout, c.target, run.trainable, run.steps, run.bestStep, test.count, test.loss, test.perplexity,
    ...metrics.map((name) => test.scores[name] ?? null),
    run.seconds, run.tokensPerSecond, run.device,
  ]); // prettier-ignore
  return csv(header, rows);
}

/**
 * One row for each task, method and rank: means over seeds, with half the width of their 95 % intervals, and the settings that
 * were chosen by validation if more than one variant was run.
 */
export function summaryCsv({ groups, averages }: Summary): string {
  return csv(
    [
      "task",
      "method",
      "rank",
      "trainable",
      "metric",
      "seeds",
      "mean",
      "half_95",
      "loss_mean",
      "loss_half_95",
      "variants",
      ...VARIED.map((key) => `chosen_${settingName(key).replace("-", "_")}`),
    ],
    [...groups, ...averages].map(({ task, method, rank, trainable, measure, quality, loss, variants, chosen }) => [
      task, method, rank, trainable, measure.name, quality.count, quality.mean, quality.half, loss.mean, loss.half,
      variants, ...VARIED.map((key) => chosen[key] ?? null),
    ]), // prettier-ignore
  );
}

/** One row for each task, method, rank and measure that was compared with one of them: the difference, its 95 % interval, and p. */
export function comparisonsCsv({ against, comparisons }: Compared): string {
  return csv(
    [
      "task", "method", "rank", "trainable", "against_method", "against_rank", "metric", "seeds", "examples", "difference", "low_95",
      "high_95", "p",
    ], // prettier-ignore
    comparisons.map(({ group, measure, seeds, examples, mean, low, high, p }) => [
      group.task, group.method, group.rank, group.trainable, against.method, against.rank, measure.name, seeds, examples, mean,
      low, high, p,
    ]), // prettier-ignore
  );
}
