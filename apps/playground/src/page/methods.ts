/** The cards of the methods: presets, the four switches, tying, rank and rate, and what that costs. */
import { countParameters, type FactorName, FACTOR_NAMES } from "tiedlora";
import {
  methodOf,
  PRESET_NAMES,
  type PresetName,
  presetChoice,
  presetName,
  presetOf,
  rateOf,
  TIE_SCOPES,
} from "../method.ts";
import type { BaseInfo, MethodChoice, RunChoice, TieScope } from "../protocol.ts";
import { byId, choice, count, el, numeric } from "./dom.ts";

const MOST_METHODS = 4;
const OWN = { own: "my own" };

/** A method with the learning rate that it learns well with. */
function withItsRate(id: number, method: MethodChoice): RunChoice {
  return { id, method, lr: rateOf(method) };
}

export class MethodCards {
  #choices: RunChoice[] = [withItsRate(0, presetChoice("tl6", 8)), withItsRate(1, presetChoice("lora", 8))];
  #base: BaseInfo | null = null;
  readonly #changed: () => void;

  /** `changed` is called after every change of a switch or number. */
  constructor(changed: () => void) {
    this.#changed = changed;
    this.#draw();
  }

  get choices(): readonly RunChoice[] {
    return this.#choices;
  }

  /** Whether each method could be trained as it is set. */
  get valid(): boolean {
    return this.#choices.every(({ method }) => method.trained.length > 0);
  }

  setBase(base: BaseInfo): void {
    this.#base = base;
    this.#draw();
  }

  #draw(): void {
    const add = el(
      "button",
      { type: "button", disabled: this.#choices.length >= MOST_METHODS },
      "Compare with another",
    );
    add.addEventListener("click", () => {
      const unused = PRESET_NAMES.find((name) => this.#choices.every(({ method }) => method.preset !== name));
      const id = [0, 1, 2, 3].find((one) => this.#choices.every((choice) => choice.id !== one))!;
      this.#choices.push(withItsRate(id, presetChoice(unused ?? "tl6", 8)));
      this.#draw();
      this.#changed();
    });
    const cards = this.#choices.map((one, i) => this.#card(one, i));
    byId("methods").replaceChildren(...cards, el("div", {}, add));
  }

  #update(i: number, next: RunChoice): void {
    this.#choices[i] = next;
    const old = byId("methods").children[i]!;
    const focused = [...old.querySelectorAll("select,input,button")].indexOf(document.activeElement!);
    const card = this.#card(next, i);
    old.replaceWith(card);
    card.querySelectorAll<HTMLElement>("select,input,button")[focused]?.focus();
    this.#changed();
  }

  #card(one: RunChoice, i: number): HTMLFieldSetElement {
    const { method } = one;
    const set = (part: Partial<RunChoice["method"]>): void => {
      const switched = { ...method, ...part };
      const next = { ...switched, preset: presetOf(switched.trained, switched.tie) };
      // a rate of the visitor's own stays; one that was the method's becomes the new method's
      this.#update(i, one.lr === rateOf(method) ? withItsRate(one.id, next) : { ...one, method: next });
    };
    const presets = {
      ...Object.fromEntries(PRESET_NAMES.map((name) => [name, presetName(name)])),
      ...OWN,
    };
    const card = el(
      "fieldset",
      { class: "method", style: `--run: var(--run-${i})` },
      el("legend", {}, `Method ${i + 1}`),
      el(
        "div",
        { class: "fields" },
        choice("preset", presets, method.preset, (name) => {
          if (name !== "own")
            this.#update(i, withItsRate(one.id, presetChoice(name as PresetName, method.rank)));
        }),
        choice("A and B", TIE_SCOPES, method.tie, (tie) => set({ tie: tie as TieScope })),
        numeric("rank", method.rank, { min: 1, max: 64, step: 1 }, (rank) =>
          this.#quiet(i, { ...one, method: { ...method, rank } }),
        ),
        numeric("learning rate", one.lr, { min: 0, max: 1, step: "any" }, (lr) =>
          this.#quiet(i, { ...one, lr }),
        ),
      ),
      this.#switches(method.trained, (trained) => set({ trained })),
      this.#cost(one),
    );
    if (this.#choices.length > 1) card.append(this.#remove(i));
    return card;
  }

  /** A number changes while it is typed: the field stays, what follows from it is written anew. */
  #quiet(i: number, next: RunChoice): void {
    this.#choices[i] = next;
    const card = byId("methods").children[i]!;
    card.querySelector(".count")!.replaceWith(this.#cost(next));
    this.#changed();
  }

  #switches(trained: readonly FactorName[], changed: (trained: FactorName[]) => void): HTMLFieldSetElement {
    const boxes = FACTOR_NAMES.map((name) => {
      const box = el("input", { type: "checkbox", checked: trained.includes(name) });
      box.addEventListener("change", () =>
        changed(FACTOR_NAMES.filter((one) => (one === name ? box.checked : trained.includes(one)))),
      );
      return el("label", {}, box, name);
    });
    return el("fieldset", { class: "switches", "aria-label": "trained factors" }, "train", ...boxes);
  }

  /** How many numbers are trained, and the share of LoRA's. */
  #cost({ method }: RunChoice): HTMLParagraphElement {
    if (method.trained.length === 0)
      return el("p", { class: "count wrong" }, "Nothing is trained: switch on one of v, B, u, A.");
    const linears = this.#base?.linears;
    if (!linears) return el("p", { class: "count" }, "…");
    try {
      const own = countParameters(linears, methodOf(method)).trainable;
      const lora = countParameters(linears, methodOf(presetChoice("lora", method.rank))).trainable;
      const share = ((100 * own) / lora).toPrecision(own < lora / 10 ? 2 : 3);
      return el(
        "p",
        { class: "count" },
        `${count(own)} trainable parameters, ${share} % of LoRA's ${count(lora)}`,
      );
    } catch (error) {
      return el("p", { class: "count wrong" }, error instanceof Error ? error.message : String(error));
    }
  }

  #remove(i: number): HTMLButtonElement {
    const button = el("button", { type: "button", "aria-label": `remove method ${i + 1}` }, "Remove");
    button.addEventListener("click", () => {
      this.#choices.splice(i, 1);
      this.#draw();
      this.#changed();
    });
    return button;
  }
}
