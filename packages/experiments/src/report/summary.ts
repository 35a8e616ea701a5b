/** The findings of a sweep: quality for each task, method and rank, over seeds; and the smallest adapter that is good. */
import {
  BASELINE,
  isWhole,
  type Outcome,
  type RunConfig,
  type RunResult,
  validationLoss,
} from "../sweep/config.ts";
import { variantOf } from "../sweep/trials.ts";
import { interval, type Interval, pairedDifference } from "./stats.ts";
import { settingName, type Settings, VARIED, type Varied } from "./varied.ts";

/** The measure of a run's quality: its task's main metric, or its perplexity if only the loss was measured. */
export interface Measure {
  readonly name: string;
  readonly higherIsBetter: boolean;
}

/** Runs that differ in their seed alone. */
export interface Group {
  readonly task: string;
  readonly method: string;
  readonly rank: number;
  readonly trainable: number;
  readonly measure: Measure;
  readonly quality: Interval;
  /** The quality for each seed. */
  readonly bySeed: ReadonlyMap<number, number>;
  readonly loss: Interval;
  readonly runs: readonly RunResult[];
  /** The values, chosen by validation, of the settings that varied besides task, method, rank and seed. */
  readonly chosen: Settings;
  /** The number of variants from which this one was chosen. */
  readonly variants: number;
}

export interface Summary {
  readonly tasks: readonly string[];
  readonly methods: readonly string[];
  readonly ranks: readonly number[];
  /** One for each task, method and rank: if other settings varied, the variant with the lowest validation loss. */
  readonly groups: readonly Group[];
  /** The mean over all tasks, for methods and ranks that have every task; empty with one task, or if one has no metric. */
  readonly averages: readonly Group[];
  /** The runs of the model without an adapter, by task. */
  readonly baselines: ReadonlyMap<string, RunResult>;
  readonly smallest: readonly Smallest[];
}

/** The smallest adapters that are within 1 % of LoRA's best. */
export interface Smallest {
  readonly task: string;
  readonly lora: Group;
  /** The smallest whose mean is. */
  readonly found: Group;
  /** The smallest of which it is certain: the 95 % interval of its difference to LoRA, seed by seed, is within 1 %. */
  readonly certain: Group;
}

/** The name that stands in place of a task's for means over tasks. */
export const ALL_TASKS = "all tasks";

/** Summarizes whole runs; those that a search ended early only tell from how many variants it chose. */
export function summarize(outcomes: readonly Outcome[]): Summary {
  const results = outcomes.filter(isWhole);
  const runs = results.filter(({ config }) => config.method !== BASELINE);
  const baselines = new Map(
    results.filter(({ config }) => config.method === BASELINE).map((run) => [run.config.task, run]),
  );
  const tasks = unique(results.map(({ config }) => config.task));
  const methods = unique(runs.map(({ config }) => config.method));
  const ranks = unique(runs.map(({ config }) => config.rank)).sort((a, b) => a - b);
  const variants = grouped(runs, ({ config }) => variantOf(config)).map(groupOf);
  const tried = new Map(
    grouped(outcomes, ({ config }) => groupKey(config)).map((all) => [
      groupKey(all[0]!.config),
      all.map(({ config }) => config),
    ]),
  );
  const groups = grouped(variants, groupKey).map((all) => bestOf(all, tried.get(groupKey(all[0]!))!));
  const averages = tasks.length > 1 ? averaged(groups, tasks) : [];
  const smallest = [...averages.slice(0, 1).map(() => ALL_TASKS), ...tasks].flatMap((task) =>
    smallestOf(task, task === ALL_TASKS ? averages : groups.filter((group) => group.task === task)),
  );
  return { tasks, methods, ranks, groups, averages, baselines, smallest };
}

const groupKey = ({ task, method, rank }: Pick<Group, "task" | "method" | "rank">): string =>
  `${task} ${method} ${rank}`;

function groupOf(runs: readonly RunResult[]): Group {
  const [first] = runs as [RunResult];
  const { task, method, rank } = first.config;
  const measure = measureOf(first);
  return {
    task,
    method,
    rank,
    trainable: first.trainable,
    measure,
    quality: interval(runs.map((run) => qualityOf(run, measure))),
    bySeed: new Map(runs.map((run) => [run.config.seed, qualityOf(run, measure)])),
    loss: interval(runs.map(({ test }) => test.loss)),
    runs,
    chosen: {},
    variants: 1,
  };
}

/** The measure by which runs of this task are compared: its first metric, or the perplexity where it has none. */
export function measureOf({ test, config }: RunResult): Measure {
  const [name] = Object.keys(test.scores);
  return name === undefined || config.lossOnly
    ? { name: "perplexity", higherIsBetter: false }
    : { name, higherIsBetter: true };
}

/** The value of `measure` for a run. */
export function qualityOf({ test }: RunResult, { name }: Measure): number {
  return test.scores[name] ?? test.perplexity;
}

/** The variant with the lowest validation loss, of all that were `tried`; the test set decides nothing. */
function bestOf(variants: readonly Group[], tried: readonly RunConfig[]): Group {
  const validation = ({ runs }: Group): number =>
    runs.reduce((sum, run) => sum + validationLoss(run), 0) / runs.length;
  const best = variants.reduce((least, one) => (validation(one) < validation(least) ? one : least));
  const varied = VARIED.filter((key) => new Set(tried.map((config) => config[key])).size > 1);
  const { config } = best.runs[0]!;
  const chosen = Object.fromEntries(varied.map((key) => [key, config[key]]));
  return { ...best, chosen, variants: new Set(tried.map(variantOf)).size };
}

/** "lr 0.03, batch 8"; "" where nothing else varied. */
export function chosenText({ chosen }: Pick<Group, "chosen">): string {
  return Object.entries(chosen).map(([key, value]) => `${settingName(key as Varied)} ${value}`).join(", "); // prettier-ignore
}

/** A sentence on how the runs that represent a method and rank were chosen; null if there was no choice. */
export function choiceText({ groups }: Pick<Summary, "groups">): string | null {
  const varied = VARIED.filter((key) => groups.some(({ chosen }) => key in chosen));
  if (varied.length === 0) return null;
  return (
    `Where ${varied.map(settingName).join(", ")} varied too, a method at a rank is shown with the values that had the lowest validation loss ` +
    `(each run at its best step, mean over seeds); the test set decided nothing.`
  );
}

/** Means over tasks, computed for each seed, so that the interval is that of the mean. */
function averaged(groups: readonly Group[], tasks: readonly string[]): Group[] {
  if (groups.some(({ measure }) => !measure.higherIsBetter)) return [];
  return grouped(groups, ({ method, rank }) => `${method} ${rank}`).flatMap((ofTasks) => {
    if (ofTasks.length < tasks.length) return [];
    const [{ method, rank, trainable }] = ofTasks as [Group];
    const runs = ofTasks.flatMap((group) => group.runs);
    const seeds = unique(runs.map(({ config }) => config.seed)).filter((seed) =>
      ofTasks.every((group) => group.runs.some(({ config }) => config.seed === seed)),
    );
    if (seeds.length === 0) return [];
    const over = (value: (run: RunResult, group: Group) => number): number[] =>
      seeds.map((seed) => {
        const values = ofTasks.map((group) =>
          value(
            group.runs.find(({ config }) => config.seed === seed)!,
            group,
          ),
        );
        return values.reduce((a, b) => a + b) / values.length;
      });
    const qualities = over((run, { measure }) => qualityOf(run, measure));
    const measure = { name: "mean of the tasks' metrics", higherIsBetter: true };
    return [
      {
        task: ALL_TASKS,
        method,
        rank,
        trainable,
        measure,
        quality: interval(qualities),
        bySeed: new Map(seeds.map((seed, i) => [seed, qualities[i]!])),
        loss: interval(over(({ test }) => test.loss)),
        runs,
        chosen: agreed(ofTasks),
        variants: Math.max(...ofTasks.map(({ variants }) => variants)),
      },
    ];
  });
}

/** The chosen settings that have the same value for all tasks. */
function agreed(groups: readonly Group[]): Group["chosen"] {
  const [first] = groups as [Group];
  return Object.fromEntries(
    Object.entries(first.chosen).filter(([key, value]) => groups.every(({ chosen }) => chosen[key as Varied] === value)), // prettier-ignore
  );
}

function smallestOf(task: string, groups: readonly Group[]): Smallest[] {
  const better = (a: Group, b: Group): boolean =>
    a.measure.higherIsBetter ? a.quality.mean > b.quality.mean : a.quality.mean < b.quality.mean;
  const loras = groups.filter(({ method }) => method === "lora");
  if (loras.length === 0) return [];
  const lora = loras.reduce((best, one) => (better(one, best) ? one : best));
  const smallestIf = (isNear: (one: Group) => boolean): Group =>
    groups.filter(isNear).reduce((least, one) => (one.trainable < least.trainable ? one : least), lora);
  const found = smallestIf((one) => lossTo(lora, one.quality.mean - lora.quality.mean) <= NEAR);
  const certain = smallestIf((one) => one === lora || worstLoss(lora, one) <= NEAR);
  return [{ task, lora, found, certain }];
}

/** The share of LoRA's quality that may be lost. */
const NEAR = 0.01;

/** What share of LoRA's quality a difference to it loses. */
const lossTo = ({ quality, measure }: Group, difference: number): number =>
  ((measure.higherIsBetter ? -1 : 1) * difference) / quality.mean;

/** The share of LoRA's quality that an adapter loses at the worse end of the interval of their difference; Infinity if it has none. */
function worstLoss(lora: Group, one: Group): number {
  const { mean, half } = pairedDifference(one.bySeed, lora.bySeed);
  if (half === null) return Infinity;
  return Math.max(lossTo(lora, mean - half), lossTo(lora, mean + half));
}

function grouped<T>(items: readonly T[], key: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const of = key(item);
    const group = groups.get(of);
    if (group === undefined) groups.set(of, [item]);
    else group.push(item);
  }
  return [...groups.values()];
}

const unique = <T>(items: readonly T[]): T[] => [...new Set(items)];
