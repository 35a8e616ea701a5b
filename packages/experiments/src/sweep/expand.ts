/** The runs of a sweep: every combination of the varied settings, or a random sample of them. */
import { Rng } from "../toy-tasks/rng.ts";
import type { MethodName } from "tiedlora";
import { taskByName } from "../tasks/index.ts";
import { BASELINE, type RunConfig } from "./config.ts";
import type { SweepSpec } from "./spec.ts";

/**
 * The configs in the order in which they run: seed by seed, so that a sweep that is stopped early has results for most
 * settings. The unadapted model comes first, once for each task.
 */
export function expandSweep(spec: SweepSpec): RunConfig[] {
  const { vary, search } = spec;
  const combinations = product({
    seed: vary.seed,
    task: spec.on.tasks,
    rank: vary.rank,
    method: vary.method,
    lr: vary.lr ?? [null],
    steps: vary.steps ?? [spec.train.steps],
    batch: vary.batch ?? [spec.train.batch],
    dropout: vary.dropout ?? [spec.train.dropout],
    target: vary.target ?? [spec.train.target],
  });
  const chosen =
    search === "grid"
      ? combinations
      : new Rng(search.seed, "sweep").sample(combinations, Math.min(search.random, combinations.length));
  const runs = chosen.map((one) => configOf(spec, one));
  return spec.evaluate.baseline ? [...spec.on.tasks.map((task) => baselineOf(spec, task)), ...runs] : runs;
}

interface Combination {
  readonly seed: number;
  readonly task: string;
  readonly rank: number;
  readonly method: string;
  readonly lr: number | null;
  readonly steps: number;
  readonly batch: number;
  readonly dropout: number;
  readonly target: string;
}

/** All combinations of one item from each list; the last list varies fastest. */
function product(lists: { readonly [K in keyof Combination]: readonly Combination[K][] }): Combination[] {
  let rows: Record<string, unknown>[] = [{}];
  for (const [key, values] of Object.entries(lists)) {
    rows = rows.flatMap((row) => values.map((value: unknown) => ({ ...row, [key]: value })));
  }
  return rows as unknown as Combination[];
}

function configOf(spec: SweepSpec, one: Combination): RunConfig {
  const { train, evaluate, on } = spec;
  const { schedule, clip } = train;
  return {
    model: on.model,
    ...(on.quantize !== undefined && { quantize: on.quantize }),
    task: one.task,
    data: taskByName(one.task).needsFiles ? `${on.data}/${one.task}` : null,
    method: one.method as MethodName,
    rank: one.rank,
    target: one.target,
    dropout: one.dropout,
    seed: one.seed,
    steps: one.steps,
    batch: one.batch,
    seq: on.seq,
    lr: one.lr ?? rateOf(train.lr, one.method),
    schedule,
    warmup: Math.min(train.warmup, one.steps),
    weightDecay: train["weight-decay"],
    clip,
    every: evaluate.every,
    patience: evaluate.patience ?? null,
    examples: { train: evaluate.train, valid: evaluate.valid, test: evaluate.test },
    lossOnly: on["loss-only"],
  };
}

function rateOf(rates: SweepSpec["train"]["lr"], method: string): number {
  return typeof rates === "number" ? rates : (rates[method] ?? rates["default"]!);
}

/** The config of the unadapted model: settings that do not affect it are fixed, so that it is measured once per task. */
function baselineOf(spec: SweepSpec, task: string): RunConfig {
  const any = configOf(spec, {
    seed: 0,
    task,
    rank: 1,
    method: spec.vary.method[0]!,
    lr: 1,
    steps: 1,
    batch: spec.train.batch,
    dropout: 0,
    target: spec.train.target,
  });
  return { ...any, method: BASELINE, rank: 0, lr: 0, steps: 0, warmup: 0 };
}
