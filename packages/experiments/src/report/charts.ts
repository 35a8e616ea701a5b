/** The charts of a report as data; the page draws them. */
import type { RunResult } from "../sweep/config.ts";
import { ALL_TASKS, type Group, measureOf, qualityOf, type Summary } from "./summary.ts";

export interface Series {
  readonly label: string;
  readonly color: string;
  readonly dash: readonly number[];
  /** x, y, and half the width of y's interval. */
  readonly points: readonly (readonly [x: number, y: number, half: number | null])[];
}

export interface Chart {
  readonly id: string;
  readonly title: string;
  readonly section: "size" | "rank" | "curves";
  readonly x: string;
  readonly y: string;
  readonly logX: boolean;
  readonly series: readonly Series[];
  /** The value without an adapter, drawn as a horizontal line. */
  readonly baseline: number | null;
  /** The rank whose learning curves the chart shows; null for other charts. */
  readonly rank: number | null;
}

/** Eight colors that color-blind people can tell apart too (Okabe and Ito), and dashes for more than eight lines. */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#6b6b6b"];
const DASHES: readonly (readonly number[])[] = [[], [8, 4], [2, 3]];

export function chartsOf(summary: Summary): Chart[] {
  const { tasks, averages } = summary;
  const all = averages.length > 0 ? [ALL_TASKS, ...tasks] : tasks;
  return [
    ...all.map((task) => qualityChart(summary, task, "size")),
    ...all.map((task) => qualityChart(summary, task, "rank")),
    ...summary.ranks.flatMap((rank) => tasks.map((task) => curveChart(summary, task, rank))),
  ].filter(({ series }) => series.length > 0);
}

function styleOf({ methods }: Summary, method: string): Pick<Series, "color" | "dash"> {
  const index = methods.indexOf(method);
  return {
    color: COLORS[index % COLORS.length]!,
    dash: DASHES[Math.floor(index / COLORS.length) % DASHES.length]!,
  };
}

const groupsOf = ({ groups, averages }: Summary, task: string): readonly Group[] =>
  task === ALL_TASKS ? averages : groups.filter((group) => group.task === task);

function qualityChart(summary: Summary, task: string, section: "size" | "rank"): Chart {
  const groups = groupsOf(summary, task);
  const series = summary.methods.flatMap((method): Series[] => {
    const own = groups.filter((group) => group.method === method).sort((a, b) => a.rank - b.rank);
    if (own.length === 0) return [];
    const points = own.map(
      ({ trainable, rank, quality }) =>
        [section === "size" ? trainable : rank, quality.mean, quality.half] as const,
    );
    return [{ label: method, ...styleOf(summary, method), points }];
  });
  return {
    id: `${section}-${task.replaceAll(" ", "-")}`,
    title: task,
    section,
    x: section === "size" ? "trainable parameters" : "rank",
    y: groups[0]?.measure.name ?? "",
    logX: true,
    series,
    baseline: baselineOf(summary, task),
    rank: null,
  };
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
  const series = groups.map((group): Series => {
    const steps = group.runs[0]!.valid.map(([step]) => step);
    const points = steps.flatMap((step) => {
      const losses = group.runs.flatMap(({ valid }) =>
        valid.filter(([at]) => at === step).map(([, loss]) => loss),
      );
      const mean = losses.reduce((a, b) => a + b) / losses.length;
      return losses.length === group.runs.length ? [[step, mean, null] as const] : [];
    });
    return { label: group.method, ...styleOf(summary, group.method), points };
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
  };
}
