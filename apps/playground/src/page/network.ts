/** The drawing of the network, as elements that can be chosen by mouse and keyboard. */
import type { DrawnFactor, DrawnPlan } from "../plan.ts";
import type { BaseInfo } from "../protocol.ts";
import { svg } from "./dom.ts";
import {
  type Band,
  type Box,
  layOut,
  type Layout,
  type PlacedFactor,
  type PlacedWeight,
  type Wire,
} from "./layout.ts";

const [NARROWEST, WIDEST] = [260, 560];

export interface NetworkEvents {
  /** A factor of the adapter, or a weight of the base model, was chosen; `name` describes it in words. */
  chosen(path: string, ofBase: boolean, name: string): void;
}

/** The adapter to draw: its plan, its name, and its color. */
export interface Drawn {
  readonly label: string;
  readonly plan: DrawnPlan;
  readonly colour: number | "loaded";
}

export class Network {
  readonly #rings = new Map<string, SVGCircleElement>();
  readonly #parts = new Map<string, { part: SVGGElement; label: string }>();
  readonly #events: NetworkEvents;

  /** Draws an adapter on the base model into `holder`, replacing its content; a part with the focus keeps it. */
  constructor(holder: HTMLElement, base: BaseInfo, { label, plan, colour }: Drawn, events: NetworkEvents) {
    this.#events = events;
    const focused = holder.contains(document.activeElement)
      ? document.activeElement!.getAttribute("data-part")
      : null;
    const width = Math.min(WIDEST, Math.max(NARROWEST, holder.clientWidth));
    const layout = layOut(plan, base.layers, width, (layer) => weightOf(base, layer));
    const drawing = svg("svg", {
      viewBox: `0 0 ${layout.width} ${layout.height}`,
      width: layout.width,
      height: layout.height,
      role: "group",
      "aria-label": `${label} on ${base.layers} layers`,
      "data-run": colour,
    });
    drawing.append(
      hatch(),
      ...layout.wires.map(wire),
      ...layout.bands.flatMap(band),
      ...layout.factors.map((one) => this.#factor(one, plan, layout)),
      ...layout.weights.map((one) => this.#weight(one, layout)),
    );
    holder.replaceChildren(drawing);
    if (focused !== null) holder.querySelector<SVGGElement>(`[data-part="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Shows the size of each factor's gradient, by path, on a logarithmic scale. */
  showGradients(norms: Readonly<Record<string, number>>): void {
    const largest = Math.max(...Object.values(norms), 1e-12);
    for (const [path, norm] of Object.entries(norms)) {
      const ring = this.#rings.get(path);
      if (!ring) continue;
      const size = Math.max(0, 1 + Math.log10(Math.max(norm, 1e-12) / largest) / 4); // 0 at a ten-thousandth of the largest
      ring.setAttribute("stroke-width", String(1 + 6 * size));
      const { part, label } = this.#parts.get(path)!;
      part.setAttribute("aria-label", `${label}, gradient ${norm.toPrecision(2)}`);
    }
  }

  #factor({ factor, band: at, box }: PlacedFactor, plan: DrawnPlan, layout: Layout): SVGGElement {
    const name = `${factor.factor}${at === null ? "," : ""} ${whereOf(factor, plan, at === null ? null : layout.bands[at]!)}`;
    const label = `${name}, ${factor.shape.join(" by ")}, ${factor.trained ? "trained" : "frozen"}`;
    const [x, y] = centre(box);
    const ring = svg("circle", { class: "ring", cx: x, cy: y, r: box.width / 2 + 2, "stroke-width": 0 });
    const part = this.#part(label, factor.factor, box, factor.trained, ring);
    part.setAttribute("data-part", factor.path);
    this.#rings.set(factor.path, ring);
    this.#parts.set(factor.path, { part, label });
    return whenChosen(part, () => this.#events.chosen(factor.path, false, name));
  }

  #weight({ path, band: at, text, box }: PlacedWeight, { bands }: Layout): SVGGElement {
    const name = `${text} of ${bands[at]!.title}, ${moduleOf(path.replace(/\.weight$/, ""))}`;
    const part = this.#part(`${name}, frozen`, text, box, false, null);
    part.setAttribute("data-part", path);
    return whenChosen(part, () => this.#events.chosen(path, true, name));
  }

  #part(label: string, text: string, box: Box, trained: boolean, ring: SVGElement | null): SVGGElement {
    const [x, y] = centre(box);
    return svg(
      "g",
      { class: trained ? "part" : "part frozen", role: "button", tabindex: 0, "aria-label": label },
      svg("title", {}, label),
      ring,
      svg("rect", { ...box, rx: 5 }),
      svg("text", { x, y: y + 4, "text-anchor": "middle" }, text),
    );
  }
}

/** "of layer 2, q_proj", "of layer 2, for 3 modules", "for 6 layers" */
function whereOf({ sites }: DrawnFactor, plan: DrawnPlan, band: Band | null): string {
  const used = sites.map((i) => plan.sites[i]!);
  if (band !== null) {
    const modules = used.flatMap((site) => site.modules.map(moduleOf));
    return `of ${band.title}, ${used.length > 1 ? `one for ${modules.length} modules` : modules.join(" ")}`;
  }
  const layers = new Set(used.map(({ layer }) => layer)).size;
  const kinds = new Set(used.map((site) => site.modules.map(moduleOf).join(" ")));
  return `one for ${layers} layers, ${kinds.size > 3 ? `${kinds.size} modules each` : [...kinds].join(", ")}`;
}

const moduleOf = (path: string): string => path.split(".").at(-1)!;

function weightOf({ linears }: BaseInfo, layer: number): string | null {
  return linears.find(({ path }) => path.includes(`.${layer}.`))?.path ?? null;
}

const centre = ({ x, y, width, height }: Box): [number, number] => [x + width / 2, y + height / 2];

function whenChosen(part: SVGGElement, act: () => void): SVGGElement {
  part.addEventListener("click", act);
  part.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
  return part;
}

function band({ title, box }: Band): SVGElement[] {
  return [
    svg("rect", { class: "layer", ...box, rx: 8 }),
    svg("text", { x: box.x + 8, y: box.y + 16 }, title),
  ];
}

function wire({ factor, from: [x, y], to: [toX, toY] }: Wire): SVGPathElement {
  const middle = (x + toX) / 2;
  const d = `M ${x} ${y} C ${middle} ${y}, ${middle} ${toY}, ${toX} ${toY}`;
  return svg("path", { class: factor.trained ? "wire" : "wire frozen", d });
}

function hatch(): SVGDefsElement {
  const line = svg("path", { d: "M0 6 L6 0", stroke: "currentColor", "stroke-opacity": 0.35 });
  return svg(
    "defs",
    {},
    svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, line),
  );
}
