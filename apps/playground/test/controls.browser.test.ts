/** What the page's controls promise: they answer at once, refuse what they cannot do, keep the focus, and name what they act on. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Page } from "playwright-core";
import { LEARNING_RATES } from "tiedlora";
import { skip } from "../../../test/support/browser.ts";
import { PRESET_NAMES } from "../src/method.ts";
import { choose, focused, openPage, PHONE, settled, tabTo, textOf, type } from "./support/keyboard.ts";
import { servePage, type ServedPage, until, violations } from "./support/page.ts";

let served: ServedPage | undefined;

before(async () => {
  if (skip === false) served = await servePage();
});

after(() => served?.[Symbol.asyncDispose]());

const CARD = "fieldset.method:first-child";
const enter = async (page: Page, selector: string): Promise<void> => {
  await tabTo(page, selector);
  await page.keyboard.press("Enter");
};

/** Whether an element is in the visible part of the page. */
const inView = (page: Page, selector: string): Promise<boolean> =>
  page.evaluate<boolean>(`(() => {
    const { top, bottom } = document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect();
    return top >= 0 && top < innerHeight && bottom > 0;
  })()`);

test(
  "each preset brings its learning rate; one of the visitor's own stays when a switch is set",
  { skip },
  async () => {
    const { page, complaints } = await openPage(served!);
    const rate = page.locator(`${CARD} [name=lr]`);
    for (const preset of PRESET_NAMES) {
      await page.selectOption(`${CARD} [name=preset]`, preset);
      assert.equal(Number(await rate.inputValue()), LEARNING_RATES[preset], preset);
    }
    await page.selectOption(`${CARD} [name=preset]`, "dora");
    assert.equal(await page.isVisible(`${CARD} [name=A]`), false, "DoRA has no switches");
    await page.selectOption(`${CARD} [name=preset]`, "tl6");
    await page.uncheck(`${CARD} [name=A]`); // TL6 without A is TL4
    assert.equal(await page.locator(`${CARD} [name=preset]`).inputValue(), "tl4");
    assert.equal(Number(await rate.inputValue()), LEARNING_RATES.tl4);
    await rate.fill("0.002");
    await page.uncheck(`${CARD} [name=v]`);
    assert.equal(await rate.inputValue(), "0.002");
    assert.deepEqual(complaints, []);
    await page.close();
  },
);

test("Stop and Pause are heeded before the model has said anything", { skip }, async () => {
  const { page, complaints } = await openPage(served!);
  await type(page, "[name=steps]", "500");
  const click = (...ids: string[]): Promise<string> => {
    const clicks = ids.map((id) => `document.getElementById("${id}").click()`);
    return page.evaluate<string>(`${clicks.join(";")}; document.getElementById("status").textContent`);
  };
  assert.equal(await click("train", "stop"), "stopping …", "the page answers at once");
  await settled(page, "stopped");
  const replies = (...types: string[]): Promise<number> =>
    page.evaluate<number>(`replies.filter(({ type }) => ${JSON.stringify(types)}.includes(type)).length`);
  assert.equal(await replies("completions", "step"), 0);
  await click("train", "pause");
  await settled(page, "paused");
  assert.equal(await replies("completions", "step"), 0);
  await page.fill("#try-prompt", "Once upon");
  await page.press("#try-prompt", "Enter");
  await until(page, 'replies.some(({ type }) => type === "completed")');
  assert.equal(await replies("completions", "step"), 0, "paused, and yet it answers");
  await click("pause");
  await until(page, 'replies.filter(({ type }) => type === "step").length > 3');
  const seen = await replies("step");
  await click("stop");
  await settled(page, "stopped");
  assert.ok((await replies("step")) <= seen + 3, "it stops within a step");
  assert.deepEqual(complaints, []);
  await page.close();
});

test("a field out of range is marked, and nothing is trained until it is mended", { skip }, async () => {
  const { page, complaints } = await openPage(served!);
  for (const [selector, wrong, message] of [
    ["[name=steps]", "0", /^Not started\. steps: a whole number from 1 to 5,000 is needed$/],
    ["[name=batch]", "2.5", /batch: a whole number from 1 to 64 is needed/],
    ["[name=seed]", "", /seed: a whole number from 0 to 1,000,000,000 is needed/],
    [`${CARD} [name=rank]`, "65", /Method 1: rank: a whole number from 1 to 64 is needed/],
    [`${CARD} [name=lr]`, "0", /Method 1: learning rate: a number above 0, at most 1 is needed/],
  ] as const) {
    const field = page.locator(selector);
    const good = await field.inputValue();
    await field.fill(wrong);
    assert.equal(await field.getAttribute("aria-invalid"), "true", selector);
    const described = await field.getAttribute("aria-describedby");
    assert.match(await textOf(page, `#${described}`), /is needed$/);
    assert.equal(await page.isVisible(`#${described}`), true);
    if (wrong === "0") assert.deepEqual(await violations(page), []);
    await enter(page, "#train");
    assert.match(await textOf(page, "#status"), message);
    assert.equal(
      await page.evaluate(`document.activeElement.matches(${JSON.stringify(selector)})`),
      true,
      "it has the focus",
    );
    await field.fill(good);
    assert.equal(await field.getAttribute("aria-invalid"), "false");
  }
  for (const name of ["v", "B", "u", "A"]) await page.uncheck(`${CARD} [name=${name}]`);
  await enter(page, "#train");
  assert.match(await textOf(page, "#status"), /Method 1: Nothing is trained/);
  await page.check(`${CARD} [name=B]`);
  await page.selectOption("[name=task]", "text");
  await enter(page, "#train");
  assert.match(await textOf(page, "#status"), /your text: paste some lines/);
  assert.equal(await page.evaluate('replies.filter(({ type }) => type === "samples").length'), 0);
  assert.deepEqual(complaints, []);
  await page.close();
});

test("an adapter from files stays, is compared, and goes when it is removed", { skip }, async () => {
  const { page, complaints } = await openPage(served!);
  await type(page, "[name=steps]", "2");
  await enter(page, "#train");
  await settled(page, "done");
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.click('[aria-label="Download TL6 · rank 8"]'),
  ]);
  await download.saveAs(`${await download.path()}.zip`);
  await page.setInputFiles("#adapter-files", `${await download.path()}.zip`);
  const row = page.locator("#numbers tr", { hasText: /TL6 · rank 8, from / });
  await row.waitFor();
  await enter(page, "#train");
  await settled(page, "done");
  assert.equal(await row.count(), 1, "it is there after another training");
  assert.match(
    (await row.locator("td").allTextContents()).join(),
    /loaded,\d\.\d+/,
    "with its loss on the same batch",
  );
  const answers = page.locator("#completions tr", { hasText: "TL6 · rank 8, from " }).locator("td");
  assert.equal(await answers.count(), 3);
  for (const answer of await answers.allTextContents()) assert.notEqual(answer, "…");
  await page.selectOption("[name=backend]", "webgpu");
  await until(page, 'document.getElementById("base").textContent.includes("WebGPU,")');
  await settled(page, "idle");
  assert.equal(await row.count(), 1, "it is there on another backend");
  assert.equal(await page.locator("#numbers tr", { hasText: "LoRA · rank 8, trained earlier" }).count(), 1);
  while ((await page.locator("#numbers [aria-label^=Remove]").count()) > 0) {
    await page.locator("#numbers [aria-label^=Remove]").first().press("Enter");
    assert.notEqual(await focused(page), "BODY");
  }
  assert.equal(await focused(page), "adapter-files");
  assert.deepEqual(await page.locator("#try-run option").allTextContents(), ["the base model"]);
  assert.deepEqual(complaints, []);
  await page.close();
});

for (const colorScheme of ["light", "dark"] as const) {
  test(
    `on a ${colorScheme} phone an error is brought into view and focused, and the focus goes back`,
    { skip },
    async () => {
      const { page } = await openPage(served!, { ...PHONE, colorScheme });
      await tabTo(page, "#adapter-files");
      assert.equal(await inView(page, "#setup"), false, "the field is far down");
      await page.setInputFiles("#adapter-files", {
        name: "adapter.zip",
        mimeType: "application/zip",
        buffer: Buffer.from("no zip"),
      });
      await page.waitForSelector("#problem:not([hidden])");
      assert.equal(await page.getAttribute("#problem", "role"), "alert");
      assert.equal(await focused(page), "problem");
      assert.equal(await inView(page, "#problem"), true);
      assert.deepEqual(await violations(page), []);
      await enter(page, "#problem button");
      assert.equal(await focused(page), "adapter-files");
      assert.equal(await inView(page, "#adapter-files"), true);
      assert.ok(
        await page.evaluate("document.documentElement.scrollWidth <= innerWidth"),
        "nothing is wider than the phone",
      );
      await page.close();
    },
  );
}

test(
  "the drawing shows the values of the method it names, also after its card was changed",
  { skip },
  async () => {
    const { page, complaints } = await openPage(served!);
    const drawn = (): Promise<string | null> => page.getAttribute("#network svg", "aria-label");
    await page.locator("#network [role=button]", { hasText: "A" }).first().press("Enter");
    assert.match(await textOf(page, "#status"), /^TL6 · rank 8 has no values yet/);
    await type(page, "[name=steps]", "2");
    await enter(page, "#train");
    await settled(page, "done");
    await page.selectOption(`${CARD} [name=preset]`, "vera");
    assert.equal(await drawn(), "VeRA · rank 8, as set now, not trained on 6 layers");
    await page.locator("#network [aria-label^='u of layer 1']").press("Enter");
    assert.match(await textOf(page, "#status"), /^VeRA · rank 8, as set now, not trained has no values yet/);
    await page.selectOption("#network-run", { label: "TL6 · rank 8" });
    await page.locator("#network [aria-label^='A, one for 6 layers']").press("Enter");
    await page.waitForSelector("dialog[open]");
    assert.match(
      await textOf(page, "#picture-title"),
      /^TL6 · rank 8: A, one for 6 layers, q_proj k_proj v_proj$/,
    );
    assert.equal(await page.isVisible("#problem"), false);
    await page.keyboard.press("Escape");
    assert.match(await focused(page), /^A, one for 6 layers/);
    assert.deepEqual(complaints, []);
    await page.close();
  },
);

/** Changes what WebGPU is for the page's worker. */
const withGpu =
  (script: string) =>
  (page: Page): Promise<unknown> =>
    page.route("**/worker.js", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${script};${await response.text()}` });
    });

test("the backend is the one that is faster here, and the page says why", { skip }, async () => {
  const { page: software, complaints } = await openPage(served!);
  assert.match(
    await textOf(software, "#base"),
    /WebAssembly, .*\(the WebGPU here, .*swiftshader.*, is software too, and slower/i,
  );
  assert.equal(await software.inputValue("[name=backend]"), "cpu");
  assert.equal(await software.isVisible("#problem"), false);
  assert.deepEqual(complaints, []);
  await software.close();

  const named = `const own = GPU.prototype.requestAdapter;
    GPU.prototype.requestAdapter = async function (options) {
      const adapter = await own.call(this, options);
      if (adapter) Object.defineProperty(adapter, "info", { value: { vendor: "acme", architecture: "fast", device: "", description: "" } });
      return adapter;
    }`;
  const { page: hardware } = await openPage(served!, undefined, withGpu(named));
  assert.match(await textOf(hardware, "#base"), /WebGPU, acme fast.* \(a GPU, which is faster/);
  assert.equal(await hardware.inputValue("[name=backend]"), "webgpu");
  await hardware.close();

  const { page: none } = await openPage(served!, undefined, withGpu("delete WorkerNavigator.prototype.gpu"));
  assert.match(await textOf(none, "#base"), /WebAssembly, .*\(this browser offers no WebGPU\)/);
  assert.equal(await none.isVisible("#problem"), false, "all works: nothing to be alarmed at");
  await choose(none, "[name=backend]", "webgpu");
  await until(none, 'document.getElementById("base").textContent.includes("was chosen, but")');
  await settled(none, "idle");
  assert.equal(await none.inputValue("[name=backend]"), "cpu");
  assert.equal(await none.isVisible("#problem"), false);
  await none.close();
});

test("the focus stays where the visitor is, and each button says what it acts on", { skip }, async () => {
  const { page, complaints } = await openPage(served!);
  await type(page, "[name=steps]", "300");
  await enter(page, "#methods > div:last-child button");
  assert.equal(await focused(page), "preset", "in the new card");
  assert.equal(await page.evaluate('document.activeElement.closest("fieldset.method").dataset.run'), "2");
  await enter(page, "[aria-label='Remove method 3, VeRA · rank 8']");
  assert.equal(await focused(page), "Remove method 2, LoRA · rank 8");
  await page.keyboard.press("Enter");
  assert.equal(await focused(page), "Compare with another method");
  await page.keyboard.press("Enter");
  await enter(page, "#train");
  assert.equal(await focused(page), "Train the methods");
  await until(page, 'replies.filter(({ type }) => type === "step").length > 3');
  assert.equal(await focused(page), "Train the methods");
  await enter(page, "#pause");
  await settled(page, "paused");
  assert.equal(await focused(page), "Resume the training");
  await enter(page, "#stop");
  await settled(page, "stopped");
  assert.equal(await focused(page), "Stop the training");
  const names = await page.evaluate<string[]>(
    `[...document.querySelectorAll("button, [role=button]")].filter((one) => one.checkVisibility()).map((one) => one.ariaLabel ?? one.textContent)`,
  );
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
    "no two have one name",
  );
  assert.ok(names.includes("Download TL6 · rank 8 as PEFT"), names.join("; "));
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(complaints, []);
  await page.close();
});
