/** The table of the methods in numbers, with a download for each trained adapter. */
import type { DownloadFormat, Reply, RunChoice } from "../protocol.ts";
import { labelOf } from "../method.ts";
import { byId, bytes, count, el } from "./dom.ts";

type Step = Extract<Reply, { type: "step" }>;

export class Numbers {
  readonly #rows = new Map<number, { name: string; cells: HTMLElement[]; downloads: HTMLElement }>();
  readonly #download: (run: number, format: DownloadFormat) => void;

  constructor(download: (run: number, format: DownloadFormat) => void) {
    this.#download = download;
  }

  start(runs: readonly RunChoice[], trainable: (run: RunChoice) => number): void {
    this.#rows.clear();
    byId("numbers").querySelector("tbody")!.replaceChildren();
    for (const [i, run] of runs.entries())
      this.#add(run.id, `var(--run-${i})`, labelOf(run.method), trainable(run));
  }

  /** A row for an adapter that came from files. */
  addLoaded(id: number, method: string, trainable: number): void {
    this.#add(id, "var(--soft)", `${method} (loaded)`, trainable);
    this.finish([id]);
  }

  /** What can be asked for completions: numbers and names. */
  names(): [id: number, name: string][] {
    return [...this.#rows].map(([id, { name }]) => [id, name]);
  }

  step({ run, step, steps, loss, tokensPerSecond, memory }: Step): void {
    const row = this.#rows.get(run);
    if (!row) return;
    const texts = [`${step} / ${steps}`, loss.toFixed(3), count(Math.round(tokensPerSecond)), bytes(memory)];
    for (const [i, text] of texts.entries()) row.cells[i]!.textContent = text;
  }

  /** What has been trained can be downloaded. */
  finish(runs: Iterable<number> = this.#rows.keys()): void {
    for (const id of runs) {
      const buttons = (["native", "peft"] as const).map((format) => {
        const button = el("button", { type: "button" }, format === "peft" ? "as PEFT" : "Download");
        button.addEventListener("click", () => this.#download(id, format));
        return button;
      });
      this.#rows.get(id)?.downloads.replaceChildren(...buttons);
    }
  }

  #add(id: number, colour: string, label: string, trainable: number): void {
    const cells = ["", "", "", ""].map((text) => el("td", {}, text));
    const downloads = el("td");
    const name = el("th", { scope: "row" }, el("span", { class: "key", style: `--run: ${colour}` }), label);
    byId("numbers")
      .querySelector("tbody")!
      .append(el("tr", {}, name, el("td", {}, count(trainable)), ...cells, downloads));
    this.#rows.set(id, { name: label, cells, downloads });
  }
}
