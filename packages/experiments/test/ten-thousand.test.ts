/** Sweeps of ten thousand runs: planning, deciding and reporting take seconds, and no more than 300 MB. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BASELINE, type Outcome, type RunConfig, runId } from "../src/sweep/config.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { HalvingSchedule } from "../src/sweep/halving.ts";
import { parseSweep } from "../src/sweep/spec.ts";

const RATES = Array.from({ length: 2000 }, (_, i) => 0.001 * 1.003 ** i);
const SEARCH = `
on: { model: base, tasks: choice }
out: unused
search: { successive-halving: { min-steps: 10 } }
vary: { method: [lora, vera, tl1, tl2, tl6], rank: 8, lr: [${RATES.join(", ")}] }
train: { steps: 270 }
`;
const GRID = `
on: { model: base, tasks: [choice, summary, translation, extraction, arithmetic] }
out: unused
vary: { method: [lora, vera, tl1, tl2, tl3, tl4, tl5, tl6], rank: [2, 4, 8, 16, 32], seed: [0, 1, 2, 3, 4], lr: [${RATES.slice(0, 10).join(", ")}] }
`;

/** A result that was not trained, with a curve as long as they get. */
function pretended(config: RunConfig): Outcome {
  const loss = 2 + Math.sin(config.lr * 1e4);
  const curve = Array.from({ length: 60 }, (_, i) => [i, 2 - i / 60.7] as const);
  return {
    id: runId(config), config, trainable: config.method === BASELINE ? 0 : 8, total: 9, steps: config.steps, bestStep: 150, curve,
    valid: [[50, 4], [100, 3.5], [150, loss], [200, 3.7]], seconds: 5, tokensPerSecond: 9, device: "none", note: null,
    test: { count: 9, skipped: 0, loss, perplexity: Math.exp(loss), scores: { accuracy: 50 } },
    samples: [1, 2, 3].map(() => ({ prompt: "a question of some length", text: "an answer", answer: "the answer" })),
  }; // prettier-ignore
}

test("a search over ten thousand variants is planned, and decides after each result, in ten seconds", () => {
  const before = process.cpuUsage();
  const schedule = new HalvingSchedule(parseSweep(SEARCH, "f"));
  let runs = 0;
  for (let [next] = schedule.runs(); next !== undefined; [next] = schedule.runs()) {
    schedule.learn([pretended(next)]);
    runs++;
  }
  assert.ok(runs > 13_000 && runs < 20_000, `${runs} runs`);
  assert.equal(schedule.standings().length, 10_000);
  const { user, system } = process.cpuUsage(before);
  assert.ok((user + system) / 1e6 < 10, `${(user + system) / 1e6} s`);
});

test("ten thousand results are reported in ten seconds and 300 MB", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tiedlora-many-"));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of ["runs", "failed"]) mkdirSync(join(folder, name));
  writeFileSync(join(folder, "sweep.yaml"), GRID);
  for (const config of expandSweep(parseSweep(GRID, "f"))) {
    const result = pretended(config);
    writeFileSync(join(folder, "runs", `${result.id}.json`), JSON.stringify(result, null, 1));
  }
  const script = join(import.meta.dirname, "support/report-script.ts");
  const args = ["--import", "tsx", "--conditions=@tiedlora/source", script, folder];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  const { runs, seconds, megabytes } = JSON.parse(stdout || stderr) as Record<string, number>;
  assert.equal(runs, 10_005);
  assert.ok(seconds! < 10 && megabytes! < 300, `${seconds} s, ${megabytes} MB`);
});
