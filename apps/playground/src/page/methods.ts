/** The cards of the methods that are trained side by side, and the button that adds one. */
import { PRESET_NAMES, type PresetName } from "../method.ts";
import type { BaseInfo, RunChoice } from "../protocol.ts";
import { MethodCard } from "./card.ts";
import { byId, el, isOff, switchButton } from "./dom.ts";
import type { Problem } from "./fields.ts";

const MOST_METHODS = 4;

export class MethodCards {
  readonly #cards: MethodCard[] = [];
  #base: BaseInfo | null = null;
  readonly #add = el("button", { type: "button" }, "Compare with another method");
  readonly #changed: (id: number | null) => void;

  /** `changed` is called with the number of a card that was added or changed, and with null when a card was removed. */
  constructor(changed: (id: number | null) => void) {
    this.#changed = changed;
    byId("methods").replaceChildren(el("div", {}, this.#add));
    this.#append("tl6");
    this.#append("lora");
    this.#add.addEventListener("click", () => {
      if (isOff(this.#add)) return;
      const used = this.choices.map(({ method }) => method.preset);
      const card = this.#append(PRESET_NAMES.find((name) => !used.includes(name)) ?? "tl6");
      card.focus();
      this.#changed(card.id);
    });
  }

  get choices(): readonly RunChoice[] {
    return this.#cards.map(({ choice }) => choice);
  }

  /** The reasons why they cannot be trained with their current settings. */
  get problems(): Problem[] {
    return this.#cards.flatMap(({ problems }) => problems);
  }

  setBase(base: BaseInfo): void {
    this.#base = base;
    for (const card of this.#cards) card.setBase(base);
  }

  /** Appends a card, with the first free number. The number determines its color. */
  #append(preset: PresetName): MethodCard {
    const id = [0, 1, 2, 3].find((one) => this.#cards.every((card) => card.id !== one))!;
    const card: MethodCard = new MethodCard(id, preset, {
      changed: () => this.#changed(id),
      removed: () => this.#remove(card),
    });
    this.#cards.push(card);
    this.#add.parentElement!.before(card.element);
    this.#place();
    if (this.#base) card.setBase(this.#base);
    return card;
  }

  #remove(card: MethodCard): void {
    const at = this.#cards.indexOf(card);
    this.#cards.splice(at, 1);
    card.element.remove();
    this.#place();
    if (this.#cards.length === 1) this.#add.focus();
    else (this.#cards[at] ?? this.#cards.at(-1)!).focusRemove();
    this.#changed(null);
  }

  #place(): void {
    for (const [i, card] of this.#cards.entries()) card.place(i + 1, this.#cards.length === 1);
    switchButton(this.#add, this.#cards.length < MOST_METHODS);
  }
}
