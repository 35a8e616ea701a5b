/**
 * Tests the built site in Chromium, under a path as on a shared server: search finds the guide, the lessons, the commands and
 * the API, pages fit a phone, and nothing is fetched from other servers. The site has the API of one package only, to save time.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { launch, skip } from "../../test/support/browser.ts";
import { buildSite } from "../docs/build.ts";

const BASE = "/docs/tiedlora/";
const TYPES: Readonly<Record<string, string>> = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
};

const folder = mkdtempSync(join(tmpdir(), "tiedlora-site-"));
let server: Server | undefined;
let browser: Browser | undefined;
let broken: readonly string[] = [];

/** A plain static server, which serves files and the index.html of folders. */
function serve(): Promise<Server> {
  const started = createServer(({ url = "/" }, response) => {
    const path = decodeURIComponent(new URL(url, "http://site").pathname);
    try {
      if (!path.startsWith(BASE)) throw new Error(`${path} is not below ${BASE}`);
      const file = path.slice(BASE.length).replace(/(^|\/)$/, "$1index.html");
      const content = readFileSync(join(folder, file));
      response.setHeader("content-type", TYPES[extname(file)] ?? "application/octet-stream").end(content);
    } catch (error) {
      response.writeHead(404).end(String(error));
    }
  });
  return new Promise((resolve) => started.listen(0, "127.0.0.1", () => resolve(started)));
}

before(async () => {
  if (skip !== false) return;
  broken = await buildSite(folder, { base: BASE, api: (name) => name.startsWith("@tiedlora/safetensors") });
  server = await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  server?.closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
});

const origin = (): string => `http://127.0.0.1:${(server!.address() as AddressInfo).port}`;

/** Opens a page of the site, and records every fault: script errors, missing files, requests to other addresses. */
async function open(path: string, width = 1280): Promise<{ page: Page; faults: string[] }> {
  const page = await browser!.newPage({ viewport: { width, height: 800 } });
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(origin() + BASE))
      faults.push(`asked for ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) faults.push(`${response.status()} ${response.url()}`);
  });
  await page.goto(origin() + BASE + path, { waitUntil: "networkidle" });
  return { page, faults };
}

const RESULTS = "[...document.querySelectorAll('#localsearch-list a')].map(({ href }) => href)";
/** How often the list of results is read. For a while it still shows the results of the previous words. */
const LOOKS = 100;

/** Searches as a reader does, and returns the addresses of the results, once one of them matches `expected`. */
async function search(page: Page, words: string, expected: RegExp): Promise<string[]> {
  await page.locator("#local-search button").first().click();
  await page.locator("#localsearch-input").fill(words);
  let found: string[] = [];
  for (let look = 0; look < LOOKS && !found.some((address) => expected.test(address)); look++) {
    await page.waitForTimeout(100);
    const addresses = await page.evaluate<string[]>(RESULTS);
    found = addresses.map((address) => address.slice((origin() + BASE).length));
  }
  await page.keyboard.press("Escape");
  return found;
}

test("the site has no broken link", { skip }, () => assert.deepEqual(broken, []));

test("search finds the guide, a lesson, a command and symbols of the API", { skip }, async () => {
  const { page, faults } = await open("");
  for (const [words, expected] of [
    ["The loss does not fall", /^guide\/troubleshooting\.html/],
    ["tensors are recipes", /^lessons\/01-tensors-are-recipes\.html/],
    ["tiedlora sweep", /^commands\.html#tiedlora-sweep/],
    ["openSafetensors", /^api\/safetensors\/functions\/openSafetensors\.html/],
    ["writeSafetensors", /^api\/safetensors\/functions\/writeSafetensors\.html/],
  ] as const) {
    const found = await search(page, words, expected);
    assert.ok(
      found.some((address) => expected.test(address)),
      `${words}: ${found.join(", ")}`,
    );
  }
  assert.deepEqual(faults, []);
  await page.close();
});

test("a symbol of the API leads to its line in the source", { skip }, async () => {
  const { page, faults } = await open("api/safetensors/functions/openSafetensors.html");
  await page
    .getByRole("link", { name: /^packages\/safetensors\/src\/safetensors\.ts:\d+$/ })
    .first()
    .click();
  await page.waitForURL(/\/source\/packages\/safetensors\/src\/safetensors\.ts\.html#L\d+$/);
  const line = new URL(page.url()).hash;
  assert.match((await page.locator(`[id="${line.slice(1)}"]`).textContent()) ?? "", /openSafetensors/);
  assert.deepEqual(faults, []);
  await page.close();
});

test("every page of the API's members has a link to a source", { skip }, () => {
  const pages = readdirSync(join(folder, "api"), { recursive: true, encoding: "utf8" }).filter(
    (file) => file.endsWith(".html") && !file.endsWith("index.html"),
  );
  assert.ok(pages.length > 30);
  for (const file of pages)
    assert.match(
      readFileSync(join(folder, "api", file), "utf8"),
      /href="[^"]*\/source\/[^"]+\.html#L\d+"/,
      file,
    );
});

test("on a phone pages do not scroll sideways, and the menu has all pages", { skip }, async () => {
  for (const path of ["", "commands.html", "api/safetensors/interfaces/TensorFile.html"]) {
    const { page, faults } = await open(path, 360);
    const excess = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
    assert.ok(excess <= 0, `${path}: ${excess} px wider than the screen`);
    await page.locator(".VPLocalNav .menu").click();
    assert.ok(await page.locator(".VPSidebar").isVisible());
    assert.deepEqual(faults, []);
    await page.close();
  }
});
