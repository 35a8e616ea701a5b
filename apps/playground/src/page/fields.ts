/** Fields of the forms: a list, and a number that is marked, with a message, while it is not valid. */
import { el } from "./dom.ts";

/** Why a training cannot start, and how to focus the field that fixes it. */
export interface Problem {
  readonly text: string;
  readonly focus: () => void;
}

export interface Range {
  readonly min?: number;
  /** The value must be greater than this. */
  readonly above?: number;
  readonly max: number;
  readonly whole?: boolean;
}

/** A labeled drop-down list. */
export function choice(
  name: string,
  label: string,
  options: Readonly<Record<string, string>>,
  selected: string,
  changed: (value: string) => void,
): { readonly element: HTMLLabelElement; readonly list: HTMLSelectElement } {
  const list = el(
    "select",
    { name },
    ...Object.entries(options).map(([value, text]) =>
      el("option", { value, selected: value === selected }, text),
    ),
  );
  list.addEventListener("change", () => changed(list.value));
  return { element: el("label", {}, label, list), list };
}

let messages = 0;

/** A labeled number. An invalid value is marked, and its field has a problem. */
export class NumberField {
  readonly element: HTMLElement;
  readonly #input: HTMLInputElement;
  readonly #message: HTMLElement;
  readonly #label: string;
  readonly #range: Range;

  constructor(name: string, label: string, value: number, range: Range, changed: (value: number) => void) {
    const { min = range.above, max, whole } = range;
    this.#label = label;
    this.#range = range;
    const id = `message-${++messages}`;
    this.#input = el("input", {
      name,
      type: "number",
      value,
      min,
      max,
      step: whole ? 1 : "any",
      required: true,
    });
    this.#message = el("p", { id, class: "wrong", hidden: true });
    this.#input.setAttribute("aria-describedby", id);
    this.element = el("div", { class: "field" }, el("label", {}, label, this.#input), this.#message);
    this.#input.addEventListener("input", () => {
      this.#mark();
      changed(this.#input.valueAsNumber);
    });
  }

  /** Why the value is not valid, or null. */
  get problem(): Problem | null {
    return this.#isValid()
      ? null
      : { text: `${this.#label}: ${expected(this.#range)}`, focus: () => this.#input.focus() };
  }

  set(value: number): void {
    this.#input.value = String(value);
    this.#mark();
  }

  #isValid(): boolean {
    const { min = -Infinity, above = -Infinity, max, whole } = this.#range;
    const value = this.#input.valueAsNumber; // NaN if the field is empty or does not hold a number
    return value >= min && value > above && value <= max && (!whole || Number.isInteger(value));
  }

  #mark(): void {
    const valid = this.#isValid();
    this.#input.setAttribute("aria-invalid", String(!valid));
    this.#message.textContent = valid ? "" : expected(this.#range);
    this.#message.hidden = valid;
  }
}

function expected({ min, above, max, whole }: Range): string {
  const most = max.toLocaleString("en-US");
  const bounds = above === undefined ? `from ${min} to ${most}` : `above ${above}, at most ${most}`;
  return `a ${whole ? "whole number" : "number"} ${bounds} is needed`;
}
