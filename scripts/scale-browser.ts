/**
 * Measures the memory of a browser tab that trains a quantized model: makes a model of SmolLM2-360M's shape with random weights in
 * NF4, serves it to Chromium, where a page takes steps of TL6 on random tokens, and prints the memory of the page's process.
 *
 *   npm run scale:browser [-- --quantize nf4+int8 --layers N --tokens 64 --steps 2 --directory DIR]
 *
 * The peak is that of resident memory (VmHWM), which counts Chromium's own code and libraries, too. No developer tools are attached: they
 * would keep what the page fetches.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { configFrom, preset } from "@tiedlora/models";
import { openAlone } from "../test/support/browser.ts";
import { bundle, ISOLATION } from "../test/support/bundle.ts";
import { makeModel } from "./make-model.ts";
import type { Task, Trained } from "./scale-browser-page.ts";

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

const task: Task = {
  names: readdirSync(directory),
  quantize: (values.quantize ?? null) as Task["quantize"],
  tokens: Number(values.tokens),
  steps: Number(values.steps),
};

/** A page that may use threads, its script, ranges of the model's files, and what the page says. */
const server = createServer((request, response) => {
  const { url = "/", headers } = request;
  for (const [name, value] of Object.entries(ISOLATION)) response.setHeader(name, value);
  if (url === "/")
    return response
      .setHeader("content-type", "text/html")
      .end('<script type="module" src="/page.js"></script>');
  if (url === "/page.js") return response.setHeader("content-type", "text/javascript").end(script);
  if (url === "/task") return response.setHeader("content-type", "application/json").end(JSON.stringify(task)); // prettier-ignore
  if (url.startsWith("/said/")) return void hear(basename(url), request, response);
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

const profile = join(directory, "..", `${basename(directory)}-profile`);
const browser = openAlone(`http://localhost:${(server.address() as AddressInfo).port}/`, profile);
process.once("exit", () => {
  if (browser.exitCode === null && browser.signalCode === null) process.kill(-browser.pid!, "SIGKILL");
  rmSync(profile, { recursive: true, force: true });
});
browser.once("exit", (code, signal) => {
  console.error(`Chromium ended (${code ?? signal}) before the page was done`);
  process.exit(1);
});

/** The largest peak of resident memory among the browser's processes of pages, in MiB. */
function peak(): number {
  const renderers = readdirSync("/proc").filter((id) => {
    if (!/^\d+$/.test(id)) return false;
    try {
      return readFileSync(`/proc/${id}/cmdline`, "utf8").includes("--type=renderer") && isOfBrowser(id);
    } catch {
      return false; // it has just ended
    }
  });
  return Math.max(...renderers.map((id) => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))![1]) / 1024)); // prettier-ignore
}

/** Whether a process descends from the browser's. */
function isOfBrowser(id: string): boolean {
  for (let at = id; at !== "0"; at = /PPid:\s+(\d+)/.exec(readFileSync(`/proc/${at}/status`, "utf8"))![1]!)
    if (Number(at) === browser.pid) return true;
  return false;
}

const peaks: Record<string, number> = {};
let weights = 0;

async function hear(what: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const part of request) body += String(part);
  peaks[what] = peak();
  response.end();
  if (what === "loaded") weights = JSON.parse(body) as number;
  if (what === "trained") finish(JSON.parse(body) as Trained);
  if (what !== "failed") return;
  console.error(JSON.parse(body));
  process.exit(1);
}

function finish({ heap, seconds, losses }: Trained): void {
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const tab = (what: string): string => `${peaks[what]!.toFixed(0)} MiB`;
  console.log(`TL6 of rank 8 on ${task.tokens} tokens, ${task.steps} steps`);
  console.log(`weights ${mib(weights)}, peak of the heap ${mib(heap)}`);
  console.log(`peak of the tab's process ${tab("trained")} (${tab("begun")} before the model, ${tab("loaded")} when it was loaded)`); // prettier-ignore
  console.log(`steps of ${seconds.map((time) => time.toFixed(1)).join(", ")} s, losses ${losses.join(", ")}`); // prettier-ignore
  process.exit(0);
}
