/**
 * The tables of docs/learning-rates.md: what successive halving finds on recorded grids, and the rates of methods that were searched by a grid.
 *
 *   tsx --conditions=@tiedlora/source scripts/learning-rates.ts                     prints the tables
 *   tsx --conditions=@tiedlora/source scripts/learning-rates.ts --record DIR        first records the grid whose sweep is in DIR
 *   tsx --conditions=@tiedlora/source scripts/learning-rates.ts --record-rates DIR  first records the sweep of examples/method-rates.yaml in DIR
 *
 * The grid is that of examples/learning-rates.yaml without its `search`. A run that stops early has the losses of the whole one up to
 * there, so the search can be given those.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parse } from "csv-parse/sync";
import { type Outcome, type RunConfig, runId } from "../packages/experiments/src/sweep/config.ts";
import { expandSweep } from "../packages/experiments/src/sweep/expand.ts";
import { HalvingSchedule, type TrialStanding } from "../packages/experiments/src/sweep/halving.ts";
import { halvingOf } from "../packages/experiments/src/sweep/search.ts";
import { parseSweep } from "../packages/experiments/src/sweep/spec.ts";

const GRID = new URL("../docs/learning-rates/grid.csv", import.meta.url);
const RATES = new URL("../docs/learning-rates/method-rates.csv", import.meta.url);
const EXAMPLE = new URL("../examples/learning-rates.yaml", import.meta.url);

/** What a search finds for one method on one task. */
export interface Found {
  readonly task: string;
  readonly method: string;
  /** The number of variants that came to each rung. */
  readonly rungs: readonly number[];
  /** The steps that were trained, over those of the grid. */
  readonly share: number;
  readonly lr: number;
  readonly warmup: number;
  /** Its lowest validation loss, and the lowest of the grid. */
  readonly loss: number;
  readonly lowest: number;
}

type Variant = Pick<RunConfig, "task" | "method" | "lr" | "warmup">;
const keyOf = ({ task, method, lr, warmup }: Variant): string => [task, method, lr, warmup].join();

/** The validation losses of each variant's whole run: pairs of step and loss. */
function recorded(): Map<string, [step: number, loss: number][]> {
  const rows = rowsOf(GRID);
  return new Map(
    rows.map(({ task, method, lr, warmup, ...losses }) => [
      keyOf({ task: task!, method: method as Variant["method"], lr: Number(lr), warmup: Number(warmup) }),
      Object.entries(losses).map(([step, loss]) => [Number(step), Number(loss)] as [number, number]),
    ]),
  );
}

const rowsOf = (file: URL): Record<string, string>[] => parse(readFileSync(file, "utf8"), { columns: true });

/** The rates that were tried for a method, with the geometric mean over tasks of the lowest validation losses, and the one that is taken. */
export interface Rate {
  readonly method: string;
  readonly tried: readonly (readonly [lr: number, loss: number])[];
  readonly taken: number;
}

/** A lower rate is taken if its loss is above the lowest by less than this share, which says nothing with one seed. */
const ALIKE = 0.15;

/** The rates of the methods in examples/method-rates.yaml. */
export function methodRates(): Rate[] {
  const logs = new Map<string, Map<number, number[]>>();
  for (const { task: _task, method, lr, warmup: _warmup, ...losses } of rowsOf(RATES)) {
    const rates = logs.get(method!) ?? new Map<number, number[]>();
    const lowest = Math.min(...Object.values(losses).map(Number));
    rates.set(Number(lr), [...(rates.get(Number(lr)) ?? []), Math.log(lowest)]);
    logs.set(method!, rates);
  }
  return [...logs].map(([method, rates]) => {
    const tried = [...rates].map(([lr, all]) => [lr, Math.exp(all.reduce((a, b) => a + b) / all.length)] as const); // prettier-ignore
    tried.sort(([a], [b]) => a - b);
    const lowest = Math.min(...tried.map(([, loss]) => loss));
    return { method, tried, taken: tried.find(([, loss]) => loss < (1 + ALIKE) * lowest)![0] };
  });
}

/** The row of docs/learning-rates.md, as cells. */
export const rateRowOf = ({ method, tried, taken }: Rate): string[] => [
  `\`${method}\``,
  tried.map(([lr, loss]) => `${lr}: ${loss.toFixed(4)}`).join(", "),
  String(taken),
];

/** The search of the example, with the order of a seed, on the recorded grid. */
export function searched(seed = 0): Found[] {
  const grid = recorded();
  const example = parseSweep(readFileSync(EXAMPLE, "utf8"), fileURLToPath(EXAMPLE));
  const spec = { ...example, search: { "successive-halving": { ...halvingOf(example)!, seed } } };
  const schedule = new HalvingSchedule(spec);
  const upTo = (config: RunConfig, steps: number): [number, number][] =>
    grid.get(keyOf(config))!.filter(([step]) => step <= steps);
  for (let runs = schedule.runs(); runs.length > 0; runs = schedule.runs())
    schedule.learn(
      runs.map((config) => {
        const valid = upTo(config, config.until ?? config.steps);
        return { id: runId(config), config, valid } as unknown as Outcome;
      }),
    );
  const lowestOf = (config: RunConfig): number =>
    Math.min(...upTo(config, config.steps).map(([, loss]) => loss));
  const all = expandSweep(spec);
  const standings = schedule.standings();
  return [...new Set(standings.map(({ competition }) => competition))].map((name): Found => {
    const trials = standings.filter(({ competition }) => competition === name);
    const { task, method } = trials[0]!.trial[0]!;
    const whole = trials.filter(({ steps }) => steps === spec.train.steps).map(({ trial }) => trial[0]!);
    const best = whole.reduce((a, b) => (lowestOf(b) < lowestOf(a) ? b : a));
    const rivals = all.filter((config) => config.task === task && config.method === method);
    return {
      task,
      method,
      rungs: reached(trials),
      share: trials.reduce((sum, { steps }) => sum + steps, 0) / (trials.length * spec.train.steps),
      lr: best.lr,
      warmup: best.warmup,
      loss: lowestOf(best),
      lowest: Math.min(...rivals.map(lowestOf)),
    };
  });
}

/** The number of trials that came to each rung. */
function reached(trials: readonly TrialStanding[]): number[] {
  const last = Math.max(...trials.map(({ rung }) => rung));
  return Array.from({ length: last + 1 }, (_, i) => trials.filter(({ rung }) => rung >= i).length);
}

/** The row of docs/learning-rates.md, as cells. */
export const rowOf = (found: Found): string[] => [
  found.task,
  `\`${found.method}\``,
  found.rungs.join(", "),
  `${(100 * found.share).toFixed(0)} %`,
  `${found.lr}, ${found.warmup}`,
  found.loss.toFixed(4),
  found.lowest.toFixed(4),
];

/** Writes the losses of a finished grid, whose results are in a folder, to the file from which searches are made. */
function record(folder: string, file: URL): void {
  const outcomes = readdirSync(join(folder, "runs")).map(
    (file) => JSON.parse(readFileSync(join(folder, "runs", file), "utf8")) as Outcome,
  );
  const rows = outcomes.map(({ config: { task, method, lr, warmup }, valid }) => [
    task, method, lr, warmup, ...valid.map(([, loss]) => Number(loss.toPrecision(5))),
  ]); // prettier-ignore
  rows.sort((a, b) => String(a.slice(0, 2)).localeCompare(String(b.slice(0, 2))) || Number(a[2]) - Number(b[2]) || Number(a[3]) - Number(b[3])); // prettier-ignore
  const header = ["task", "method", "lr", "warmup", ...outcomes[0]!.valid.map(([step]) => step)];
  writeFileSync(file, [header, ...rows].map((row) => `${row.join(",")}\n`).join(""));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { record: { type: "string" }, "record-rates": { type: "string" } },
  });
  if (values.record !== undefined) record(values.record, GRID);
  if (values["record-rates"] !== undefined) record(values["record-rates"], RATES);
  for (const rate of methodRates()) console.log(`| ${rateRowOf(rate).join(" | ")} |`);
  for (const found of searched()) console.log(`| ${rowOf(found).join(" | ")} |`);
}
