/** The table of the methods in numbers: those that are trained, and adapters from files, with downloads of each. */
import type { DownloadFormat, Reply } from "../protocol.ts";
import { byId, bytes, count, el } from "./dom.ts";

type Step = Extract<Reply, { type: "step" }>;

/** A row, as it is set up. */
export interface Entry {
  readonly id: number;
  readonly label: string;
  readonly trainable: number;
}

export interface NumbersEvents {
  download(run: number, format: DownloadFormat): void;
  /** An adapter from files is wanted no longer. */
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

  /** Rows for the coming training, replacing those of the last; adapters from files stay, below. */
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

  /** The loss of an adapter from files, which is not trained here. */
  measured(run: number, loss: number): void {
    const cells = this.#rows.get(run)?.cells;
    if (cells) cells.loss.textContent = loss.toFixed(3);
  }

  /** What has been trained can be downloaded. */
  finish(): void {
    for (const [id, { row }] of this.#rows) if ("trained" in row.dataset) this.#allowDownload(id);
  }

  #allowDownload(id: number): void {
    const { label, loaded, cells } = this.#rows.get(id)!;
    if (cells.actions.childElementCount > 0) return; // they are there, and one may have the focus
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

  /** The focus goes to the next row's buttons, or to where adapters are loaded. */
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
