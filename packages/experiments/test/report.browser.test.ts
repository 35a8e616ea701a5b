/** The page of a report in Chromium: marks tell their numbers, tables are sorted by any column, and a phone needs no scrolling aside. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { launch, skip } from "../../../test/support/browser.ts";
import { writeReport } from "../src/node/report.ts";
import { RunStore } from "../src/node/sweep/store.ts";
import { runId } from "../src/sweep/config.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { parseSweep } from "../src/sweep/spec.ts";

const SWEEP =
  "on: { tasks: [choice] }\nout: x\nvary: { method: [lora, tl6, vera], rank: [2, 8], seed: [0, 1] }\n";

describe("a report", { skip }, () => {
  let folder: string;
  let browser: Browser;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "tiedlora-report-page-"));
    const store = new RunStore(folder);
    await store.prepare(SWEEP);
    for (const config of expandSweep(parseSweep(SWEEP, "x"))) {
      const { method, rank, seed } = config;
      const size = { lora: 900, tl6: 100, vera: 20 }[method as string] ?? 0;
      await store.finish({
        id: runId(config), config, trainable: size * rank, total: 9000, steps: 4, bestStep: 4, curve: [[4, 1]], valid: [[2, 2], [4, 1]],
        test: { count: 10, skipped: 0, loss: 1, perplexity: Math.E, scores: { accuracy: method === "vera" ? 70 : 90 + seed } },
        samples: [], seconds: 3, tokensPerSecond: 100, device: "cpu", note: null,
      }); // prettier-ignore
    }
    await writeReport(folder, folder, { title: "a sweep" });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true });
  });

  async function open(viewport: {
    width: number;
    height: number;
  }): Promise<{ page: Page; errors: string[] }> {
    const page = await browser.newPage({ viewport, hasTouch: true });
    const errors: string[] = [];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(pathToFileURL(join(folder, "report.html")).href);
    return { page, errors };
  }

  test("marks tell their numbers, and tables are sorted", async () => {
    const { page, errors } = await open({ width: 1200, height: 900 });
    await page.locator('#size-choice [data-tip^="tl6, rank 8"]').hover();
    const tip = "tl6, rank 8: accuracy 90.5 (95 % interval 84.1 to 96.9), 800 parameters; seeds 90.0, 91.0";
    assert.equal(await page.locator(".tip").textContent(), tip);
    const all = page.locator("section", { hasText: "All results" }).locator("table");
    const sizes = (): Promise<string[]> => all.locator("tbody td:nth-child(4)").allTextContents();
    await all.getByRole("button", { name: "trainable" }).click();
    assert.deepEqual(await sizes(), ["0", "40", "160", "200", "800", "1,800", "7,200"]);
    await all.getByRole("button", { name: "trainable" }).click();
    assert.deepEqual((await sizes())[0], "7,200");
    assert.deepEqual(errors, []);
    await page.close();
  });

  test("on a phone, charts and text fit, and a touched mark tells its numbers", async () => {
    const { page, errors } = await open({ width: 390, height: 844 });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 390, `${width} pixels wide`);
    await page.locator('#rank-choice [data-tip^="vera, rank 2"]').tap();
    assert.match((await page.locator(".tip").textContent())!, /^vera, rank 2: accuracy 70\.0/);
    const box = (await page.locator(".tip").boundingBox())!;
    assert.ok(box.x >= 0 && box.x + box.width <= 390, JSON.stringify(box));
    await page.locator("#rank").selectOption("8");
    assert.deepEqual(await page.locator('[data-section="curves"] figure:visible').count(), 1);
    assert.deepEqual(errors, []);
    await page.close();
  });
});
