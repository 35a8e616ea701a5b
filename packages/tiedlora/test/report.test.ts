/** Reports: means with intervals, the smallest good adapter, tables for other programs, and one page that needs no other file. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeReport } from "../src/node/report.ts";
import { RunStore } from "../src/node/sweep/store.ts";
import { chartsOf } from "../src/report/charts.ts";
import { runsCsv, summaryCsv } from "../src/report/csv.ts";
import { reportHtml } from "../src/report/html.ts";
import { interval } from "../src/report/stats.ts";
import { ALL_TASKS, summarize } from "../src/report/summary.ts";
import { BASELINE, type RunConfig, runId, type RunResult } from "../src/sweep/config.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { parseSweep } from "../src/sweep/spec.ts";

const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual}, expected ${expected}`);

test("an interval is the mean ± t · s / √n", () => {
  assert.deepEqual(interval([5]), { mean: 5, half: null, count: 1 });
  const three = interval([1, 2, 3]);
  assert.equal(three.mean, 2);
  close(three.half!, 4.303 / Math.sqrt(3)); // s = 1, two degrees of freedom
  close(interval([4, 4, 4, 4]).half!, 0);
  close(interval([0, 2]).half!, 12.706 * Math.sqrt(2 / 2)); // s² = 2
  assert.ok(
    Math.abs(
      interval(Array.from({ length: 100 }, (_, i) => i % 2)).half! - 1.96 * Math.sqrt(0.2525252525 / 100),
    ) < 1e-6,
  );
  assert.throws(() => interval([]), /no values/);
});

const SWEEP = `on: { tasks: [choice, summary] }
out: x
vary: { method: [lora, tl6], rank: [2, 8], seed: [0, 1] }
`;
const SIZE: Readonly<Record<string, number>> = { "lora 2": 200, "lora 8": 800, "tl6 2": 30, "tl6 8": 120 };
const QUALITY: Readonly<Record<string, number>> = { "lora 2": 90, "lora 8": 80, "tl6 2": 85, "tl6 8": 89.5 };

function resultOf(config: RunConfig, score: number): RunResult {
  const { method, rank, seed, task } = config;
  const metric = task === "choice" ? "accuracy" : "ROUGE-L";
  return {
    id: runId(config), config, trainable: SIZE[`${method} ${rank}`] ?? 0, total: 1000, steps: 4, bestStep: 4,
    curve: [[2, 1], [4, 0.5]], valid: method === BASELINE ? [] : [[2, 1 + seed], [4, 0.5 + seed]],
    test: { count: 10, skipped: 0, loss: 1, perplexity: Math.E, scores: { [metric]: score } },
    samples: [{ prompt: 'He said, "<b>" & went', text: "</script><script>alert(1)</script>", answer: "x" }],
    seconds: 3, tokensPerSecond: 100, device: "cpu", note: null,
  }; // prettier-ignore
}

/** Seeds differ by ±1, tasks by 2. */
const RESULTS = expandSweep(parseSweep(SWEEP, "x")).map((config) => {
  const mean = QUALITY[`${config.method} ${config.rank}`] ?? 10;
  const spread = config.method === BASELINE ? 0 : config.seed === 0 ? -1 : 1;
  return resultOf(config, mean + spread + (config.task === "choice" ? 1 : -1));
});

test("groups are means over seeds; averages are means over tasks, seed by seed", () => {
  const { groups, averages, tasks, methods, ranks, baselines } = summarize(RESULTS);
  assert.deepEqual(
    [tasks, methods, ranks],
    [
      ["choice", "summary"],
      ["lora", "tl6"],
      [2, 8],
    ],
  );
  assert.equal(groups.length, 8);
  const choice = groups.find((g) => g.task === "choice" && g.method === "tl6" && g.rank === 8)!;
  close(choice.quality.mean, 90.5);
  close(choice.quality.half!, 12.706); // ±1 around the mean
  assert.deepEqual([choice.trainable, choice.measure.name, choice.quality.count], [120, "accuracy", 2]);
  const all = averages.find((g) => g.method === "lora" && g.rank === 2)!;
  close(all.quality.mean, 90);
  close(all.quality.half!, 12.706);
  assert.equal(baselines.get("summary")!.test.scores["ROUGE-L"], 9);
});

test("the smallest adapter within 1 % of LoRA's best, for all tasks and for each", () => {
  const { smallest } = summarize(RESULTS);
  assert.deepEqual(
    smallest.map(({ task, lora, found }) => [task, lora.rank, found.method, found.rank]),
    [
      [ALL_TASKS, 2, "tl6", 8],
      ["choice", 2, "tl6", 8],
      ["summary", 2, "tl6", 8],
    ],
  );
  assert.deepEqual(summarize(RESULTS.filter(({ config }) => config.method === "tl6")).smallest, []);
});

test("where only the loss was measured, less is better", () => {
  const results = RESULTS.map((run) => ({
    ...run,
    config: { ...run.config, lossOnly: true },
    test: {
      ...run.test,
      scores: run.config.task === "choice" ? run.test.scores : {}, // by likelihood, without generating anything
      perplexity: 100 - Object.values(run.test.scores)[0]!,
    },
  }));
  const { groups, averages, smallest } = summarize(results);
  for (const { measure } of groups) assert.deepEqual(measure, { name: "perplexity", higherIsBetter: false });
  assert.deepEqual(averages, []);
  // LoRA's best perplexity is 9 and 11; TL6's 9.5 and 11.5 are more than 1 % above.
  assert.deepEqual(
    smallest.map(({ found }) => `${found.method} ${found.rank}`),
    ["lora 2", "lora 2"],
  );
});

test("of several learning rates the validation loss decides, not the test", () => {
  const [first] = RESULTS.filter(({ config }) => config.method === "tl6");
  const other: RunResult = {
    ...first!,
    config: { ...first!.config, lr: 0.5 },
    valid: [[4, 0.1]],
    test: { ...first!.test, scores: { accuracy: 1 } },
  };
  const { groups } = summarize([first!, other]);
  assert.equal(groups.length, 1);
  assert.equal(groups[0]!.quality.mean, 1);
});

test("charts have a line for each method, by size and by rank, and learning curves for each rank", () => {
  const charts = chartsOf(summarize(RESULTS));
  const ids = charts.map(({ id }) => id);
  assert.deepEqual(ids, [
    "size-all-tasks", "size-choice", "size-summary", "rank-all-tasks", "rank-choice", "rank-summary",
    "curve-choice-2", "curve-summary-2", "curve-choice-8", "curve-summary-8",
  ]); // prettier-ignore
  const [bySize] = charts;
  assert.deepEqual(
    bySize!.series.map(({ label, points }) => [label, points.map(([x]) => x)]),
    [
      ["lora", [200, 800]],
      ["tl6", [30, 120]],
    ],
  );
  assert.equal(bySize!.baseline, 10);
  assert.equal(new Set(bySize!.series.map(({ color }) => color)).size, 2);
  assert.deepEqual(charts.at(-1)!.series[0]!.points, [[2, 1.5, null], [4, 1, null]]); // prettier-ignore
});

test("tables: one row a run and one a group, quoted as RFC 4180 says", () => {
  const rows = runsCsv([{ ...RESULTS[2]!, device: 'a "b", c' }]).split("\r\n");
  assert.match(rows[0]!, /^id,model,task,method,rank,seed,lr,.*,test_perplexity,accuracy,seconds/);
  assert.ok(rows[1]!.endsWith(',"a ""b"", c"'));
  assert.equal(rows[0]!.split(",").length, rows[1]!.split(",").length - 1);
  const groups = summaryCsv(summarize(RESULTS)).trimEnd().split("\r\n");
  assert.equal(groups.length, 1 + 8 + 4);
  assert.equal(groups[1], "choice,lora,2,200,accuracy,2,91,12.706,1,0");
});

test("the page holds all it needs, and text from runs cannot become markup", () => {
  const html = reportHtml(
    {
      title: "A <b>",
      results: RESULTS,
      failures: [{ id: "bad", config: RESULTS[0]!.config, message: "the loss is NaN & <more>" }],
      summary: summarize(RESULTS),
      spec: SWEEP,
    },
    { scripts: ["const a = 1;"], styles: ["b{}"], digest: () => "abc=" },
  );
  assert.match(html, /content="default-src &#39;none&#39;; script-src &#39;sha256-abc=&#39;;/);
  assert.ok(html.includes("<h1>A &lt;b&gt;</h1>"));
  assert.ok(html.includes("the loss is NaN &amp; &lt;more&gt;"));
  assert.ok(!html.includes("<script>alert"));
  assert.doesNotMatch(html, /(src|href)="(?!data:,")/);
  assert.ok(
    html.includes("const a = 1;") && html.includes("b{}") && html.includes("vary: { method: [lora, tl6]"),
  );
  for (const { id } of RESULTS) assert.ok(html.includes(id));
});

test("a folder's report is written beside its results; one without results says what to do", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-report-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = new RunStore(directory);
  await store.prepare(SWEEP);
  await assert.rejects(
    writeReport(directory, directory, { title: "t" }),
    /has no finished runs; tiedlora sweep writes them/,
  );
  for (const result of RESULTS) await store.finish(result);
  const { files, runs } = await writeReport(directory, join(directory, "out"), { title: "t" });
  assert.deepEqual(
    [files.map((file) => file.slice(directory.length + 5)), runs],
    [["report.html", "runs.csv", "summary.csv"], RESULTS.length],
  );
  const html = await readFile(files[0]!, "utf8");
  assert.ok(html.includes("uPlot") && html.length > 40_000);
});
