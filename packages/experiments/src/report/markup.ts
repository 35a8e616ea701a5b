/** HTML that is escaped by construction: what is put into a template is text, unless it is markup itself. */

/** Markup. Only `markup`, and `trusted` for what is known, make it. */
export class Markup {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  toString(): string {
    return this.#text;
  }
}

export type Content = string | number | Markup | readonly Content[];

/** A template of HTML, written as it stands (Prettier would move white space about if it were called html): values in it are escaped; lists are written one after another. */
export function markup(parts: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(parts.reduce((all, part, i) => all + written(values[i - 1]!) + part));
}

/** Markup from elsewhere, as it is: never of what a file holds. */
export function trusted(text: string): Markup {
  return new Markup(text);
}

function written(value: Content): string {
  if (value instanceof Markup) return String(value);
  if (typeof value === "object") return value.map(written).join("");
  return String(value).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
