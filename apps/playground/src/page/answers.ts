/** What the model said to a few prompts: before any training, and each method during and after its own. */
import type { Phase, Sample } from "../protocol.ts";
import { byId, el } from "./dom.ts";

export class Answers {
  readonly #cells = new Map<string, HTMLElement>();

  /** An empty table for each sample, with a row a method. */
  show(
    samples: readonly Sample[],
    methods: readonly { readonly id: number; readonly label: string }[],
  ): void {
    this.#cells.clear();
    const tables = samples.map(({ prompt, right }, i) =>
      el(
        "div",
        { class: "sample" },
        el("p", { class: "prompt" }, prompt),
        el(
          "table",
          {},
          this.#row("before", i, "before"),
          ...methods.map(({ id, label }, run) => this.#row(String(id), i, label, run)),
          right === "" ? null : el("tr", {}, el("th", { scope: "row" }, "right"), el("td", {}, right)),
        ),
      ),
    );
    byId("completions").replaceChildren(...tables);
  }

  set(run: number | null, phase: Phase, texts: readonly string[]): void {
    for (const [i, text] of texts.entries()) {
      const cell = this.#cells.get(`${run ?? "before"} ${i}`);
      if (!cell) continue;
      cell.textContent = text === "" ? "(nothing)" : text;
      cell.dataset["phase"] = phase;
    }
  }

  #row(key: string, sample: number, label: string, run?: number): HTMLTableRowElement {
    const cell = el("td", {}, "…");
    this.#cells.set(`${key} ${sample}`, cell);
    const dot = run === undefined ? null : el("span", { class: "key", style: `--run: var(--run-${run})` });
    return el("tr", {}, el("th", { scope: "row" }, dot, label), cell);
  }
}
