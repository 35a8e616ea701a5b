/**
 * The tables of docs/learning-rates.md: what successive halving finds on recorded grids, and the rates of methods that were searched by a grid.
 *
 *   tsx --conditions=@tiedlora/source scripts/learning-rates.ts                     prints the tables
 *   tsx --conditions=@tiedlora/source scripts/learning-rates.ts --record DIR        first records the grid whose sweep is in DIR, or in several
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
import { HalvingSchedule, type TrialStanding } from "../packages/experiments/src/sweep/halving.ts";
import { halvingOf } from "../packages/experiments/src/sweep/search.ts";
import { parseSweep, type SweepSpec } from "../packages/experiments/src/sweep/spec.ts";

const GRID = new URL("../docs/learning-rates/grid.csv", import.meta.url);
const RATES = new URL("../docs/learning-rates/method-rates.csv", import.meta.url);
const EXAMPLE = new URL("../examples/learning-rates.yaml", import.meta.url);

/** What a search finds for one method on one task. */
export interface Found {
  readonly task: string;
  readonly method: string;
  /** The number of seeds over which losses are means. */
  readonly seeds: number;
  /** The number of variants that came to each rung. */
  readonly rungs: readonly number[];
  /** The steps that were trained, over those of the grid. */
  readonly share: number;
  readonly lr: number;
  readonly warmup: number;
  /** Its lowest validation loss, as a mean over seeds, and the lowest of the grid. */
  readonly loss: number;
  readonly lowest: number;
}

type Run = Pick<RunConfig, "task" | "method" | "lr" | "warmup" | "seed">;
const keyOf = ({ task, method, lr, warmup, seed }: Run): string => [task, method, lr, warmup, seed].join();

/** The validation losses of each whole run: pairs of step and loss. */
function recorded(): Map<string, [step: number, loss: number][]> {
  const rows = rowsOf(GRID);
  return new Map(
    rows.map(({ task, method, lr, warmup, seed, ...losses }) => [
      [task, method, lr, warmup, seed].join(),
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
  for (const { task: _task, method, lr, warmup: _warmup, seed: _seed, ...losses } of rowsOf(RATES)) {
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

/** The search of the example, with the order of a seed, on the recorded grid: for each task and method, over the seeds that it has. */
export function searched(order = 0): Found[] {
  const grid = recorded();
  const example = parseSweep(readFileSync(EXAMPLE, "utf8"), fileURLToPath(EXAMPLE));
  const search = { "successive-halving": { ...halvingOf(example)!, seed: order } };
  return example.on.tasks.flatMap((task) =>
    example.vary.method.map((method): Found => {
      const seeds = Array.from(grid.keys(), (key) => key.split(","))
        .filter((key) => key[0] === task && key[1] === method)
        .map((key) => Number(key[4]));
      const vary = { ...example.vary, method: [method], seed: [...new Set(seeds)] };
      return searchedIn({ ...example, on: { ...example.on, tasks: [task] }, vary, search }, grid);
    }),
  );
}

function searchedIn(spec: SweepSpec, grid: ReturnType<typeof recorded>): Found {
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
  const lowest = (config: RunConfig): number => Math.min(...upTo(config, config.steps).map(([, loss]) => loss)); // prettier-ignore
  const meanOf = (trial: readonly RunConfig[]): number => trial.reduce((sum, config) => sum + lowest(config), 0) / trial.length; // prettier-ignore
  const trials = schedule.standings();
  const whole = trials.filter(({ steps }) => steps === spec.train.steps).map(({ trial }) => trial);
  const best = whole.reduce((a, b) => (meanOf(b) < meanOf(a) ? b : a));
  const { task, method, lr, warmup } = best[0]!;
  return {
    task,
    method,
    seeds: best.length,
    rungs: reached(trials),
    share: trials.reduce((sum, { steps }) => sum + steps, 0) / (trials.length * spec.train.steps),
    lr,
    warmup,
    loss: meanOf(best),
    lowest: Math.min(...trials.map(({ trial }) => meanOf(trial))),
  };
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
  String(found.seeds),
  found.rungs.join(", "),
  `${(100 * found.share).toFixed(0)} %`,
  `${found.lr}, ${found.warmup}`,
  found.loss.toFixed(4),
  found.lowest.toFixed(4),
];

/** Writes the losses of a finished grid, whose results are in folders, to a file of the docs. */
function record(folders: readonly string[], to: URL): void {
  const files = folders.flatMap((folder) =>
    readdirSync(join(folder, "runs")).map((file) => join(folder, "runs", file)),
  );
  const outcomes = files.map((file) => JSON.parse(readFileSync(file, "utf8")) as Outcome);
  const rows = outcomes.map(({ config: { task, method, lr, warmup, seed }, valid }) => [
    task, method, lr, warmup, seed, ...valid.map(([, loss]) => Number(loss.toPrecision(5))),
  ]); // prettier-ignore
  const by = (i: number) => (a: typeof rows[0], b: typeof rows[0]): number => Number(a[i]) - Number(b[i]); // prettier-ignore
  rows.sort((a, b) => String(a.slice(0, 2)).localeCompare(String(b.slice(0, 2))) || by(2)(a, b) || by(3)(a, b) || by(4)(a, b)); // prettier-ignore
  const header = ["task", "method", "lr", "warmup", "seed", ...outcomes[0]!.valid.map(([step]) => step)];
  writeFileSync(to, [header, ...rows].map((row) => `${row.join(",")}\n`).join(""));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { record: { type: "string", multiple: true }, "record-rates": { type: "string" } },
  });
  if (values.record !== undefined) record(values.record, GRID);
  if (values["record-rates"] !== undefined) record([values["record-rates"]], RATES);
  for (const rate of methodRates()) console.log(`| ${rateRowOf(rate).join(" | ")} |`);
  for (const found of searched()) console.log(`| ${rowOf(found).join(" | ")} |`);
}
