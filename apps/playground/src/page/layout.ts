/**
 * Where the parts of the network are drawn. A band for each layer holds its frozen weights on the right and the layer's own
 * factors beside them, with a line for each adapted place; a factor that several layers share stands on the left, once, with a
 * wire into every band that uses it. The layout is only numbers, without elements, so that a test can check it for overlaps.
 */
import type { DrawnFactor, DrawnPlan, DrawnSite } from "../plan.ts";

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** A rectangle, given by its upper left corner and its size. */
export interface Box extends Size {
  readonly x: number;
  readonly y: number;
}

export interface PlacedFactor {
  readonly factor: DrawnFactor;
  /** The only band that uses it; null if several do. */
  readonly band: number | null;
  readonly box: Box;
}

/** A frozen weight of the base model. */
export interface PlacedWeight {
  readonly path: string;
  readonly band: number;
  readonly text: string;
  readonly box: Box;
}

export interface Band {
  readonly title: string;
  readonly box: Box;
}

/** A curve from a shared factor to a band; it begins and ends horizontally. */
export interface Wire {
  readonly factor: DrawnFactor;
  readonly band: number;
  readonly from: readonly [x: number, y: number];
  readonly to: readonly [x: number, y: number];
}

export interface Layout extends Size {
  readonly bands: readonly Band[];
  readonly factors: readonly PlacedFactor[];
  readonly weights: readonly PlacedWeight[];
  readonly wires: readonly Wire[];
}

const OWN: Size = { width: 38, height: 28 };
/** The size of a shared factor, which is drawn larger than the others. */
const SHARED: Size = { width: 46, height: 38 };
const WEIGHT: Size = { width: 34, height: 28 };
/** The space around a box, in which the ring of its gradient grows. */
const GAP = 10;
/** The space on the left of the bands, for shared factors and the wires. */
const MARGIN = SHARED.width + 66;
const TITLE = 24;

/** Lays out an adapter. `weightOf` gives a weight to show in a layer in which nothing is adapted, or null. */
export function layOut(
  plan: DrawnPlan,
  layers: number,
  width: number,
  weightOf: (layer: number) => string | null,
): Layout {
  const outside = plan.sites.some(({ layer }) => layer === null);
  const count = layers + (outside ? 1 : 0);
  const bandOf = ({ layer }: DrawnSite): number => layer ?? layers;
  const bandsOf = ({ sites }: DrawnFactor): number[] => [
    ...new Set(sites.map((i) => bandOf(plan.sites[i]!))),
  ];
  const factors: PlacedFactor[] = [];
  const weights: PlacedWeight[] = [];
  const bands: Band[] = [];
  const left = plan.factors.some((factor) => bandsOf(factor).length > 1) ? MARGIN : GAP / 2;
  let y = GAP / 2;
  for (let band = 0; band < count; band++) {
    const own = plan.factors.filter((factor) => bandsOf(factor).length === 1 && bandsOf(factor)[0] === band);
    const lines = linesOf(plan, own, band, bandOf, weightOf);
    const line = new Lines(left + GAP, width - GAP - 5, y + TITLE);
    for (const { parts, paths } of lines) {
      const placed = line.add(parts.length, paths.length);
      parts.forEach((factor, i) => factors.push({ factor, band, box: placed.own[i]! }));
      paths.forEach((path, i) =>
        weights.push({ path: `${path}.weight`, band, text: initialOf(path, paths), box: placed.weights[i]! }),
      );
    }
    const title = band === layers ? "outside of the layers" : `layer ${band + 1}`;
    bands.push({ title, box: { x: left, y, width: width - left - 5, height: line.bottom - y } });
    y = line.bottom + GAP;
  }
  const shared = plan.factors.filter((factor) => bandsOf(factor).length > 1);
  const middle = (band: number): number => bands[band]!.box.y + bands[band]!.box.height / 2;
  const spread = spreadOut(
    shared.map((factor) => mean(bandsOf(factor).map(middle))),
    SHARED.height + 2 * GAP,
    y,
  );
  const wires: Wire[] = [];
  shared.forEach((factor, i) => {
    const box = { ...SHARED, x: GAP, y: spread.at[i]! - SHARED.height / 2 };
    factors.push({ factor, band: null, box });
    for (const band of bandsOf(factor))
      wires.push({
        factor,
        band,
        from: [box.x + box.width, box.y + box.height / 2],
        to: [left, middle(band)],
      });
  });
  return { width, height: Math.max(y, spread.height), bands, factors, weights, wires };
}

interface Line {
  readonly parts: readonly DrawnFactor[];
  /** The modules whose weights stand at the end of the line. */
  readonly paths: readonly string[];
}

/** The lines of a band: factors that its places share, then a line for each place. A layer without places shows a weight. */
function linesOf(
  plan: DrawnPlan,
  own: readonly DrawnFactor[],
  band: number,
  bandOf: (site: DrawnSite) => number,
  weightOf: (layer: number) => string | null,
): Line[] {
  const common = own.filter(({ sites }) => sites.length > 1);
  const lines: Line[] = common.length > 0 ? [{ parts: common, paths: [] }] : [];
  for (const [i, site] of plan.sites.entries()) {
    if (bandOf(site) !== band) continue;
    lines.push({
      parts: own.filter(({ sites }) => sites.length === 1 && sites[0] === i),
      paths: site.modules,
    });
  }
  if (lines.length > 0) return lines;
  const path = weightOf(band);
  return [{ parts: [], paths: path === null ? [] : [path] }];
}

/** Lays out lines below each other: factors from the left, weights at the right; both wrap where there is no room. */
class Lines {
  readonly #left: number;
  readonly #right: number;
  bottom: number;

  constructor(left: number, right: number, top: number) {
    [this.#left, this.#right, this.bottom] = [left, right, top + GAP / 2];
  }

  add(own: number, weights: number): { own: Box[]; weights: Box[] } {
    const room = this.#right - this.#left;
    const fit = (size: Size, within: number): number =>
      Math.max(1, Math.floor((within + GAP) / (size.width + GAP)));
    const across = Math.min(weights, fit(WEIGHT, own === 0 ? room : room / 2));
    const taken = across === 0 ? 0 : across * (WEIGHT.width + GAP);
    const perRow = fit(OWN, room - taken);
    const row = OWN.height + GAP;
    const boxes = Array.from({ length: own }, (_, i): Box => {
      const [x, y] = [
        this.#left + (i % perRow) * (OWN.width + GAP),
        this.bottom + Math.floor(i / perRow) * row,
      ];
      return { ...OWN, x, y };
    });
    const frozen = Array.from({ length: weights }, (_, i): Box => {
      const inRow = Math.min(across, weights - Math.floor(i / across) * across);
      const x = this.#right - (inRow - (i % across)) * (WEIGHT.width + GAP) + GAP;
      return { ...WEIGHT, x, y: this.bottom + Math.floor(i / across) * row };
    });
    const rows = Math.max(Math.ceil(own / perRow), across === 0 ? 0 : Math.ceil(weights / across), 1);
    this.bottom += rows * row;
    return { own: boxes, weights: frozen };
  }
}

/** "W"; if there are several, followed by the first letter of its module. */
function initialOf(path: string, paths: readonly string[]): string {
  return paths.length === 1 ? "W" : `W${path.split(".").at(-1)!.charAt(0)}`;
}

/** Positions near `wanted`, in the same order, at least `apart` from each other and within `height`, which grows if necessary. */
function spreadOut(
  wanted: readonly number[],
  apart: number,
  height: number,
): { at: number[]; height: number } {
  const order = [...wanted.keys()].sort((a, b) => wanted[a]! - wanted[b]! || a - b);
  const all = Math.max(height, order.length * apart);
  const at: number[] = [];
  let least = apart / 2;
  for (const i of order) {
    const place = (at[i] = Math.max(wanted[i]!, least));
    least = place + apart;
  }
  let most = all - apart / 2;
  for (const i of order.reverse()) {
    const place = (at[i] = Math.min(at[i]!, most));
    most = place - apart;
  }
  return { at, height: all };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
