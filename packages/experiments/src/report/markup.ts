/** HTML that is escaped by construction: a value in a template is treated as text, unless it is markup itself. */

/** Markup. Only `markup` makes it and, for known text, `trusted`. */
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

/**
 * A template of HTML, written verbatim (if the function were called html, Prettier would change the white space): values in
 * it are escaped; the items of a list are written one after another.
 */
export function markup(parts: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(parts.reduce((all, part, i) => all + written(values[i - 1]!) + part));
}

/** Marks text as markup, without escaping it: never use it for the unescaped content of a file. */
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
