/** The model's completions of a few prompts: before training, during and after it with each method, and with loaded adapters. */
import type { Phase, Sample } from "../protocol.ts";
import { byId, el } from "./dom.ts";

/** The adapter behind a completion: its number, its name, and the color in which it is shown. */
interface Speaker {
  readonly id: number;
  readonly label: string;
  readonly colour: number | "loaded";
}

interface Table {
  readonly body: HTMLTableSectionElement;
  /** The row with the right answer, which stays last. */
  readonly right: HTMLTableRowElement | null;
}

const HINT = "Completions appear here before, during and after the training.";

export class Answers {
  readonly #cells = new Map<string, HTMLElement>();
  #tables: readonly Table[] = [];

  /** Shows an empty table for each sample, with a row for each speaker. */
  show(samples: readonly Sample[], speakers: readonly Speaker[]): void {
    this.#cells.clear();
    this.#tables = samples.map(({ right }, i) => {
      const last =
        right === "" ? null : el("tr", {}, el("th", { scope: "row" }, "right"), el("td", {}, right));
      return { body: el("tbody", {}, this.#row("before", i, "before"), last), right: last };
    });
    const blocks = samples.map(({ prompt }, i) =>
      el(
        "div",
        { class: "sample" },
        el("p", { class: "prompt" }, prompt),
        el("table", {}, this.#tables[i]!.body),
      ),
    );
    byId("completions").replaceChildren(...blocks);
    for (const speaker of speakers) this.add(speaker);
  }

  clear(): void {
    this.#cells.clear();
    this.#tables = [];
    byId("completions").replaceChildren(el("p", { class: "hint" }, HINT));
  }

  add({ id, label, colour }: Speaker): void {
    for (const [i, { body, right }] of this.#tables.entries())
      body.insertBefore(this.#row(String(id), i, label, colour), right);
  }

  remove(id: number): void {
    for (const i of this.#tables.keys()) {
      this.#cells.get(`${id} ${i}`)?.closest("tr")?.remove();
      this.#cells.delete(`${id} ${i}`);
    }
  }

  set(run: number | null, phase: Phase, texts: readonly string[]): void {
    for (const [i, text] of texts.entries()) {
      const cell = this.#cells.get(`${run ?? "before"} ${i}`);
      if (!cell) continue;
      cell.textContent = text === "" ? "(nothing)" : text;
      cell.dataset["phase"] = phase;
    }
  }

  /** No more completions will come: marks the cells that are still empty. */
  finish(): void {
    for (const cell of this.#cells.values()) if (cell.textContent === "…") cell.textContent = "—";
  }

  #row(key: string, sample: number, label: string, colour?: Speaker["colour"]): HTMLTableRowElement {
    const cell = el("td", {}, "…");
    this.#cells.set(`${key} ${sample}`, cell);
    const dot = colour === undefined ? null : el("span", { class: "key", "data-run": colour });
    return el("tr", {}, el("th", { scope: "row" }, dot, label), cell);
  }
}
