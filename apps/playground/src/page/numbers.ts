/** The table of numbers: a row for each trained method and each adapter from files, with buttons to download it. */
import type { DownloadFormat, Reply } from "../protocol.ts";
import { byId, bytes, count, el } from "./dom.ts";

type Step = Extract<Reply, { type: "step" }>;

/** The fixed contents of a row. */
export interface Entry {
  readonly id: number;
  readonly label: string;
  readonly trainable: number;
}

export interface NumbersEvents {
  download(run: number, format: DownloadFormat): void;
  /** An adapter from files was removed. */
  unload(run: number): void;
}

interface Row {
  readonly label: string;
  readonly loaded: boolean;
  readonly row: HTMLTableRowElement;
  readonly cells: Readonly<Record<"step" | "loss" | "speed" | "memory" | "actions", HTMLElement>>;
}

export class Numbers {
  readonly #rows = new Map<number, Row>();
  readonly #body = byId("numbers").querySelector("tbody")!;
  readonly #events: NumbersEvents;

  constructor(events: NumbersEvents) {
    this.#events = events;
  }

  /** Replaces the rows of the last training by new ones; adapters from files stay below them. */
  start(entries: readonly Entry[]): void {
    const loaded = [...this.#rows].filter(([, row]) => row.loaded);
    this.#rows.clear();
    this.#body.replaceChildren();
    for (const entry of entries) this.#add(entry, false);
    for (const [id, row] of loaded) {
      this.#rows.set(id, row);
      this.#body.append(row.row);
    }
  }

  clear(): void {
    this.#rows.clear();
    this.#body.replaceChildren();
  }

  addLoaded(entry: Entry): void {
    const { step } = this.#add(entry, true).cells;
    step.textContent = "loaded";
    this.#allowDownload(entry.id);
  }

  step({ run, step, steps, loss, tokensPerSecond, memory }: Step): void {
    const cells = this.#rows.get(run)?.cells;
    if (!cells) return;
    cells.step.textContent = `${step} / ${steps}`;
    cells.loss.textContent = loss.toFixed(3);
    cells.speed.textContent = count(Math.round(tokensPerSecond));
    cells.memory.textContent = bytes(memory);
    this.#rows.get(run)!.row.dataset["trained"] = "";
  }

  /** Shows the loss of an adapter from files, which is not trained here. */
  measured(run: number, loss: number): void {
    const cells = this.#rows.get(run)?.cells;
    if (cells) cells.loss.textContent = loss.toFixed(3);
  }

  /** Adds download buttons to the rows of trained methods. */
  finish(): void {
    for (const [id, { row }] of this.#rows) if ("trained" in row.dataset) this.#allowDownload(id);
  }

  #allowDownload(id: number): void {
    const { label, loaded, cells } = this.#rows.get(id)!;
    if (cells.actions.childElementCount > 0) return; // the buttons exist, and one may have the focus
    const button = (text: string, name: string, act: () => void): HTMLButtonElement => {
      const made = el("button", { type: "button", "aria-label": name }, text);
      made.addEventListener("click", act);
      return made;
    };
    cells.actions.append(
      button("Download", `Download ${label}`, () => this.#events.download(id, "native")),
      button("as PEFT", `Download ${label} as PEFT`, () => this.#events.download(id, "peft")),
    );
    if (loaded) cells.actions.append(button("Remove", `Remove ${label}`, () => this.#unload(id)));
  }

  /** Removes a row. The focus moves to a button of a neighboring row, or to the field that loads adapters. */
  #unload(id: number): void {
    const { row } = this.#rows.get(id)!;
    const next = row.nextElementSibling ?? row.previousElementSibling;
    this.#rows.delete(id);
    row.remove();
    (next?.querySelector("button") ?? byId("adapter-files")).focus();
    this.#events.unload(id);
  }

  #add({ id, label, trainable }: Entry, loaded: boolean): Row {
    const cell = (): HTMLTableCellElement => el("td");
    const cells = {
      step: cell(),
      loss: cell(),
      speed: cell(),
      memory: cell(),
      actions: el("div", { class: "actions" }),
    };
    const key = el("span", { class: "key", "data-run": loaded ? "loaded" : id });
    const name = el("th", { scope: "row" }, key, label);
    const { actions, ...numbers } = cells;
    const row = el(
      "tr",
      {},
      name,
      el("td", {}, count(trainable)),
      ...Object.values(numbers),
      el("td", {}, actions),
    );
    this.#body.append(row);
    const made: Row = { label, loaded, row, cells };
    this.#rows.set(id, made);
    return made;
  }
}
