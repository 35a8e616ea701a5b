/** The page as a visitor uses it: opening it, waiting, and the keyboard. */
import assert from "node:assert/strict";
import type { Browser, Page } from "playwright-core";
import { type ServedPage, until } from "./page.ts";

export const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true } as const;
const DESKTOP = { viewport: { width: 1280, height: 900 } } as const;

export interface OpenedPage {
  readonly page: Page;
  /** What it said on the console. */
  readonly complaints: string[];
}

/** Opens the page and waits for its model; `prepare` may change it before. */
export async function openPage(
  { browser, address }: ServedPage,
  options: NonNullable<Parameters<Browser["newPage"]>[0]> = DESKTOP,
  prepare?: (page: Page) => Promise<unknown>,
): Promise<OpenedPage> {
  const page = await browser.newPage(options);
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", ({ message }) => complaints.push(message));
  await page.addInitScript(RECORD);
  await prepare?.(page);
  await page.goto(address);
  await settled(page, "idle");
  return { page, complaints };
}

/** Keeps what the worker sends. */
const RECORD = `
  globalThis.replies = [];
  const Own = Worker;
  globalThis.Worker = class extends Own {
    constructor(...options) {
      super(...options);
      this.addEventListener("message", ({ data }) => replies.push(data));
    }
  };
`;

export const settled = (page: Page, state: string): Promise<void> =>
  until(page, `document.body.dataset.state === ${JSON.stringify(state)}`, 300_000);

/** Presses Tab until the focus is on what matches. */
export async function tabTo(page: Page, selector: string): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await page.evaluate(`document.activeElement.matches(${JSON.stringify(selector)})`)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the keyboard does not reach ${selector}`);
}

/** Chooses an option of a list by the arrow keys. */
export async function choose(page: Page, selector: string, value: string): Promise<void> {
  await tabTo(page, selector);
  const now = (): Promise<unknown> => page.evaluate("document.activeElement.value");
  if ((await now()) === value) return;
  await page.keyboard.press("Home");
  for (let i = 0; i < 20 && (await now()) !== value; i++) await page.keyboard.press("ArrowDown");
  assert.equal(await now(), value);
}

export async function type(page: Page, selector: string, text: string): Promise<void> {
  await tabTo(page, selector);
  await page.keyboard.press("Control+A");
  await page.keyboard.type(text);
}

export const textOf = async (page: Page, selector: string): Promise<string> =>
  (await page.textContent(selector)) ?? "";

/** The accessible name of what has the focus, or its tag. */
export const focused = (page: Page): Promise<string> =>
  page.evaluate<string>(`(() => {
    const { activeElement: at } = document;
    return at.ariaLabel ?? (at.matches("button") ? at.textContent : at.name || at.id || at.tagName);
  })()`);
