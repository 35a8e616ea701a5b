/** Writes the metrics of a run, without delay, to metrics.jsonl, metrics.csv, and event files for TensorBoard. */
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { recoverDirectory, writeFileAtomic } from "@tiedlora/core/node";
import type { Evaluation } from "tiedlora";
import type { StepReport } from "tiedlora";
import { eventFileName, scalarsEvent, startEvent, versionEvent } from "./tensorboard.ts";
import { writeError, writing } from "tiedlora/internal/node";

/** The kinds of files that metrics are written to. */
export const METRIC_FORMATS = ["jsonl", "csv", "tensorboard"] as const;
/** A kind of file for metrics. */
export type MetricFormat = (typeof METRIC_FORMATS)[number];

/** The metrics of a step, which are the columns of the CSV. */
const COLUMNS = [
  "step",
  "loss",
  "lr",
  "grad_norm",
  "tokens",
  "tokens_per_second",
  "memory_bytes",
  "valid_loss",
  "valid_perplexity",
] as const;

/** The metrics of a step by name: those of the columns, and those that the loss reports. */
export type Metrics = { readonly step: number } & Readonly<Record<string, number>>;

/** The metrics of a step and of the evaluation after it, under the names that the files and `--json` use. */
export function metricsOf(report: StepReport, evaluation: Evaluation | null): Metrics {
  return {
    step: report.step,
    loss: report.loss,
    lr: report.lr,
    ...(report.gradNorm !== null && { grad_norm: report.gradNorm }),
    tokens: report.tokens,
    tokens_per_second: report.tokensPerSecond,
    memory_bytes: report.memoryBytes,
    ...report.metrics,
    ...(evaluation && validation(evaluation)),
    padding: report.padding,
  };
}

/** The metrics of the evaluation before the first step, the baseline of training. */
export function baselineOf(evaluation: Evaluation): Metrics {
  return { step: 0, ...validation(evaluation) };
}

function validation({ loss, perplexity, metrics }: Evaluation): Readonly<Record<string, number>> {
  if (metrics === undefined) return { valid_loss: loss, valid_perplexity: perplexity };
  const named = Object.entries(metrics).map(([name, value]) => [`valid_${name}`, value]);
  return { valid_loss: loss, ...(Object.fromEntries(named) as Record<string, number>) };
}

/** The columns of a table, with those of what the loss reports. */
function columnsOf(reports: readonly string[]): readonly string[] {
  // padding is last, because the lines of a run that an older version began do not have it
  return [...COLUMNS, ...reports, ...reports.map((name) => `valid_${name}`), "padding"];
}

type Write = (metrics: Metrics) => void;

export class MetricsLog {
  readonly #directory: string;
  readonly #writers: Write[] = [];
  readonly #files: number[] = [];

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Opens the files of a directory. For a run that resumes after `step`, the lines of later steps are dropped; with step 0, the
   * files start empty. `reports`: what the loss reports.
   */
  static async open(
    directory: string,
    formats: readonly MetricFormat[],
    step: number,
    reports: readonly string[] = [],
  ): Promise<MetricsLog> {
    const log = new MetricsLog(directory);
    try {
      await writing(directory, () => log.#start(formats, step, columnsOf(reports)));
    } catch (error) {
      log.close();
      throw error;
    }
    return log;
  }

  async #start(formats: readonly MetricFormat[], step: number, columns: readonly string[]): Promise<void> {
    mkdirSync(this.#directory, { recursive: true });
    await recoverDirectory(this.#directory);
    for (const format of new Set(formats)) {
      if (format === "tensorboard") {
        const write = this.#append(eventFileName(Date.now() / 1000));
        this.#writers.push(tensorboardWriter(write, step));
      } else {
        const path = join(this.#directory, `metrics.${format}`);
        await writeFileAtomic(path, LINES[format].kept(path, step === 0 ? -1 : step, columns));
        const write = this.#append(`metrics.${format}`);
        this.#writers.push((metrics) => write(LINES[format].line(metrics, columns)));
      }
    }
  }

  /** Opens a file, and returns a function that appends to it. */
  #append(name: string): (content: string | Uint8Array) => void {
    const file = openSync(join(this.#directory, name), "a");
    this.#files.push(file);
    return (content) => {
      const bytes = typeof content === "string" ? Buffer.from(content) : content;
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
    };
  }

  write(metrics: Metrics): void {
    try {
      for (const write of this.#writers) write(metrics);
    } catch (cause) {
      throw writeError(this.#directory, cause);
    }
  }

  close(): void {
    for (const file of this.#files.splice(0)) closeSync(file);
  }
}

/** For each text format: the existing lines of a file up to a step, and the line of new metrics. */
const LINES = {
  jsonl: {
    kept: (path: string, step: number): string =>
      keepLines(path, (line) => stepOf(() => (JSON.parse(line) as { step?: unknown }).step) <= step),
    line: (metrics: Metrics): string => `${JSON.stringify(metrics)}\n`,
  },
  csv: {
    kept: (path: string, step: number, columns: readonly string[]): string =>
      `${columns.join(",")}\n` + keepLines(path, (line) => stepOf(() => Number(line.split(",")[0])) <= step),
    line: (metrics: Metrics, columns: readonly string[]): string =>
      `${columns.map((name) => metrics[name] ?? "").join(",")}\n`,
  },
} as const;

function tensorboardWriter(write: (content: Uint8Array) => void, step: number): Write {
  const now = (): number => Date.now() / 1000;
  write(versionEvent(now()));
  if (step > 0) write(startEvent(now(), step + 1));
  return ({ step, ...rest }) => {
    const named = Object.entries(rest as Readonly<Record<string, number>>).map(
      ([name, value]): [string, number] => [tagOf(name), value],
    );
    write(scalarsEvent(now(), step, Object.fromEntries(named)));
  };
}

/** The tag of a metric; TensorBoard groups tags by the part before the slash. */
function tagOf(name: string): string {
  const [kind, rest] = name.startsWith("valid_") ? ["valid", name.slice("valid_".length)] : ["train", name];
  return `${kind}/${rest}`;
}

/** The complete lines of a file that `keep` accepts, without a last line that a crash has cut short. */
function keepLines(path: string, keep: (line: string) => boolean): string {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const lines = text.split("\n").slice(0, -1);
  return lines.filter(keep).map((line) => `${line}\n`).join(""); // prettier-ignore
}

/** The step of a line; infinite if it has none. */
function stepOf(read: () => unknown): number {
  try {
    const step = read();
    return typeof step === "number" && Number.isFinite(step) ? step : Infinity;
  } catch {
    return Infinity;
  }
}
