/** Small helpers for making elements. */
type Child = Node | string | null;
type Attributes = Readonly<Record<string, string | number | boolean | null | undefined>>;

function fill<T extends Element>(element: T, attributes: Attributes, children: readonly Child[]): T {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** The element with this ID. Throws if there is none, or if it is of another class. */
export function byId(id: string): HTMLElement;
export function byId<T extends HTMLElement>(id: string, of: new () => T): T;
export function byId(id: string, of: new () => HTMLElement = HTMLElement): HTMLElement {
  const element = document.getElementById(id);
  if (!(element instanceof of)) throw new Error(`the page has no ${of.name} #${id}`);
  return element;
}

/**
 * Turns a button on or off. A button that is off keeps the focus, which a disabled one would lose; so its listeners must
 * check `isOff`.
 */
export function switchButton(button: HTMLButtonElement, on: boolean): void {
  button.setAttribute("aria-disabled", String(!on));
}

export const isOff = (button: HTMLButtonElement): boolean => button.ariaDisabled === "true";

export const count = (value: number): string => value.toLocaleString("en-US");

export function bytes(value: number): string {
  return value < 1e6 ? `${(value / 1e3).toFixed(0)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}
