/** Places the names of series beside their lines, where they cover as little as possible. */
import { type Box, textWidth } from "./drawing.ts";

/** A series on the canvas. */
export interface Drawn {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** A name in its place; `y` is its baseline. */
export interface Placed {
  readonly x: number;
  readonly y: number;
  readonly anchor: "start" | "middle" | "end";
}

const GAP = 7;
const STEPS = 4;

/**
 * A place for the name of each series, beside one of its points and, if nothing else decides, beside its last. Every name
 * avoids the points, the lines and the names before it, and stays within `within`.
 */
export function placeLabels(series: readonly Drawn[], size: number, within: Box): Placed[] {
  const points = series.flatMap((one) => one.points);
  const lines = series.flatMap((one) => along(one.points));
  const taken: Box[] = [];
  return series.map(({ name, points: own }) => {
    let best: { readonly cost: number; readonly place: Placed; readonly box: Box } | undefined;
    for (const [i, point] of own.entries()) {
      const early = (own.length - 1 - i) * 2;
      for (const { place, far } of placesAround(point, size)) {
        const box = boxOf(name, place, size);
        const cost = early + far + costOf(box, within, { points, lines, taken });
        if (best === undefined || cost < best.cost) best = { cost, place, box };
      }
    }
    const { place, box } = best!;
    taken.push(box);
    return place;
  });
}

/** The places around a point, and how much worse each is than the best. */
function placesAround([x, y]: readonly [number, number], size: number): { place: Placed; far: number }[] {
  const middle = y + 0.35 * size;
  const beside = [0, 1, -1, 2, -2].flatMap((step) => [
    { place: { x: x + GAP, y: middle + step * 0.6 * size, anchor: "start" as const }, far: Math.abs(step) },
    { place: { x: x - GAP, y: middle + step * 0.6 * size, anchor: "end" as const }, far: 1 + Math.abs(step) },
  ]);
  return [
    ...beside,
    { place: { x, y: y - GAP, anchor: "middle" }, far: 1 },
    { place: { x, y: y + GAP + 0.8 * size, anchor: "middle" }, far: 1 },
  ];
}

function boxOf(name: string, { x, y, anchor }: Placed, size: number): Box {
  const width = textWidth(name, size);
  const left = x - width * { start: 0, middle: 0.5, end: 1 }[anchor];
  return { left, right: left + width, top: y - 0.8 * size, bottom: y + 0.2 * size };
}

interface Obstacles {
  readonly points: readonly (readonly [number, number])[];
  readonly lines: readonly (readonly [number, number])[];
  readonly taken: readonly Box[];
}

function costOf(box: Box, within: Box, { points, lines, taken }: Obstacles): number {
  const outside =
    box.left < within.left || box.right > within.right || box.top < within.top || box.bottom > within.bottom;
  const covers = (margin: number) => ([x, y]: readonly [number, number]): boolean =>
    x > box.left - margin && x < box.right + margin && y > box.top - margin && y < box.bottom + margin; // prettier-ignore
  const overlaps = taken.filter(
    (other) =>
      box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top,
  );
  return (
    (outside ? 1000 : 0) +
    100 * overlaps.length +
    12 * points.filter(covers(3)).length +
    2 * lines.filter(covers(0)).length
  );
}

/** Points on the lines between points. */
function along(points: readonly (readonly [number, number])[]): (readonly [number, number])[] {
  return points.slice(1).flatMap(([x, y], i) => {
    const [fromX, fromY] = points[i]!;
    const count = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) / STEPS));
    return Array.from({ length: count }, (_, k): readonly [number, number] => [
      fromX + ((x - fromX) * k) / count,
      fromY + ((y - fromY) * k) / count,
    ]);
  });
}
