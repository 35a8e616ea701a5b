/** The built page, served, and a browser for it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser, Page } from "playwright-core";
import { pageMounts, serveStatic } from "../../../../packages/cli/src/serve/static.ts";
import { launch } from "../../../../test/support/browser.ts";

export interface ServedPage {
  readonly address: string;
  readonly browser: Browser;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Builds the page into a new folder, serves it and starts a browser. */
export async function servePage(): Promise<ServedPage> {
  const folder = mkdtempSync(join(tmpdir(), "playground-"));
  const script = join(import.meta.dirname, "../../build.ts");
  const built = spawnSync(
    process.execPath,
    ["--import", "tsx", "--conditions=@tiedlora/source", script, "--out", folder],
    { encoding: "utf8" },
  );
  assert.equal(built.status, 0, built.stderr);
  const server = await serveStatic(pageMounts(folder), { port: 0 });
  const browser = await launch();
  return {
    address: `http://localhost:${(server.address() as AddressInfo).port}/`,
    browser,
    [Symbol.asyncDispose]: async () => {
      await browser.close();
      server.close();
      server.closeAllConnections();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const POLL_MS = 50;

/**
 * Waits until an expression is true in the page. By asking again and again: what Playwright offers evaluates text inside of
 * the page, which its content security policy does not allow.
 */
export async function until(page: Page, condition: string, limitMs = 60_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await page.evaluate<boolean>(`Boolean(${condition})`))) {
    assert.ok(performance.now() < end, `within ${limitMs} ms: ${condition}`);
    await sleep(POLL_MS);
  }
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe-core finds wrong for people who do not see the page or do not use a mouse. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate<{ id: string; nodes: { html: string }[] }[]>(
    "axe.run().then(({ violations }) => violations)",
  );
  return found.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
}
