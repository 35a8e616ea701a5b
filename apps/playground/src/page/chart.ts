/** The curves of the loss, one a method, drawn a few times a second. */
import uPlot from "uplot";

const REDRAW_MS = 250;

export class LossChart {
  readonly #holder: HTMLElement;
  readonly #names: string[];
  readonly #steps: number[] = [];
  readonly #losses: (number | null)[][];
  readonly #plot: uPlot;
  #due = false;

  constructor(holder: HTMLElement, names: readonly string[]) {
    this.#holder = holder;
    this.#names = [...names];
    this.#losses = names.map(() => []);
    holder.replaceChildren();
    this.#plot = new uPlot(this.#options(), this.#data(), holder);
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(holder);
  }

  add(curve: number, step: number, loss: number): void {
    while (this.#steps.length < step) {
      this.#steps.push(this.#steps.length + 1);
      for (const losses of this.#losses) losses.push(null);
    }
    this.#losses[curve]![step - 1] = loss;
    if (this.#due) return;
    this.#due = true;
    setTimeout(() => {
      this.#due = false;
      this.#plot.setData(this.#data());
    }, REDRAW_MS);
  }

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
        ...this.#names.map((label, i) => ({ label, stroke: colour(`--run-${i}`), width: 2, spanGaps: true })),
      ],
    };
  }
}

/** A colour that a canvas understands: `light-dark()` is worked out by the page. */
function resolved(value: string): string {
  const probe = document.createElement("span");
  probe.style.color = value;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
