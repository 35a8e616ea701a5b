/**
 * Takes the pictures of the page that the documentation shows: before, during and after a training, and on a phone.
 *
 *   npx tsx --conditions=@tiedlora/source apps/playground/screenshots.ts
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { servePage, until } from "./test/support/page.ts";

const out = join(import.meta.dirname, "../../docs/images");
mkdirSync(out, { recursive: true });
await using served = await servePage();
const page = await served.browser.newPage({ viewport: { width: 1280, height: 900 } });
const shoot = async (name: string): Promise<void> => {
  const path = join(out, `playground-${name}.png`);
  await page.screenshot({ path, fullPage: true });
};
const state = (name: string): Promise<unknown> =>
  until(page, `document.body.dataset.state === "${name}"`, 300_000);

await page.goto(served.address);
await state("idle");
await page.selectOption("[name=backend]", "cpu");
await until(page, 'document.getElementById("base").textContent.includes("WebAssembly")');
await state("idle");
await page.fill("[name=steps]", "150");
await page.fill("[name=batch]", "16");
await shoot("before");
await page.click("#train");
await until(
  page,
  'document.querySelector("#numbers tbody td:nth-of-type(2)")?.textContent.startsWith("60 ")',
  300_000,
);
await shoot("during");
await state("done");
await page.waitForTimeout(1000); // the curves are redrawn a few times a second
await shoot("after");
await page.setViewportSize({ width: 390, height: 844 });
await page.waitForTimeout(1000);
await shoot("phone");
console.log(`four pictures are in ${out}`);
