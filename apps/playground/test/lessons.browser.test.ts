/** Every lesson runs in the page, and prints what it prints in Node. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skip } from "../../../test/support/browser.ts";
import { servePage, until, violations } from "./support/page.ts";

test("all lessons run in the page to their end", { skip }, async (t) => {
  await using served = await servePage();
  const page = await served.browser.newPage({ viewport: { width: 1280, height: 900 } });
  const complaints: string[] = [];
  page.on("pageerror", ({ message }) => complaints.push(message));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  await page.goto(`${served.address}lessons.html`);
  await page.waitForSelector("#list a");
  const links = await page.locator("#list a").all();
  assert.equal(links.length, 9);
  for (const link of links) {
    await link.click();
    const title = (await link.textContent()) ?? "";
    await until(page, `document.querySelector("#lesson h2").textContent === ${JSON.stringify(title)}`);
    await page.click("#run");
    await page.waitForSelector('#output[data-state="done"], #output[data-state="failed"]', {
      timeout: 240_000,
    });
    const output = (await page.textContent("#output")) ?? "";
    assert.match(
      output,
      /(ok: |cases of the suite's core pass)[^]*— the end —$/,
      `${title} printed ${output}`,
    );
    t.diagnostic(`${title}: ${output.split("\n").length} lines`);
  }
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(complaints, []);
});
