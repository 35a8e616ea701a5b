/** Draws a chart: axes, lines with their points and intervals, and each series' name beside its line. */
import { scaleLinear, scaleLog, type ScaleContinuousNumeric } from "d3-scale";
import type { Chart, Dot, Series } from "../charts.ts";
import { type Box, type Drawing, type Outline, pathThrough, type Shape, type Text } from "./drawing.ts";
import { placeLabels } from "./labels.ts";
import { colorOf, markOf } from "./style.ts";

export interface PlotSize {
  readonly width: number;
  readonly height: number;
  /** The height of the letters of the series' names; the axes' are a little smaller. */
  readonly letters: number;
}

type Scale = ScaleContinuousNumeric<number, number>;

/** Everything needed to place something. */
interface Frame {
  readonly chart: Chart;
  readonly area: Box;
  readonly x: Scale;
  readonly y: Scale;
  readonly letters: number;
}

/** A chart with fewer positions along x has a tick at each. */
const FEW = 6;
/** With more points than these a line has no marks. */
const MANY = 30;

export function plot(chart: Chart, { width, height, letters }: PlotSize): Drawing {
  const small = letters - 1;
  const area = { left: 4.6 * small, top: 8, right: width - 8, bottom: height - 3.4 * small };
  const frame = { chart, area, ...scalesOf(chart, area), letters };
  const marks = chart.series.flatMap((series) => marksOf(series, frame));
  return {
    width,
    height,
    label: `${chart.title}: ${chart.y} against ${chart.x}; the numbers are in the table of all results`,
    shapes: [...axes(frame, small), ...front(frame), ...baseline(frame, small), ...lines(frame), ...marks, ...names(frame)], // prettier-ignore
  };
}

/** The vertical axis spans the values and the seeds; intervals that are wider are cut. */
function scalesOf({ series, logX }: Chart, area: Box): Pick<Frame, "x" | "y"> {
  const points = series.flatMap((one) => one.points);
  const xs = points.map((point) => point.x);
  const ys = points.flatMap((point) => [point.y, ...point.seeds]).filter(Number.isFinite);
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const x = logX
    ? scaleLog([Math.max(first, 1e-9) / 1.4, last * 1.6], [area.left, area.right])
    : scaleLinear([first, last + 0.14 * (last - first || 1)], [area.left, area.right]);
  return { x, y: scaleLinear([low - room, high + room], [area.bottom, area.top]) };
}

/** "12k": a short form of a count. */
function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  return value >= 1e3 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(6)));
}

function ticksOf({ chart, x }: Frame): number[] {
  const xs = [...new Set(chart.series.flatMap(({ points }) => points.map((point) => point.x)))];
  if (!chart.logX) return x.ticks(5);
  const [low, high] = x.domain() as [number, number];
  if (xs.length <= FEW) return xs;
  const decades = Array.from({ length: 24 }, (_, i) => 10 ** (i - 3)).filter((v) => v >= low && v <= high);
  return decades.length > 1 ? decades : x.ticks(4);
}

function axes(frame: Frame, size: number): Shape[] {
  const { chart, area, x, y } = frame;
  const grid = (points: readonly (readonly [number, number])[]): Outline => ({
    type: "outline", d: pathThrough(points), stroke: "line", width: 1,
  }); // prettier-ignore
  const label = (at: Pick<Text, "x" | "y" | "text" | "anchor">, more: Partial<Text> = {}): Text => ({
    type: "text", size, ink: "dim", ...at, ...more,
  }); // prettier-ignore
  const across = y.ticks(5).flatMap((value) => [
    grid([[area.left, y(value)], [area.right, y(value)]]),
    label({ x: area.left - 5, y: y(value) + 0.35 * size, text: String(value), anchor: "end" }),
  ]); // prettier-ignore
  const up = ticksOf(frame).flatMap((value) => [
    grid([[x(value), area.top], [x(value), area.bottom]]),
    label({ x: x(value), y: area.bottom + 1.3 * size, text: short(value), anchor: "middle" }),
  ]); // prettier-ignore
  const middle = (area.left + area.right) / 2;
  return [
    ...across,
    ...up,
    label({ x: middle, y: area.bottom + 2.8 * size, text: chart.x, anchor: "middle" }, { bold: true }),
    label(
      { x: 1.1 * size, y: (area.top + area.bottom) / 2, text: chart.y, anchor: "middle" },
      { bold: true, upright: true },
    ),
  ];
}

/** The Pareto front as a broad line behind all others. */
function front({ chart, x, y }: Frame): Outline[] {
  if (chart.front.length < 2) return [];
  const d = pathThrough(chart.front.map((point) => [x(point.x), y(point.y)]));
  return [{ type: "outline", d, stroke: "dim", width: 9, opacity: 0.25, title: "Pareto front: no smaller adapter is better" }]; // prettier-ignore
}

/** The value without an adapter: a line where it is in the range of the axis, otherwise a remark. */
function baseline({ chart, area, x, y }: Frame, size: number): Shape[] {
  const { baseline: value } = chart;
  if (value === null) return [];
  const [low, high] = y.domain() as [number, number];
  const text = `no adapter: ${Number(value.toPrecision(3))}`;
  const inside = value >= low && value <= high;
  const at = inside ? y(value) : value < low ? area.bottom : area.top + size + 6;
  const line = pathThrough([[x.range()[0]!, at], [x.range()[1]!, at]]); // prettier-ignore
  return [
    ...(inside ? [{ type: "outline", d: line, stroke: "dim", width: 1.5, dash: [3, 4] } as const] : []),
    {
      type: "text",
      x: area.right - 2,
      y: at - 5,
      text: inside ? text : `${text} (${value < low ? "below" : "above"})`,
      size,
      ink: "dim",
      anchor: "end",
    },
  ];
}

function lines({ chart, x, y }: Frame): Outline[] {
  return chart.series.map(({ style, points }) => ({
    type: "outline",
    d: pathThrough(points.map((point) => [x(point.x), y(point.y)])),
    stroke: colorOf(style),
    width: 2,
  }));
}

function marksOf({ style, points }: Series, { area, x, y }: Frame): Outline[] {
  if (points.length >= MANY) return [];
  const color = colorOf(style);
  const inArea = (value: number): number => Math.min(area.bottom, Math.max(area.top, y(value)));
  return points.flatMap((point): Outline[] => [
    ...(point.low === null || point.high === null ? [] : [interval(x(point.x), inArea(point.low), inArea(point.high))]),
    ...(point.seeds.length > 1 ? point.seeds.map((seed) => dot(x(point.x), inArea(seed))) : []),
    mark(point),
  ]); // prettier-ignore

  function interval(at: number, low: number, high: number): Outline {
    return { type: "outline", d: pathThrough([[at, low], [at, high]]), stroke: color, width: 1.5, opacity: 0.7 }; // prettier-ignore
  }
  function dot(at: number, height: number): Outline {
    return { type: "outline", d: markOf(0, 9), at: [at, height], fill: color, opacity: 0.55 };
  }
  function mark(point: Dot): Outline {
    return { type: "outline", d: markOf(style, 52), at: [x(point.x), y(point.y)], fill: color, stroke: "back", width: 1, title: point.title }; // prettier-ignore
  }
}

function names({ chart, area, x, y, letters }: Frame): Text[] {
  const drawn = chart.series.map(({ label, points }) => ({
    name: label,
    points: points.map((point): readonly [number, number] => [x(point.x), y(point.y)]),
  }));
  const placed = placeLabels(drawn, letters, { ...area, right: area.right + 6 });
  return placed.map((place, i) => ({
    type: "text",
    ...place,
    text: chart.series[i]!.label,
    size: letters,
    ink: colorOf(chart.series[i]!.style),
    bold: true,
  }));
}
