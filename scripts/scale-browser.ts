/**
 * Measures the memory of a browser tab that trains a quantized model: makes a model of SmolLM2-360M's shape with random weights in
 * NF4, serves it to Chromium, where a page takes steps of TL6 on random tokens, and prints the memory of the page's process.
 *
 *   npm run scale:browser [-- --quantize nf4+int8 --layers N --tokens 64 --steps 2 --directory DIR]
 *
 * The peak is that of resident memory (VmHWM), which counts Chromium's own code and libraries, too.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { configFrom, preset } from "@tiedlora/models";
import { launch } from "../test/support/browser.ts";
import { bundle, ISOLATION } from "../test/support/bundle.ts";
import { makeModel } from "./make-model.ts";

const { values } = parseArgs({
  options: {
    quantize: { type: "string" },
    layers: { type: "string" },
    tokens: { type: "string", default: "64" },
    steps: { type: "string", default: "2" },
    directory: { type: "string", default: tmpdir() },
  },
});
const whole = preset("smollm2-360m")!;
const config = configFrom({
  ...whole.raw,
  num_hidden_layers: values.layers === undefined ? whole.layers : Number(values.layers),
});
const directory = mkdtempSync(join(values.directory, "tiedlora-scale-"));
process.once("SIGINT", () => process.exit(130));
process.once("SIGTERM", () => process.exit(143));
process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
console.log(`making a model of smollm2-360m's shape with ${config.layers} layers in ${directory}`);
await makeModel(config, directory, { quantize: "nf4" });

const script = await bundle(join(import.meta.dirname, "scale-browser-page.ts"));

/** A page that may use threads, its script, and ranges of the model's files. */
const server = createServer(({ url = "/", headers }, response) => {
  for (const [name, value] of Object.entries(ISOLATION)) response.setHeader(name, value);
  if (url === "/") return response.setHeader("content-type", "text/html").end("<!doctype html>");
  if (url === "/page.js") return response.setHeader("content-type", "text/javascript").end(script);
  return void sendRange(basename(url), headers.range, response).catch(() => response.writeHead(404).end());
});
await new Promise<void>((listening) => server.listen(0, "localhost", listening));

async function sendRange(name: string, range: string | undefined, response: ServerResponse): Promise<void> {
  const path = join(directory, name);
  const { size } = await stat(path);
  const [, from = "0", to = String(size - 1)] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
  const bytes = Buffer.alloc(Number(to) - Number(from) + 1);
  const file = await open(path);
  await file.read(bytes, 0, bytes.length, Number(from));
  await file.close();
  response.writeHead(206, { "x-size": String(size) }).end(bytes);
}

const browser = await launch();
const page = await browser.newPage();
await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`);
await page.addScriptTag({ url: "/page.js", type: "module" });
await page.waitForFunction("globalThis.train !== undefined");
const session = await browser.newBrowserCDPSession();
const { processInfo } = await session.send("SystemInfo.getProcessInfo");
const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
/** The largest peak of resident memory among the processes of pages, in MiB. */
const peak = (): number =>
  Math.max(...renderers.map((id) => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))![1]) / 1024)); // prettier-ignore
const before = peak();
const weights = await page.evaluate<number>(
  `load(${JSON.stringify(readdirSync(directory))}, ${JSON.stringify(values.quantize ?? null)})`,
);
const afterLoading = peak();
const found = await page.evaluate<{ heap: number; seconds: number[]; losses: number[] }>(
  `train(${JSON.stringify({ tokens: Number(values.tokens), steps: Number(values.steps) })})`,
);
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
console.log(`TL6 of rank 8 on ${values.tokens} tokens, ${values.steps} steps, Chromium ${browser.version()}`);
console.log(`weights ${mib(weights)}, peak of the heap ${mib(found.heap)}`);
console.log(
  `peak of the tab's process ${peak().toFixed(0)} MiB (${before.toFixed(0)} MiB before the model, ${afterLoading.toFixed(0)} MiB when it was loaded)`,
);
console.log(`steps of ${found.seconds.map((time) => time.toFixed(1)).join(", ")} s, losses ${found.losses.join(", ")}`); // prettier-ignore
await browser.close();
server.close();
