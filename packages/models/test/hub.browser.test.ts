/** Models by name in a page: kept in its storage, whole or not at all, and taken up again where a download was cut. */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, after, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext } from "playwright-core";
import { reference } from "@tiedlora/core";
import { launch, skip } from "../../../test/support/browser.ts";
import { bundle } from "../../../test/support/bundle.ts";
import { configFrom } from "../src/config.ts";
import { createModel } from "../src/load.ts";
import { modelFiles } from "../src/save.ts";
import { byteTokenizerFiles } from "./support/byte-tokenizer.ts";
import { HubServer, TOKEN } from "./support/hub-server.ts";

/** More than a piece of the storage, which is 16 MiB. */
const WEIGHTS = Buffer.from(Array.from({ length: 24 * 2 ** 20 }, (_, i) => (i * 31 + (i >> 12)) % 256));
const SMALL = WEIGHTS.subarray(0, 100_000);
const sumOf = (bytes: Uint8Array): number =>
  bytes.reduce((total, byte, i) => (total + byte * ((i % 251) + 1)) % 1_000_003, 0);
const SUM = sumOf(SMALL);
const files = (weights: Uint8Array): Record<string, string | Uint8Array> => ({
  "config.json": "{}",
  "model.safetensors": weights,
  "tokenizer.json": "[]",
  "README.md": "",
});

/** esbuild does not see that the package has another file for browsers, since it names it in "browser" and not in "exports". */
const LIBRARY = join(import.meta.dirname, "../../../node_modules/@huggingface/hub/dist/browser/index.mjs");

let hub: HubServer;
let server: Server | undefined;
let browser: Browser | undefined;
let context: BrowserContext;

before(async () => {
  if (skip !== false) return;
  hub = await HubServer.start({
    "team/small": { files: files(SMALL) },
    "team/large": { files: files(WEIGHTS) },
    "team/gated": { files: files(SMALL), gated: true },
  });
  const page = join(import.meta.dirname, "support/hub-page.ts");
  const script = await bundle(page, { "@huggingface/hub": LIBRARY });
  server = createServer(({ url }, response) => {
    const [type, body] = url === "/page.js" ? ["text/javascript", script] : ["text/html", '<!doctype html><script type="module" src="/page.js"></script>']; // prettier-ignore
    response.setHeader("content-type", type).end(body);
  });
  await new Promise<void>((listening) => server!.listen(0, "localhost", listening));
  browser = await launch();
});
after(async () => {
  if (skip !== false) return;
  await browser?.close();
  server?.close();
  server?.closeAllConnections();
  await hub[Symbol.asyncDispose]();
});
describe("models by name in a page", () => {
  beforeEach(async () => {
    if (skip !== false) return;
    hub.requests.length = 0;
    hub.faults = [];
    context = await browser!.newContext(); // with a storage of its own
  });

  /** Calls a job in a new page of the context. */
  async function inPage<T>(job: string, ...values: unknown[]): Promise<T> {
    const page = await context.newPage();
    try {
      await page.goto(`http://localhost:${(server!.address() as AddressInfo).port}/`);
      await page.waitForFunction("globalThis.jobs !== undefined", undefined, { timeout: 60_000 });
      return await page.evaluate(`jobs.${job}(${values.map((value) => JSON.stringify(value)).join(", ")})`);
    } finally {
      await page.close();
    }
  }

  async function all(content: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of content) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  interface Loaded {
    readonly size: number;
    readonly sum: number;
    readonly seen: readonly string[];
    readonly notes: readonly string[];
  }

  const load = (name = "team/small", options: object = {}): Promise<Loaded> =>
    inPage("load", name, "model.safetensors", { endpoint: hub.endpoint, ...options });

  test(
    "a page keeps a model: it is loaded once, also without the hub, until it is forgotten",
    { skip },
    async () => {
      const { size, sum, seen } = await load();
      assert.deepEqual([size, sum], [SMALL.byteLength, SUM]);
      assert.deepEqual(seen.toSorted(), ["config.json", "model.safetensors", "tokenizer.json"]);
      hub.requests.length = 0;
      assert.deepEqual(await load(), { size, sum, seen: [], notes: [] });
      assert.deepEqual(hub.loaded, []);
      hub.faults.push({ path: /./, times: 99, status: 503 });
      const offline = await load("team/small", { retries: 0 });
      assert.equal(offline.sum, SUM);
      assert.match(offline.notes[0]!, /team\/small: the hub cannot be asked \(status 503\)/);
      await inPage("forget", "team/small");
      await assert.rejects(load("team/small", { retries: 0 }), /out of order \(status 503\)/);
    },
  );

  test("a download that is cut goes on where it was, in the page and in the next one", { skip }, async () => {
    const path = /storage:.*model\.safetensors/;
    // Chromium throws away what it has received and the page has not read when a connection ends: hence a second, and 5 MB more
    // than a piece.
    hub.faults.push(
      { path, times: 1, cut: 1_000_000, cutDelay: 1000 },
      { path, times: 1, cut: 21_000_000, cutDelay: 1000 },
      { path, times: 9, status: 500 },
    );
    await assert.rejects(load("team/large"), /out of order \(status 500\)/);
    hub.faults = [];
    assert.equal((await load("team/large")).sum, sumOf(WEIGHTS));
    const ranges = hub.requests
      .filter(({ sent, host }) => host === "storage" && sent > 0)
      .map(({ headers }) => headers.range);
    assert.equal(ranges.length, 3);
    assert.equal(ranges[0], undefined);
    const resumed = Number(/^bytes=(\d+)-$/.exec(ranges[1] ?? "")?.[1]);
    assert.ok(resumed > 0 && resumed <= 1_000_000, `went on at ${ranges[1]}`);
    assert.equal(ranges[2], `bytes=${16 * 2 ** 20}-`);
  });

  test(
    "what is changed on its way is refused, a large file and a small one, and nothing of it kept",
    { skip },
    async () => {
      const change = (content: Buffer): Buffer => Buffer.concat([content.subarray(0, -1), Buffer.from("!")]);
      hub.faults.push({ path: /cached.*config\.json/, times: 1, change });
      await assert.rejects(load(), /the content of config\.json has the digest [0-9a-f]{40}; expected/);
      hub.faults.push({ path: /storage:.*model/, times: 1, change });
      await assert.rejects(load(), /the content of model\.safetensors has the digest [0-9a-f]{64}; expected/);
      assert.equal((await load()).sum, SUM);
    },
  );

  test("two pages at once load a model once", { skip }, async () => {
    const both = await Promise.all([load(), load()]);
    assert.deepEqual(both.map(({ sum }) => sum), [SUM, SUM]); // prettier-ignore
    assert.equal(hub.loaded.filter((one) => one.startsWith("model.safetensors")).length, 1);
  });

  test("pages at once note and read commits, and each sees a whole one", { skip }, async () => {
    const jobs = [1, 2, 3].map(() => inPage("note", "team/small", 100));
    assert.deepEqual(await Promise.all(jobs), [[], [], []]);
  });

  test("a token opens a gated model, and is not sent to the storage", { skip }, async () => {
    await assert.rejects(load("team/gated"), /access to this model has to be granted \(status 401\)/);
    assert.equal((await load("team/gated", { token: TOKEN })).sum, SUM);
  });

  test("loadPretrained loads a model and its tokenizer", { skip }, async () => {
    const device = reference();
    const config = configFrom({
      model_type: "gpt2",
      vocab_size: 257,
      n_embd: 8,
      n_layer: 1,
      n_head: 1,
      n_positions: 16,
    });
    const files: Record<string, string | Uint8Array> = byteTokenizerFiles();
    for (const [name, content] of modelFiles(createModel(config, { device, seed: 1 })))
      files[name] = typeof content === "string" ? content : await all(content);
    device.close();
    hub.repositories["team/real"] = { files };
    assert.equal(await inPage("complete", "team/real", hub.endpoint), "gpt2 97 98");
  });
});
