/** The loss curves, one per method, redrawn a few times a second. */
import uPlot from "uplot";

const REDRAW_MS = 250;

/** The name of a curve, and the number of its color, by which `add` finds it. */
interface Curve {
  readonly label: string;
  readonly colour: number;
}

export class LossChart {
  readonly #holder: HTMLElement;
  readonly #curves: readonly Curve[];
  readonly #steps: number[] = [];
  readonly #losses: (number | null)[][];
  #plot: uPlot;
  readonly #resized = new ResizeObserver(() => this.#plot.setSize(this.#size()));
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  #due = false;

  constructor(holder: HTMLElement, curves: readonly Curve[]) {
    this.#holder = holder;
    this.#curves = curves;
    this.#losses = curves.map(() => []);
    holder.replaceChildren();
    this.#plot = new uPlot(this.#options(), this.#data(), holder);
    this.#resized.observe(holder);
    this.#dark.addEventListener("change", this.#recolour);
  }

  /** Removes the chart from the page. */
  close(): void {
    this.#resized.disconnect();
    this.#dark.removeEventListener("change", this.#recolour);
    this.#plot.destroy();
  }

  add(colour: number, step: number, loss: number): void {
    const curve = this.#curves.findIndex((one) => one.colour === colour);
    if (curve < 0) return;
    while (this.#steps.length < step) {
      this.#steps.push(this.#steps.length + 1);
      for (const losses of this.#losses) losses.push(null);
    }
    this.#losses[curve]![step - 1] = loss;
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => {
      this.#due = false;
      if (this.#holder.contains(this.#plot.root)) this.#plot.setData(this.#data());
    }, REDRAW_MS);
  }

  /** A canvas does not follow the page's color scheme, so the chart is drawn again when that changes. */
  readonly #recolour = (): void => {
    this.#plot.destroy();
    this.#plot = new uPlot(this.#options(), this.#data(), this.#holder);
  };

  #data(): uPlot.AlignedData {
    return [this.#steps, ...this.#losses];
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(200, this.#holder.clientWidth), height: 240 };
  }

  #options(): uPlot.Options {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => resolved(style.getPropertyValue(name));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 0.5 } };
    return {
      ...this.#size(),
      scales: { x: { time: false } },
      axes: [
        { ...axis, label: "step", labelSize: 18 },
        { ...axis, label: "loss", labelSize: 18 },
      ],
      series: [
        { label: "step" },
        ...this.#curves.map(({ label, colour: i }) => ({
          label,
          stroke: colour(`--run-${i}`),
          width: 2,
          spanGaps: true,
        })),
      ],
    };
  }
}

/** A color that a canvas understands: the page evaluates `light-dark()`. */
function resolved(value: string): string {
  const probe = document.createElement("span");
  probe.style.color = value;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
