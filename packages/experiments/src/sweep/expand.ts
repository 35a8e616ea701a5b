/** The runs of a sweep: every combination of the varied settings, or a random sample of them. */
import { Rng } from "../toy-tasks/rng.ts";
import {
  LEARNING_RATES,
  type LossName,
  type MethodName,
  OPTIMIZER_RATES,
  type OptimizerName,
  type StartName,
} from "tiedlora";
import { given, optimizerTakes } from "tiedlora/internal";
import { taskByName } from "../tasks/index.ts";
import { BASELINE, type RunConfig } from "./config.ts";
import { halvingOf } from "./search.ts";
import { allRanks, givenFor, ofLoss, ofOptimizer, ranksOf, ratesOf } from "./options.ts";
import type { SweepSpec } from "./spec.ts";
import { competitionsOf } from "./trials.ts";

/**
 * The configs in the order in which they run: seed by seed, so that a sweep that is stopped early has results for most
 * settings. The unadapted model comes first, once for each task.
 */
export function expandSweep(spec: SweepSpec): readonly RunConfig[] {
  const { vary, search } = spec;
  const combinations = product({
    seed: vary.seed,
    task: spec.on.tasks,
    rank: allRanks(vary.rank, vary.method),
    method: ({ rank }) => vary.method.filter((method) => ranksOf(vary.rank, method).includes(rank!)),
    optimizer: vary.optimizer ?? [spec.train.optimizer],
    loss: vary.loss ?? [spec.train.loss],
    lr: ({ method, rank, optimizer }) => ratesOf(vary.lr, { method: method!, rank: rank!, optimizer: optimizer! }) ?? [null], // prettier-ignore
    steps: vary.steps ?? [spec.train.steps],
    batch: vary.batch ?? [spec.train.batch],
    dropout: vary.dropout ?? [spec.train.dropout],
    target: vary.target ?? [spec.train.target],
    warmup: vary.warmup ?? [spec.train.warmup],
    weightDecay: ({ optimizer }) => ofOptimizer(spec, "weight-decay", optimizer!),
    beta1: ({ optimizer }) => ofOptimizer(spec, "beta1", optimizer!),
    beta2: ({ optimizer }) => ofOptimizer(spec, "beta2", optimizer!),
    beta: ({ loss }) => ofLoss(spec, "beta", loss!),
    labelSmoothing: ({ loss }) => ofLoss(spec, "label-smoothing", loss!),
    zLoss: ({ loss }) => ofLoss(spec, "z-loss", loss!),
    temperature: ({ loss }) => ofLoss(spec, "temperature", loss!),
    teacherWeight: ({ loss }) => ofLoss(spec, "teacher-weight", loss!),
    loraPlus: vary["lora-plus"] ?? [spec.train["lora-plus"]],
    init: vary.init ?? [spec.train.init],
    ema: vary.ema ?? [spec.train.ema],
  });
  const chosen =
    typeof search === "object" && "random" in search
      ? new Rng(search.seed, "sweep").sample(combinations, Math.min(search.random, combinations.length))
      : combinations;
  const runs = drawn(
    spec,
    chosen.map((one) => configOf(spec, one)),
  );
  return spec.evaluate.baseline ? [...spec.on.tasks.map((task) => baselineOf(spec, task)), ...runs] : runs;
}

/** The runs that take part in successive halving: of each competition, so many trials at random, with all their seeds. */
function drawn(spec: SweepSpec, configs: readonly RunConfig[]): readonly RunConfig[] {
  const halving = halvingOf(spec);
  if (halving?.random === undefined) return configs;
  const { random, seed } = halving;
  const chosen = competitionsOf(configs).flatMap(({ name, trials }) =>
    new Rng(seed, "draw", name).sample(trials, Math.min(random, trials.length)),
  );
  const kept = new Set(chosen.flat());
  return configs.filter((config) => kept.has(config));
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
  readonly warmup: number;
  readonly weightDecay: number | undefined;
  readonly loraPlus: number | undefined;
  readonly optimizer: OptimizerName;
  readonly beta1: number | undefined;
  readonly beta2: number | undefined;
  readonly loss: LossName;
  readonly beta: number | undefined;
  readonly labelSmoothing: number | undefined;
  readonly zLoss: number | undefined;
  readonly temperature: number | undefined;
  readonly teacherWeight: number | undefined;
  readonly init: StartName | undefined;
  readonly ema: number | undefined;
}

/** Values of a setting, which may depend on those of the settings before it. */
type Values<T> = readonly T[] | ((row: Partial<Combination>) => readonly T[]);

/** All combinations of one item from each list; the last list varies fastest. */
function product(lists: { readonly [K in keyof Combination]: Values<Combination[K]> }): Combination[] {
  let rows: Partial<Combination>[] = [{}];
  for (const [key, values] of Object.entries(lists) as [string, Values<unknown>][]) {
    rows = rows.flatMap((row) =>
      (typeof values === "function" ? values(row) : values).map((value) => ({ ...row, [key]: value })),
    );
  }
  return rows as Combination[];
}

function configOf(spec: SweepSpec, one: Combination): RunConfig {
  const { train, evaluate, on } = spec;
  const { schedule, clip } = train;
  const decays = optimizerTakes(one.optimizer, "weightDecay");
  const options = train["method-options"]?.[one.method];
  const ranks = one.method === "ada-lora" ? train["rank-schedule"] : undefined;
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
    lr: one.lr ?? rateOf(train.lr, one),
    schedule,
    warmup: Math.min(one.warmup, one.steps),
    weightDecay: one.weightDecay ?? (decays ? 0.01 : 0),
    // left out where they are not given, so that runs of earlier versions keep their names
    ...given({
      loraPlus: one.loraPlus,
      init: one.init,
      ema: one.ema,
      methodOptions: options,
      rankSchedule: ranks,
      rates: train.rates,
      decays: decays ? train.decays : undefined,
      optimizer: one.optimizer === "adamw" ? undefined : one.optimizer,
      beta1: one.beta1,
      beta2: one.beta2,
      loss: one.loss === "cross-entropy" ? undefined : one.loss,
      beta: one.beta,
      labelSmoothing: one.labelSmoothing,
      zLoss: one.zLoss,
      teacher: one.loss === "distillation" ? train.teacher : undefined,
      temperature: one.temperature,
      teacherWeight: one.teacherWeight,
      regularize: train.regularize,
      testSeed: on["test-seed"],
      exampleLosses: evaluate["example-losses"] ? true : undefined,
    }),
    clip,
    every: evaluate.every,
    patience: evaluate.patience ?? null,
    examples: { train: evaluate.train, valid: evaluate.valid, test: evaluate.test },
    lossOnly: on["loss-only"],
  };
}

function rateOf(rates: SweepSpec["train"]["lr"], one: Combination): number {
  if (rates === undefined) return LEARNING_RATES[one.method as MethodName] * OPTIMIZER_RATES[one.optimizer];
  return typeof rates === "number" ? rates : givenFor(rates, one)!;
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
    warmup: 0,
    weightDecay: spec.train["weight-decay"],
    loraPlus: undefined,
    optimizer: "adamw",
    beta1: undefined,
    beta2: undefined,
    loss: "cross-entropy",
    beta: undefined,
    labelSmoothing: undefined,
    zLoss: undefined,
    temperature: undefined,
    teacherWeight: undefined,
    init: undefined,
    ema: undefined,
  });
  const { regularize: _, methodOptions: _options, rankSchedule: _ranks, ema: _ema, ...rest } = any; // it is not trained
  return { ...rest, method: BASELINE, rank: 0, lr: 0, steps: 0, warmup: 0 };
}
