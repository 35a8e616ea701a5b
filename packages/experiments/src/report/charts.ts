/** The charts of a report as data. */
import type { RunResult } from "../sweep/config.ts";
import { ALL_TASKS, type Group, type Measure, measureOf, qualityOf, type Summary } from "./summary.ts";

/** A point of a line: the mean over seeds. */
export interface Dot {
  readonly x: number;
  readonly y: number;
  /** The ends of y's interval; null if there is none. */
  readonly low: number | null;
  readonly high: number | null;
  /** The values of the single seeds. */
  readonly seeds: readonly number[];
  /** The numbers in words. */
  readonly title: string;
}

export interface Series {
  readonly label: string;
  /** Which color and mark it has. */
  readonly style: number;
  readonly points: readonly Dot[];
}

export interface Chart {
  readonly id: string;
  readonly title: string;
  readonly section: "size" | "rank" | "curves";
  readonly x: string;
  readonly y: string;
  readonly logX: boolean;
  readonly series: readonly Series[];
  /** The value without an adapter. */
  readonly baseline: number | null;
  /** The rank whose learning curves the chart shows; null for other charts. */
  readonly rank: number | null;
  /** The points to which no other is superior in both x and y, by x; empty where less of x is not better. */
  readonly front: readonly Pick<Dot, "x" | "y">[];
}

export function chartsOf(summary: Summary): Chart[] {
  const { tasks, averages } = summary;
  const all = averages.length > 0 ? [ALL_TASKS, ...tasks] : tasks;
  return [
    ...all.map((task) => qualityChart(summary, task, "size")),
    ...all.map((task) => qualityChart(summary, task, "rank")),
    ...summary.ranks.flatMap((rank) => tasks.map((task) => curveChart(summary, task, rank))),
  ].filter(({ series }) => series.length > 0);
}

const groupsOf = ({ groups, averages }: Summary, task: string): readonly Group[] =>
  task === ALL_TASKS ? averages : groups.filter((group) => group.task === task);

/** The values that a measure can have: scores are in percent, and a perplexity is at least 1. */
const boundsOf = ({ higherIsBetter }: Measure): readonly [number, number] =>
  higherIsBetter ? [0, 100] : [1, Infinity];

function qualityChart(summary: Summary, task: string, section: "size" | "rank"): Chart {
  const groups = groupsOf(summary, task);
  const series = summary.methods.flatMap((method, style): Series[] => {
    const own = groups.filter((group) => group.method === method).sort((a, b) => a.rank - b.rank);
    if (own.length === 0) return [];
    return [{ label: method, style, points: own.map((group) => dotOf(group, section)) }];
  });
  const measure = groups[0]?.measure ?? { name: "", higherIsBetter: true };
  return {
    id: `${section}-${task.replaceAll(" ", "-")}`,
    title: task,
    section,
    x: section === "size" ? "trainable parameters" : "rank",
    y: measure.name,
    logX: true,
    series,
    baseline: baselineOf(summary, task),
    rank: null,
    front: section === "size" ? frontOf(series.flatMap(({ points }) => points), measure.higherIsBetter) : [], // prettier-ignore
  };
}

function dotOf({ method, rank, trainable, quality, measure, bySeed }: Group, section: "size" | "rank"): Dot {
  const seeds = [...bySeed.values()];
  const { mean, half } = quality;
  const [least, most] = boundsOf(measure);
  const [low, high] =
    half === null ? [null, null] : [Math.max(least, mean - half), Math.min(most, mean + half)];
  const range = low === null ? "" : ` (95 % interval ${low.toFixed(1)} to ${high.toFixed(1)})`;
  const single = seeds.length > 1 ? `; seeds ${seeds.map((value) => value.toFixed(1)).join(", ")}` : "";
  return {
    x: section === "size" ? trainable : rank,
    y: mean,
    low,
    high,
    seeds,
    title: `${method}, rank ${rank}: ${measure.name} ${mean.toFixed(1)}${range}, ${trainable.toLocaleString("en-US")} parameters${single}`,
  };
}

/** The points that are better than all points with fewer or as many parameters. */
export function frontOf(points: readonly Dot[], higherIsBetter: boolean): Pick<Dot, "x" | "y">[] {
  const sign = higherIsBetter ? 1 : -1;
  const front: Pick<Dot, "x" | "y">[] = [];
  for (const { x, y } of [...points].sort((a, b) => a.x - b.x || sign * (b.y - a.y))) {
    const best = front.at(-1);
    if (best === undefined || sign * y > sign * best.y) front.push({ x, y });
  }
  return front;
}

function baselineOf({ baselines, tasks }: Summary, task: string): number | null {
  const of = (run: RunResult | undefined): number | null =>
    run === undefined ? null : qualityOf(run, measureOf(run));
  if (task !== ALL_TASKS) return of(baselines.get(task));
  const values = tasks.map((one) => of(baselines.get(one)));
  return values.includes(null) ? null : (values as number[]).reduce((a, b) => a + b) / values.length;
}

/** Validation losses of one rank: the mean over seeds at each step that all of them reached. */
function curveChart(summary: Summary, task: string, rank: number): Chart {
  const groups = summary.groups.filter((group) => group.task === task && group.rank === rank);
  const series = groups.flatMap((group): Series[] => {
    const steps = group.runs[0]!.valid.map(([step]) => step);
    const points = steps.flatMap((step): Dot[] => {
      const losses = group.runs.flatMap(({ valid }) =>
        valid.filter(([at]) => at === step).map(([, loss]) => loss),
      );
      const mean = losses.reduce((a, b) => a + b) / losses.length;
      if (losses.length < group.runs.length || !Number.isFinite(mean)) return [];
      const title = `${group.method}, step ${step}: ${mean.toFixed(4)}`;
      return [{ x: step, y: mean, low: null, high: null, seeds: [], title }];
    });
    return points.length === 0 ? [] : [{ label: group.method, style: summary.methods.indexOf(group.method), points }]; // prettier-ignore
  });
  return {
    id: `curve-${task}-${rank}`,
    title: `${task}, rank ${rank}`,
    section: "curves",
    x: "step",
    y: "validation loss",
    logX: false,
    series,
    baseline: null,
    rank,
    front: [],
  };
}
