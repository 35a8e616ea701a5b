/** Both backends in headless Chromium: bundles support/page.ts, serves it, and calls its jobs. */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, skip } from "./browser.ts";
import { bundle, ISOLATION } from "./bundle.ts";
import { seed } from "./conformance.ts";
import { LONG, part } from "./effort.ts";
import { type CaseResult, fineTune, type PageBackend } from "./page.ts";

/**
 * An ordinary page; a cross-origin isolated one, which may share memory among threads; and an isolated one whose policy
 * forbids workers from blobs.
 */
export type Path = "/" | "/isolated" | "/no-workers";

const HEADERS: { readonly [P in Path]: Readonly<Record<string, string>> } = {
  "/": {},
  "/isolated": ISOLATION,
  "/no-workers": {
    ...ISOLATION,
    "content-security-policy": "script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval'; worker-src 'self'",
  },
};

function serve(script: string): Promise<Server> {
  const server = createServer(({ url }, response) => {
    if (url === "/script.js") response.setHeader("content-type", "text/javascript").end(script);
    else {
      const headers = HEADERS[url as Path] ?? {};
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      response.setHeader("content-type", "text/html");
      response.end('<!doctype html><meta charset="utf-8"><script type="module" src="/script.js"></script>');
    }
  });
  return new Promise((listening) => server.listen(0, "localhost", () => listening(server)));
}

/** Evaluates `code`, which may use the page's `jobs`, in a new page. */
export type InPage = <T>(path: Path, code: string) => Promise<T>;

/** Starts Chromium before the tests of the calling file, and stops it after them. */
export function usePages(): InPage {
  let browser: Browser | undefined;
  let server: Server | undefined;
  before(async () => {
    if (skip !== false) return;
    server = await serve(await bundle(join(import.meta.dirname, "page.ts")));
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
    server?.closeAllConnections();
  });
  return async <T>(path: Path, code: string): Promise<T> => {
    const page = await browser!.newPage();
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    try {
      await page.goto(`http://localhost:${(server!.address() as AddressInfo).port}${path}`);
      await page.waitForFunction("globalThis.jobs !== undefined", undefined, { timeout: 60_000 });
      const result: T = await page.evaluate(code);
      assert.deepEqual(errors, []);
      return result;
    } finally {
      await page.close();
    }
  };
}

/** Tests that fine-tuning in a page gives the same losses as the reference in Node. */
export function testFineTuning(inPage: InPage, backend: PageBackend, path: Path, steps: number): void {
  test(`fine-tuning in a page at ${path} on ${backend} gives the reference's losses`, { skip }, async () => {
    const losses = await inPage<number[]>(path, `jobs.fineTune(${JSON.stringify(backend)}, ${steps})`);
    const wanted = await fineTune("reference", steps);
    losses.forEach((loss, s) => {
      assert.ok(Math.abs(loss - wanted[s]!) < 1e-4 * wanted[s]!, `step ${s}: ${loss}, not ${wanted[s]}`);
    });
    assert.ok(losses.at(-1)! < 0.9 * losses[0]!, `from ${losses[0]} to ${losses.at(-1)}`);
  });
}

/** Runs the suite's core in a page, as several tests, so that a failure shows how far the suite came. */
export function testSuite(
  inPage: InPage,
  backend: PageBackend,
  path: Path,
  options: { readonly parts: number; readonly effort: number },
): void {
  const { parts } = options;
  const effort = part(options.effort);
  for (let part = 0; part < parts; part++) {
    const name = `the suite's core in a page at ${path} on ${backend}, part ${part + 1} of ${parts}`;
    test(name, { skip }, async () => {
      const call = `jobs.runSuite(${JSON.stringify(backend)}, ${JSON.stringify({ part, parts, effort, ...seed() })})`;
      const results = await inPage<CaseResult[]>(path, call);
      assert.ok(results.length > 0);
      const failures = results.filter(({ error }) => error !== undefined);
      assert.deepEqual(failures, []);
    });
  }
}

/** Runs a share of the cases recorded from PyTorch in a page. */
export function testRecorded(inPage: InPage, backend: PageBackend, share: number): void {
  const some = LONG ? 3 * share : part(share);
  test(`cases recorded from PyTorch in a page on ${backend}`, { skip }, async () => {
    const results = await inPage<CaseResult[]>("/", `jobs.runRecorded(${JSON.stringify(backend)}, ${some})`);
    assert.ok(results.length > 0);
    assert.deepEqual(
      results.filter(({ error }) => error !== undefined),
      [],
    );
  });
}
