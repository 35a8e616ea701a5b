/**
 * A drawing of the network: a row for each layer, with the frozen weights on the right and the layer's own factors beside
 * them; factors that several layers share stand on the left, once, with a line into every layer that uses them.
 */
import { type AdapterPlan, type FactorPlan, type Method, planAdapter } from "tiedlora";
import type { BaseInfo } from "../protocol.ts";
import { svg } from "./dom.ts";

const WIDTH = 460;
const ROW = { height: 68, gap: 10, left: 150 };
const BOX = { width: 38, height: 28 };
/** A factor that is shared is drawn larger: it is one for all. */
const SHARED_BOX = { width: 52, height: 40 };

interface Place {
  readonly x: number;
  readonly y: number;
}

type Size = typeof BOX;

export interface NetworkEvents {
  /** A factor of the adapter was chosen, or a weight of the base model. */
  chosen(path: string, ofBase: boolean): void;
}

export class Network {
  readonly #rings = new Map<string, SVGCircleElement>();
  readonly #parts = new Map<string, { part: SVGGElement; label: string }>();

  /** Draws `method` on the base model into `holder`; throws what planning throws. */
  constructor(holder: HTMLElement, base: BaseInfo, method: Method, colour: string, events: NetworkEvents) {
    const plan = planAdapter(base.linears, method);
    const height = base.layers * (ROW.height + ROW.gap) + ROW.gap;
    const drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${Math.max(height, 200)}`,
      role: "group",
      "aria-label": `${method.name} on ${base.layers} layers`,
      style: `--run: ${colour}`,
    });
    drawing.append(hatch());
    const shared = plan.factors.filter((factor) => layersOf(factor).length > 1);
    const own = plan.factors.filter((factor) => layersOf(factor).length <= 1);
    for (let layer = 0; layer < base.layers; layer++) {
      const parts = own.filter((factor) => layersOf(factor)[0] === layer);
      drawing.append(this.#row(layer, base, plan, parts, events));
    }
    for (const [i, factor] of shared.entries()) {
      const at = sharedPlace(i, shared.length, height);
      for (const layer of layersOf(factor)) drawing.prepend(wire(at, layer, factor));
      drawing.append(this.#part(factor, at, SHARED_BOX, events));
    }
    holder.replaceChildren(drawing);
  }

  /** Shows the size of each factor's gradient, by path, on a logarithmic scale. */
  showGradients(norms: Readonly<Record<string, number>>): void {
    const largest = Math.max(...Object.values(norms), 1e-12);
    for (const [path, norm] of Object.entries(norms)) {
      const ring = this.#rings.get(path);
      if (!ring) continue;
      const size = Math.max(0, 1 + Math.log10(Math.max(norm, 1e-12) / largest) / 4); // 0 at a ten-thousandth
      ring.setAttribute("stroke-width", String(1 + 6 * size));
      const { part, label } = this.#parts.get(path)!;
      part.setAttribute("aria-label", `${label}, gradient ${norm.toPrecision(2)}`);
    }
  }

  #row(
    layer: number,
    base: BaseInfo,
    plan: AdapterPlan,
    own: readonly FactorPlan[],
    events: NetworkEvents,
  ): SVGGElement {
    const y = rowTop(layer);
    const row = svg("g");
    row.append(
      svg("rect", { class: "layer", x: ROW.left, y, width: WIDTH - ROW.left - 4, height: ROW.height, rx: 8 }),
    );
    row.append(svg("text", { x: ROW.left + 8, y: y + 16 }, `layer ${layer + 1}`));
    for (const [i, factor] of own.slice(0, 4).entries())
      row.append(
        this.#part(factor, { x: ROW.left + 80 + i * (BOX.width + 20), y: y + ROW.height / 2 }, BOX, events),
      );
    const site = plan.sites.find((one) => one.site.layer === layer)?.site;
    const path = site?.members[0]?.path ?? base.linears.find((one) => one.path.includes(`.${layer}.`))?.path;
    if (path !== undefined)
      row.append(frozenWeight(`${path}.weight`, { x: WIDTH - 42, y: y + ROW.height / 2 }, events));
    return row;
  }

  #part(factor: FactorPlan, { x, y }: Place, size: Size, events: NetworkEvents): SVGGElement {
    const { trained } = factor.spec;
    const layers = layersOf(factor).length;
    const label =
      `${factor.factor}, ${factor.shape.join(" by ")}, ${layers > 1 ? `one for ${layers} layers` : "of this layer"}, ` +
      (trained ? "trained" : "frozen");
    const ring = svg("circle", { class: "ring", cx: x, cy: y, r: size.width / 2 + 4, "stroke-width": 0 });
    const part = svg(
      "g",
      { class: trained ? "part" : "part frozen", role: "button", tabindex: 0, "aria-label": label },
      svg("title", {}, label),
      ring,
      box({ x, y }, size),
      svg("text", { x, y: y + 4, "text-anchor": "middle" }, factor.factor),
    );
    this.#rings.set(factor.path, ring);
    this.#parts.set(factor.path, { part, label });
    return chosen(part, () => events.chosen(factor.path, false));
  }
}

function frozenWeight(path: string, at: Place, events: NetworkEvents): SVGGElement {
  const label = `W, ${path}, frozen`;
  const part = svg(
    "g",
    { class: "part frozen", role: "button", tabindex: 0, "aria-label": label },
    svg("title", {}, label),
    box(at, { ...BOX, width: 60 }),
    svg("text", { x: at.x, y: at.y + 4, "text-anchor": "middle" }, "W"),
  );
  return chosen(part, () => events.chosen(path, true));
}

function box({ x, y }: Place, { width, height }: Size): SVGRectElement {
  return svg("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: 5 });
}

function chosen(part: SVGGElement, act: () => void): SVGGElement {
  part.addEventListener("click", act);
  part.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
  return part;
}

/** From a shared factor into the row of a layer. */
function wire({ x, y }: Place, layer: number, { spec }: FactorPlan): SVGPathElement {
  const [fromX, toX, toY] = [x + SHARED_BOX.width / 2, ROW.left, rowTop(layer) + ROW.height / 2];
  const middle = (fromX + toX) / 2 + 12;
  return svg("path", {
    class: spec.trained ? "wire" : "wire frozen",
    d: `M ${fromX} ${y} C ${middle} ${y}, ${middle} ${toY}, ${toX} ${toY}`,
  });
}

/** In two columns, spread over the height. */
function sharedPlace(i: number, of: number, height: number): Place {
  const rows = Math.ceil(of / 2);
  const [row, column] = [Math.floor(i / 2), i % 2];
  return { x: 34 + column * 30, y: (height * (row + 0.5)) / rows + (column - 0.5) * 110 };
}

const rowTop = (layer: number): number => ROW.gap + layer * (ROW.height + ROW.gap);

function layersOf({ sites }: FactorPlan): number[] {
  return [...new Set(sites.map(({ layer }) => layer))].filter((layer) => layer !== null);
}

function hatch(): SVGDefsElement {
  const line = svg("path", { d: "M0 6 L6 0", stroke: "currentColor", "stroke-opacity": 0.35 });
  return svg(
    "defs",
    {},
    svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, line),
  );
}
