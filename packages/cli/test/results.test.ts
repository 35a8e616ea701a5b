/** The results of a sweep are checked before a report is made from them, and no text in them can run as code in the report. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { FormatError } from "@tiedlora/core";
import { writeReport } from "../../experiments/src/node/report.ts";
import { pageMounts, serveStatic } from "../src/serve/static.ts";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { markup, trusted } from "../../experiments/src/report/markup.ts";
import { type RunResult, runId } from "../../experiments/src/sweep/config.ts";
import { expandSweep } from "../../experiments/src/sweep/expand.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import { temporary } from "./support/model-directory.ts";

const SCRIPT = "</pre><script>alert(1)</script>";
const CONFIG = expandSweep(parseSweep("on: { tasks: choice }\nout: x\nvary: { method: lora, rank: 2 }\n", "s"))[1]!; // prettier-ignore

/** A result whose fields a test may spoil. */
interface Spoiled {
  id: unknown;
  config?: Record<string, unknown>;
  curve: unknown;
  test: Record<string, unknown>;
}

function result(edit: (run: Spoiled) => void = () => undefined): RunResult {
  const run: Spoiled & Record<string, unknown> = {
    id: runId(CONFIG),
    config: { ...CONFIG },
    trainable: 10,
    total: 20,
    steps: 3,
    bestStep: 3,
    curve: [[3, 1.5]],
    valid: [[3, 1.4]],
    test: { count: 2, skipped: 0, loss: 1, perplexity: Math.E, scores: { accuracy: 50 } },
    samples: [{ prompt: SCRIPT, text: "<img src=x onerror=alert(1)>", answer: `"'&` }],
    seconds: 1,
    tokensPerSecond: 5,
    device: SCRIPT,
    note: SCRIPT,
  };
  edit(run);
  return run as unknown as RunResult;
}

function folderOf(run: unknown, name: string = runId(CONFIG)): string {
  const folder = temporary();
  mkdirSync(join(folder, "runs"));
  writeFileSync(join(folder, "runs", `${name}.json`), typeof run === "string" ? run : JSON.stringify(run));
  return folder;
}

suite("a result that is not one is refused, with file and field, before anything is made of it", () => {
  const cases: readonly (readonly [what: string, run: unknown, place: string | null])[] = [
    ["a rank that is markup", result((run) => (run.config!["rank"] = SCRIPT)), "config.rank"],
    ["a method that is none", result((run) => (run.config!["method"] = SCRIPT)), "config.method"],
    ["a curve of words", result((run) => (run.curve = [["a", "b"]])), "curve.0.0"],
    ["a loss that is null", result((run) => (run.test["loss"] = null)), "test.loss"],
    ["no config", result((run) => delete run.config), "config"],
    ["another run's", result((run) => (run.id = "x")), "id"],
    ["a file that is cut off", JSON.stringify(result()).slice(0, 90), null],
    ["a number beyond all", JSON.stringify(result()).replace('"trainable":10', '"trainable":1e400'), "trainable"],
  ]; // prettier-ignore
  for (const [what, run, place] of cases) {
    test(what, async () => {
      const folder = folderOf(run);
      const check = (error: unknown): boolean => {
        assert.ok(error instanceof FormatError, String(error));
        assert.equal(error.place, place);
        assert.ok(error.file.endsWith(`${runId(CONFIG)}.json`) && error.message.includes("delete it"));
        return true;
      };
      await assert.rejects(new RunStore(folder).finished(), check);
      await assert.rejects(writeReport(folder, folder, { title: "t" }), check);
    });
  }
});

test("what a result holds is text in the report, whose policy lets its own scripts run alone", async () => {
  const folder = folderOf(result());
  await writeReport(folder, folder, { title: SCRIPT });
  const html = readFileSync(join(folder, "report.html"), "utf8");
  assert.ok(html.includes("&lt;script&gt;alert(1)") && html.includes("&lt;img src=x"));
  assert.doesNotMatch(html, /<img|<script>alert/);
  const scripts = [...html.matchAll(/<script>([^]*?)<\/script>/g)].map(([, text]) => text!);
  const digests = scripts.map(
    (text) => `&#39;sha256-${createHash("sha256").update(text).digest("base64")}&#39;`,
  );
  assert.equal(scripts.length, 1);
  assert.ok(html.includes(`script-src ${digests.join(" ")}; style-src`), "the policy knows other scripts");
});

test("a template escapes what is put into it, but markup", () => {
  const inner = [markup`<b>${"<"}</b>`, "&", [3, `"'`]];
  assert.equal(String(markup`<i title="${'"'}">${inner}</i>${trusted("<hr>")}`), `<i title="&quot;"><b>&lt;</b>&amp;3&quot;&#39;</i><hr>`); // prettier-ignore
});

test("a server answers to this machine's names and to addresses, and sends a policy", async (t) => {
  const folder = temporary();
  writeFileSync(join(folder, "index.html"), "<p>");
  writeFileSync(join(folder, "worker.js"), "");
  mkdirSync(join(folder, "lessons"));
  writeFileSync(join(folder, "lessons/one.js"), "");
  const server = await serveStatic(pageMounts(folder), { port: 0 });
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const { request } = await import("node:http");
  const get = (host: string, path = "/"): Promise<[number, string | undefined]> =>
    new Promise((resolve, reject) => {
      request({ port, host: "127.0.0.1", path, headers: { host } }, (answer) => {
        answer.resume();
        resolve([answer.statusCode!, answer.headers["content-security-policy"] as string | undefined]);
      })
        .on("error", reject)
        .end();
    });
  for (const host of [
    `localhost:${port}`,
    `127.0.0.1:${port}`,
    `[::1]:${port}`,
    "LOCALHOST",
    "192.168.1.7:80",
  ]) {
    const [status, policy] = await get(host);
    assert.equal(status, 200, host);
    assert.match(
      policy!,
      /script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self' blob:/,
    );
  }
  const [status, policy] = await get("localhost", "/lessons/one.js");
  assert.equal(status, 200);
  assert.match(policy!, /script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval'; /, "a lesson writes a backend");
  const [, ofWorker] = await get("localhost", "/worker.js");
  assert.match(ofWorker!, /connect-src 'self' https: http:; /, "it loads models from a hub");
  for (const host of [
    "evil.example",
    `evil.example:${port}`,
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a:b:c",
  ])
    assert.equal((await get(host))[0], 403, host);
});
