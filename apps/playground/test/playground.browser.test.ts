/** The page as a visitor uses it, by keyboard alone, on both backends; and what it gives out, read in Node. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { memoryFiles } from "@tiedlora/core";
import { unzipSync } from "fflate";
import type { Page } from "playwright-core";
import { loadAdapterFiles } from "tiedlora";
import { loadBase } from "../../../packages/experiments/src/node/base.ts";
import { skip } from "../../../test/support/browser.ts";
import { tasksDuring } from "./support/tasks.ts";
import { choose, openPage, PHONE, settled, tabTo, textOf, type } from "./support/keyboard.ts";
import { servePage, type ServedPage, until, violations } from "./support/page.ts";

const STEPS = 15;
const PROMPT = "English: The bird takes the ball. Velan:";
let served: ServedPage | undefined;

before(async () => {
  if (skip === false) served = await servePage();
});

after(() => served?.[Symbol.asyncDispose]());

const PRESET = "fieldset.method:first-child [name=preset]";

interface Step {
  readonly type: string;
  readonly run: number;
  readonly loss: number;
}

for (const backend of ["webgpu", "cpu"] as const) {
  test(
    `by keyboard on ${backend}: TL6 learns, its adapter is downloaded, loaded again, and the same in Node`,
    { skip },
    async (t) => {
      const { page, complaints } = await openPage(served!);
      await choose(page, "[name=backend]", backend);
      await settled(page, "idle");
      assert.match(await textOf(page, "#base"), backend === "cpu" ? /WebAssembly, \d+ threads/ : /WebGPU/);
      assert.deepEqual(await violations(page), []);
      await type(page, "[name=steps]", String(STEPS));
      await choose(page, PRESET, "lora");
      await choose(page, PRESET, "tl6");
      await tabTo(page, "#train");
      await page.keyboard.press("Enter");
      await settled(page, "training");
      assert.deepEqual(await violations(page), []);
      await settled(page, "done");

      const steps = await page.evaluate<Step[]>(
        'replies.filter(({ type }) => type === "step" || type === "problem")',
      );
      const losses = steps.filter(({ run }) => run === 0).map(({ loss }) => loss);
      assert.equal(losses.length, STEPS);
      const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
      assert.ok(
        mean(losses.slice(-5)) < 0.7 * mean(losses.slice(0, 5)),
        `the loss fell from ${losses[0]} to ${losses.at(-1)}`,
      );
      const answers = await page.evaluate<string[]>(
        '[...document.querySelectorAll(".sample td")].map((cell) => cell.textContent)',
      );
      assert.notEqual(answers[0], answers[1], "the completion changed");
      t.diagnostic(
        `loss ${losses[0]?.toFixed(2)} -> ${losses.at(-1)?.toFixed(2)}; "${answers[0]}" -> "${answers[1]}"`,
      );
      assert.deepEqual(await violations(page), []);

      const zip = await downloaded(page);
      const [chooser] = await Promise.all([
        page.waitForEvent("filechooser"),
        tabTo(page, "#adapter-files").then(() => page.keyboard.press("Enter")),
      ]);
      await chooser.setFiles({ name: "adapter.zip", mimeType: "application/zip", buffer: Buffer.from(zip) });
      await until(page, 'replies.some(({ type }) => type === "adapterLoaded")');
      const trained = await logitsOf(page, "0");
      assert.deepEqual(
        await logitsOf(page, "100"),
        trained,
        "the adapter that was loaded answers as the one that was saved",
      );
      compare(await logitsInNode(zip), trained);
      assert.deepEqual(complaints, []);
      await page.close();
    },
  );
}

for (const backend of ["webgpu", "cpu"] as const) {
  test(
    `four methods train side by side on ${backend}, and the page answers meanwhile`,
    { skip },
    async (t) => {
      const { page, complaints } = await openPage(served!);
      await choose(page, "[name=backend]", backend);
      await settled(page, "idle");
      const steps = backend === "cpu" ? 10 : 2; // software WebGPU is slow
      await type(page, "[name=steps]", String(steps));
      const another = page.locator("text=Compare with another");
      while (await another.isEnabled()) await another.click();
      assert.equal(await page.locator("fieldset.method").count(), 4);
      const { count, longest, longestElapsed } = await tasksDuring(served!.browser, page, async () => {
        await page.click("#train");
        await settled(page, "training");
        await settled(page, "done");
      });
      t.diagnostic(
        `${count} tasks of the main thread, the longest of ${longest.toFixed(1)} ms (${longestElapsed.toFixed(1)} elapsed)`,
      );
      assert.ok(count > 4 * steps, `the trace holds the page's work: ${count} tasks`);
      assert.ok(longest > 0 && longest < 50, `the longest task keeps the main thread for ${longest} ms`);
      assert.deepEqual(complaints, []);
      await page.close();
    },
  );
}

test(
  "a training can be paused, continued and stopped; values and prompts can be looked at meanwhile",
  { skip },
  async () => {
    const { page, complaints } = await openPage(served!, PHONE);
    await choose(page, "[name=backend]", "cpu");
    await settled(page, "idle");
    assert.deepEqual(await violations(page), []);
    assert.ok(
      await page.evaluate("document.documentElement.scrollWidth <= innerWidth"),
      "nothing is wider than a phone",
    );
    await type(page, "[name=steps]", "2000");
    await page.click("#train");
    await until(page, 'replies.filter(({ type }) => type === "step").length > 4');
    await page.click("#pause");
    await settled(page, "paused");
    await page.fill("#try-prompt", PROMPT);
    await page.click("#try-button");
    await until(page, 'replies.some(({ type }) => type === "completed")');
    const steps = await page.evaluate('replies.filter(({ type }) => type === "step").length');
    await page.locator("#network .part").first().press("Enter");
    await page.waitForSelector("dialog[open]");
    assert.deepEqual(await violations(page), []);
    await page.keyboard.press("Escape");
    assert.ok(
      Number(await page.evaluate('replies.filter(({ type }) => type === "step").length')) <=
        Number(steps) + 1,
    );
    await page.click("#pause");
    await settled(page, "training");
    await page.click("#stop");
    await settled(page, "stopped");
    assert.deepEqual(complaints, []);
    await page.close();
  },
);

test("what cannot work is explained in the page", { skip }, async () => {
  const { page } = await openPage(served!);
  await page.setInputFiles("#adapter-files", {
    name: "adapter.zip",
    mimeType: "application/zip",
    buffer: Buffer.from("no zip"),
  });
  await page.waitForSelector("#problem:not([hidden])");
  await page.setInputFiles("#adapter-files", {
    name: "adapter_config.json",
    mimeType: "application/json",
    buffer: Buffer.from("{}"),
  });
  await until(page, 'document.getElementById("problem").textContent.includes("peft_type")');
  await page.close();
});

/** Downloads the first method's adapter by keyboard. */
async function downloaded(page: Page): Promise<Uint8Array> {
  await tabTo(page, "#numbers button");
  const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  return new Uint8Array(readFileSync(await download.path()));
}

/** What the model of the page says after the prompt, with the adapter of that number. */
async function logitsOf(page: Page, run: string): Promise<number[]> {
  await page.evaluate('(replies = replies.filter(({ type }) => type !== "completed"))');
  await page.selectOption("#try-run", run);
  await page.fill("#try-prompt", PROMPT);
  await page.click("#try-button");
  await until(page, 'replies.some(({ type }) => type === "completed")');
  return page.evaluate<number[]>('[...replies.find(({ type }) => type === "completed").logits]');
}

async function logitsInNode(zip: Uint8Array): Promise<number[]> {
  const device = await cpu();
  try {
    const { model, tokenizer } = await loadBase({ device });
    await loadAdapterFiles(model, memoryFiles(new Map(Object.entries(unzipSync(zip)))));
    const ids = tokenizer.encode(PROMPT);
    return [...(await model.logits(model.hidden([ids]).narrow(1, ids.length - 1, 1)).data())];
  } finally {
    device.close();
  }
}

function compare(actual: readonly number[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  const largest = Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)));
  assert.ok(largest < 2e-5, `logits in Node differ by ${largest}`);
}
