/** The card of one method: its preset, the four switches, tying, rank and learning rate, and the number of trained parameters. */
import { countParameters, type FactorName, FACTOR_NAMES } from "tiedlora";
import {
  hasSwitches,
  labelOf,
  methodOf,
  PRESET_NAMES,
  type PresetName,
  presetChoice,
  presetName,
  presetOf,
  rateOf,
  TIE_SCOPES,
  trainsSomething,
} from "../method.ts";
import type { BaseInfo, MethodChoice, RunChoice, TieScope } from "../protocol.ts";
import { count, el } from "./dom.ts";
import { choice, NumberField, type Problem } from "./fields.ts";

export interface CardEvents {
  /** After every change of a switch or number. */
  readonly changed: () => void;
  readonly removed: () => void;
}

const PRESETS = {
  ...Object.fromEntries(PRESET_NAMES.map((name) => [name, presetName(name)])),
  own: "my own",
};
const NOTHING = "Nothing is trained: switch on one of v, B, u, A.";

export class MethodCard {
  readonly id: number;
  readonly element: HTMLFieldSetElement;
  #method: MethodChoice;
  #lr: number;
  #base: BaseInfo | null = null;
  #title = "";
  readonly #legend = el("legend");
  readonly #preset: HTMLSelectElement;
  readonly #tie: HTMLSelectElement;
  /** The fields that only methods with switches have: how A and B are tied, and which factors are trained. */
  readonly #switches: readonly HTMLElement[];
  readonly #boxes: ReadonlyMap<FactorName, HTMLInputElement>;
  readonly #rank: NumberField;
  readonly #rate: NumberField;
  readonly #cost = el("p", { class: "count" });
  readonly #remove = el("button", { type: "button" }, "Remove");
  readonly #changed: () => void;

  constructor(id: number, preset: PresetName, { changed, removed }: CardEvents) {
    this.id = id;
    this.#method = presetChoice(preset, 8);
    this.#lr = rateOf(this.#method);
    this.#changed = changed;
    const presets = choice("preset", "preset", PRESETS, preset, (name) => this.#choosePreset(name));
    const ties = choice("tie", "A and B", TIE_SCOPES, this.#method.tie, (tie) =>
      this.#switch({ tie: tie as TieScope }),
    );
    this.#preset = presets.list;
    this.#tie = ties.list;
    this.#rank = new NumberField("rank", "rank", 8, { min: 1, max: 64, whole: true }, (rank) => {
      if (this.#rank.problem === null) this.#method = { ...this.#method, rank };
      this.#show();
    });
    this.#rate = new NumberField("lr", "learning rate", this.#lr, { above: 0, max: 1 }, (lr) => {
      if (this.#rate.problem === null) this.#lr = lr;
      this.#show();
    });
    this.#boxes = new Map(FACTOR_NAMES.map((name) => [name, this.#box(name)]));
    const boxes = [...this.#boxes].map(([name, box]) => el("label", {}, box, name));
    const train = el("fieldset", { class: "switches", "aria-label": "trained factors" }, "train", ...boxes);
    this.#switches = [ties.element, train];
    const fields = [presets.element, ties.element, this.#rank.element, this.#rate.element];
    this.#remove.addEventListener("click", removed);
    this.element = el(
      "fieldset",
      { class: "method", "data-run": id },
      this.#legend,
      el("div", { class: "fields" }, ...fields),
      train,
      this.#cost,
      this.#remove,
    );
    this.#showSwitches();
  }

  get choice(): RunChoice {
    return { id: this.id, method: this.#method, lr: this.#lr };
  }

  /** The reasons why it cannot be trained with its current settings. */
  get problems(): Problem[] {
    const wrong = [this.#rank, this.#rate].flatMap(({ problem }) => problem ?? []);
    const cost = this.#costOf();
    if (cost.wrong) wrong.unshift({ text: cost.text, focus: () => this.#boxes.get("B")!.focus() });
    return wrong.map(({ text, focus }) => ({ text: `${this.#title}: ${text}`, focus }));
  }

  /** Shows its place among the cards, from 1. The only card cannot be removed. */
  place(number: number, only: boolean): void {
    this.#title = `Method ${number}`;
    this.#legend.textContent = this.#title;
    this.#remove.hidden = only;
    this.#nameRemove();
  }

  setBase(base: BaseInfo): void {
    this.#base = base;
    this.#showCost();
  }

  focus(): void {
    this.#preset.focus();
  }

  focusRemove(): void {
    this.#remove.focus();
  }

  #box(name: FactorName): HTMLInputElement {
    const box = el("input", { type: "checkbox", name });
    box.addEventListener("change", () =>
      this.#switch({ trained: FACTOR_NAMES.filter((one) => this.#boxes.get(one)!.checked) }),
    );
    return box;
  }

  #choosePreset(name: string): void {
    const { rank } = this.#method;
    this.#method =
      name === "own" ? { ...this.#method, preset: "own" } : presetChoice(name as PresetName, rank);
    this.#setRate();
    this.#showSwitches();
    this.#changed();
  }

  #switch(part: Partial<Pick<MethodChoice, "trained" | "tie">>): void {
    // a rate that the visitor has entered stays; the default rate of the old method becomes that of the new one
    const follows = this.#lr === rateOf(this.#method);
    const next = { ...this.#method, ...part };
    this.#method = { ...next, preset: presetOf(next.trained, next.tie) };
    if (follows) this.#setRate();
    this.#showSwitches();
    this.#changed();
  }

  #setRate(): void {
    this.#lr = rateOf(this.#method);
    this.#rate.set(this.#lr);
  }

  #showSwitches(): void {
    const { preset, tie, trained } = this.#method;
    this.#preset.value = preset;
    this.#tie.value = tie;
    for (const [name, box] of this.#boxes) box.checked = trained.includes(name);
    for (const element of this.#switches) element.hidden = !hasSwitches(this.#method);
    this.#showCost();
  }

  #show(): void {
    this.#showCost();
    this.#changed();
  }

  #showCost(): void {
    const { text, wrong } = this.#costOf();
    this.#cost.textContent = text;
    this.#cost.classList.toggle("wrong", wrong);
    this.#nameRemove();
  }

  #nameRemove(): void {
    this.#remove.setAttribute("aria-label", `Remove ${this.#title.toLowerCase()}, ${labelOf(this.#method)}`);
  }

  /** The number of trained parameters and its share of LoRA's, or why the method cannot be trained. */
  #costOf(): { readonly text: string; readonly wrong: boolean } {
    const method = this.#method;
    if (!trainsSomething(method)) return { text: NOTHING, wrong: true };
    if (this.#rank.problem !== null || !this.#base) return { text: "…", wrong: false };
    try {
      const { linears } = this.#base;
      const own = countParameters(linears, methodOf(method)).trainable;
      const lora = countParameters(linears, methodOf(presetChoice("lora", method.rank))).trainable;
      const share = ((100 * own) / lora).toPrecision(own < lora / 10 ? 2 : 3);
      return {
        text: `${count(own)} trainable parameters, ${share} % of LoRA's ${count(lora)}`,
        wrong: false,
      };
    } catch (error) {
      return { text: error instanceof Error ? error.message : String(error), wrong: true };
    }
  }
}
