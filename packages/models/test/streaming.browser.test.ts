/** A page streams a model from the files that its visitor has chosen, and from the storage of its origin. */
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { reference } from "@tiedlora/core";
import { launch, skip } from "../../../test/support/browser.ts";
import { bundle, ISOLATION } from "../../../test/support/bundle.ts";
import { configFrom } from "../src/config.ts";
import { createModel } from "../src/load.ts";
import { saveModel } from "../src/node.ts";
import { IDS, LLAMA } from "./support/models.ts";

describe("a streamed model in a page", () => {
  const directory = mkdtempSync(join(tmpdir(), "tiedlora-streaming-page-"));
  const model = (): string[] => readdirSync(directory).map((name) => join(directory, name));
  let server: Server | undefined;
  let browser: Browser | undefined;

  before(async () => {
    if (skip !== false) return;
    const device = reference();
    const made = createModel(configFrom(LLAMA), { device, seed: 1 });
    await saveModel(made, directory, { dtype: "f16", maxShardBytes: 3000 });
    device.close();
    const script = await bundle(join(import.meta.dirname, "support/streaming-page.ts"));
    server = createServer(({ url }, response) => {
      for (const [name, value] of Object.entries(ISOLATION)) response.setHeader(name, value);
      const [type, body] = url === "/page.js" ? ["text/javascript", script] : ["text/html", '<!doctype html><input type="file" multiple><script type="module" src="/page.js"></script>']; // prettier-ignore
      response.setHeader("content-type", type).end(body);
    });
    await new Promise<void>((listening) => server!.listen(0, "localhost", listening));
    browser = await launch();
  });
  after(async () => {
    rmSync(directory, { recursive: true });
    await browser?.close();
    server?.close();
    server?.closeAllConnections();
  });

  /** A page whose visitor has chosen the files of the model. */
  async function open(): Promise<Page> {
    const page = await browser!.newPage();
    await page.goto(`http://localhost:${(server!.address() as AddressInfo).port}/`);
    await page.waitForFunction("globalThis.jobs !== undefined", undefined, { timeout: 60_000 });
    await page.setInputFiles("input", model());
    return page;
  }

  test(
    "from chosen files and from the storage it has the gradients of the model in memory",
    { skip },
    async () => {
      const page = await open();
      const found: string[] = await page.evaluate(`jobs.gradients(${JSON.stringify(IDS)})`);
      assert.equal(found.length, 3);
      assert.match(found[0]!, /"loss":\d/);
      assert.equal(found[1], found[0]);
      assert.equal(found[2], found[0]);
      await page.close();
    },
  );

  test("reading ends, although garbage is collected all the time", { skip }, async () => {
    const page = await open();
    const bytes = model().reduce((sum, path) => sum + statSync(path).size, 0);
    assert.equal(await page.evaluate("jobs.collecting(20)"), 20 * bytes);
    await page.close();
  });

  test("a chosen file that is written to is named, and has to be chosen again", { skip }, async () => {
    const page = await open();
    const shard = model().find((path) => path.includes("model-00003-of-"))!;
    await page.exposeFunction("changed", () => appendFileSync(shard, "more"));
    const why: string = await page.evaluate(`jobs.afterChange(${JSON.stringify(IDS)})`);
    assert.match(why, /FormatError.*model-00003-of-\d+\.safetensors.*cannot be read.*choose it again/is);
    await page.close();
  });
});
