/** Reports: means with intervals, the smallest good adapter, tables for other programs, and one self-contained page. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeReport } from "../../experiments/src/node/report.ts";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { chartsOf, type Dot, frontOf } from "../../experiments/src/report/charts.ts";
import { textWidth } from "../../experiments/src/report/figure/drawing.ts";
import { placeLabels } from "../../experiments/src/report/figure/labels.ts";
import { plot } from "../../experiments/src/report/figure/plot.ts";
import { svgFile } from "../../experiments/src/report/figure/svg.ts";
import { runsCsv, summaryCsv } from "../../experiments/src/report/csv.ts";
import { reportHtml } from "../../experiments/src/report/html.ts";
import { interval, pairedDifference } from "../../experiments/src/report/stats.ts";
import { ALL_TASKS, summarize } from "../../experiments/src/report/summary.ts";
import { BASELINE, type RunConfig, runId, type RunResult } from "../../experiments/src/sweep/config.ts";
import { expandSweep } from "../../experiments/src/sweep/expand.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import { tiedlora } from "./support/command.ts";

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
    id: runId(config), config, trainable: SIZE[`${method} ${rank}`] ?? (method === BASELINE ? 0 : rank), total: 1000, steps: 4, bestStep: 4,
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

test("a paired difference has no spread where a seed does the same to both", () => {
  const of = (...values: number[]): Map<number, number> =>
    new Map(values.map((value, seed) => [seed, value]));
  assert.deepEqual(pairedDifference(of(1, 5, 9), of(2, 6, 10)), { mean: -1, half: 0, count: 3 });
  assert.deepEqual(pairedDifference(of(1, 5), new Map([[1, 3], [7, 9]])), { mean: 2, half: null, count: 1 }); // prettier-ignore
  assert.equal(pairedDifference(of(1), new Map([[3, 1]])).count, 0);
});

test("an adapter is certainly within 1 % where the interval of its difference to LoRA is", () => {
  const changed = RESULTS.map((run) => {
    const { method, rank, seed } = run.config;
    const same = method === "tl6" && rank === 8 && run.config.task === "choice" ? 91 : undefined; // LoRA's spread is not its own
    return same === undefined ? run : resultOf(run.config, same + (seed === 0 ? -0.9 : 0.9));
  });
  const [choice, plain] = [changed, RESULTS].map((results) =>
    summarize(results).smallest.find(({ task }) => task === "choice")!,
  );
  assert.deepEqual([choice!.found.method, choice!.certain.method], ["tl6", "lora"], "±0.1 × 12.7 is 1.27");
  assert.deepEqual([plain!.found.method, plain!.certain.method], ["tl6", "tl6"], "-0.5 at both seeds");
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
  assert.deepEqual([groups[0]!.chosen, groups[0]!.variants], [{ lr: 0.5 }, 2]);
});

test("the report says which values won, from how many, and how that was decided", () => {
  const rates = (text: string): string =>
    text.replace("seed: [0, 1]", "seed: [0, 1], lr: [0.1, 0.5], batch: [4, 8]");
  const results = expandSweep(parseSweep(rates(SWEEP), "x")).map((config) => {
    const best = config.task === "choice" || config.method === "lora" ? 0.5 : 0.1;
    const result = resultOf(config, config.lr === best ? 1 : 90); // the worst in the test
    const loss = (config.lr === best ? 0.1 : 0.2) + (config.batch === 8 ? 0 : 0.01);
    return config.method === BASELINE ? result : { ...result, valid: [[4, loss]] as const };
  });
  const summary = summarize(results);
  for (const { task, method, chosen, variants } of summary.groups)
    assert.deepEqual(
      [chosen, variants],
      [{ lr: task === "choice" || method === "lora" ? 0.5 : 0.1, batch: 8 }, 4],
    );
  assert.deepEqual(
    summary.averages.map(({ method, chosen }) => [method, chosen]),
    [2, 8].flatMap(() => [
      ["lora", { lr: 0.5, batch: 8 }],
      ["tl6", { batch: 8 }],
    ]),
    "where tasks disagree, no value is that of all",
  ); // prettier-ignore
  const html = reportHtml(
    {
      title: "t",
      results,
      failures: [],
      summary,
      spec: null,
      missing: [],
      leftOut: [],
      search: null,
      compared: null,
      samples: true,
    },
    { scripts: [], styles: [], digest: () => "" },
  );
  assert.match(
    html,
    /Where lr, batch varied too, .* lowest validation loss .* the test set decided nothing\./,
  );
  assert.match(html, /<th>chosen by validation<\/th>/);
  assert.match(html, /<td>lr 0\.5, batch 8 \(of 4\)<\/td>/);
  const [header, ...rows] = summaryCsv(summary).trimEnd().split("\r\n");
  assert.ok(
    header!.endsWith(
      ",variants,chosen_lr,chosen_steps,chosen_batch,chosen_dropout,chosen_target,chosen_warmup,chosen_weight_decay,chosen_lora_plus," +
        "chosen_optimizer,chosen_beta1,chosen_beta2,chosen_loss,chosen_beta,chosen_label_smoothing,chosen_z_loss," +
        "chosen_temperature,chosen_teacher_weight,chosen_init,chosen_ema",
    ),
  );
  assert.ok(rows[0]!.endsWith(",4,0.5,,8,,,,,,,,,,,,,,,,"), rows[0]);
  for (const row of rows) assert.equal(row.split(",").length, header!.split(",").length);
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
    bySize!.series.map(({ label, points }) => [label, points.map(({ x }) => x)]),
    [
      ["lora", [200, 800]],
      ["tl6", [30, 120]],
    ],
  );
  assert.equal(bySize!.baseline, 10);
  assert.deepEqual(bySize!.front, [{ x: 30, y: 85 }, { x: 120, y: 89.5 }, { x: 200, y: 90 }]); // prettier-ignore
  const [tl6] = charts[1]!.series[1]!.points;
  assert.deepEqual([tl6!.low, tl6!.high, tl6!.seeds], [86 - 12.706, 86 + 12.706, [85, 87]]);
  assert.equal(charts[1]!.series[0]!.points[0]!.high, 100, "an interval ends where its metric ends");
  assert.match(
    tl6!.title,
    /^tl6, rank 2: accuracy 86\.0 \(95 % interval 73\.3 to 98\.7\), 30 parameters; seeds 85\.0, 87\.0$/,
  );
  const curve = charts.at(-1)!.series[0]!.points;
  assert.deepEqual(curve.map(({ x, y }) => [x, y]), [[2, 1.5], [4, 1]]); // prettier-ignore
});

test("a point that a smaller one equals is not on the Pareto front", () => {
  const dot = (x: number, y: number): Dot => ({ x, y, low: null, high: null, seeds: [], title: "" });
  const points = [dot(4, 9), dot(1, 5), dot(2, 5), dot(2, 7), dot(3, 6), dot(9, 9)];
  assert.deepEqual(frontOf(points, true).map(({ x, y }) => [x, y]), [[1, 5], [2, 7], [4, 9]]); // prettier-ignore
  assert.deepEqual(frontOf(points, false).map(({ x, y }) => [x, y]), [[1, 5]]); // prettier-ignore
});

test("names of lines stay inside the chart and clear of each other and of all marks", () => {
  const series = Array.from({ length: 8 }, (_, i) => ({
    name: `method-${i}`,
    points: [[60 + 8 * i, 200 - 9 * i], [180 + 12 * i, 90 - 3 * i], [240 + 9 * i, 60 + (i % 3)]] as const,
  })); // prettier-ignore
  const within = { left: 40, top: 8, right: 420, bottom: 280 };
  const boxes = placeLabels(series, 13, within).map(({ x, y, anchor }, i) => {
    const width = textWidth(series[i]!.name, 13);
    const left = x - width * { start: 0, middle: 0.5, end: 1 }[anchor];
    return { left, right: left + width, top: y - 10, bottom: y + 2 };
  });
  for (const [i, a] of boxes.entries()) {
    assert.ok(a.left >= 40 && a.right <= 420 && a.top >= 8 && a.bottom <= 283, JSON.stringify(a));
    for (const b of boxes.slice(i + 1))
      assert.ok(a.left >= b.right || a.right <= b.left || a.top >= b.bottom || a.bottom <= b.top, `${i}`);
    for (const [x, y] of series.flatMap(({ points }) => points))
      assert.ok(!(x > a.left && x < a.right && y > a.top && y < a.bottom), `${i} covers ${x}, ${y}`);
  }
});

test("a chart as SVG: all marks say their numbers, and text cannot become markup", () => {
  const [chart] = chartsOf(summarize(RESULTS));
  const svg = svgFile(plot({ ...chart!, y: "a <b> & c" }, { width: 420, height: 320, letters: 13 }));
  assert.ok(svg.includes("a &lt;b&gt; &amp; c") && !svg.includes("<b>"));
  assert.equal(svg.match(/<title>(lora|tl6), rank/g)!.length, 4);
  assert.match(svg, /no adapter: 10 \(below\)/);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
});

test("tables: one row a run and one a group, quoted as RFC 4180 says", () => {
  const rows = runsCsv([{ ...RESULTS[2]!, device: 'a "b", c' }]).split("\r\n");
  assert.match(rows[0]!, /^id,model,task,method,rank,seed,lr,.*,test_perplexity,accuracy,seconds/);
  assert.ok(rows[1]!.endsWith(',"a ""b"", c"'));
  assert.equal(rows[0]!.split(",").length, rows[1]!.split(",").length - 1);
  const groups = summaryCsv(summarize(RESULTS)).trimEnd().split("\r\n");
  assert.equal(groups.length, 1 + 8 + 4);
  assert.equal(groups[1], "choice,lora,2,200,accuracy,2,91,12.706,1,0,1,,,,,,,,,,,,,,,,,,,");
});

test("the page holds all it needs, and text from runs cannot become markup", () => {
  const html = reportHtml(
    {
      title: "A <b>",
      results: RESULTS,
      failures: [{ id: "bad", config: RESULTS[0]!.config, message: "the loss is NaN & <more>" }],
      summary: summarize(RESULTS),
      spec: SWEEP,
      missing: [],
      leftOut: ["<i>old</i>"],
      search: null,
      compared: null,
      samples: true,
    },
    { scripts: ["const a = 1;"], styles: ["b{}"], digest: () => "abc=" },
  );
  assert.match(html, /content="default-src &#39;none&#39;; script-src &#39;sha256-abc=&#39;;/);
  assert.ok(html.includes("<h1>A &lt;b&gt;</h1>"));
  assert.ok(html.includes("the loss is NaN &amp; &lt;more&gt;") && html.includes("&lt;i&gt;old"));
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
  assert.equal(html.match(/<svg /g)!.length, 10);
  const paper = join(directory, "paper");
  const again = await tiedlora("report", directory, "--out", paper, "--figures", "svg,pdf");
  assert.equal(again.code, 0, again.info);
  const names = (await readdir(paper)).sort();
  const figures = [
    "rank-all-tasks",
    "rank-choice",
    "rank-summary",
    "size-all-tasks",
    "size-choice",
    "size-summary",
  ];
  const expected = [
    "report.html",
    "runs.csv",
    "summary.csv",
    "tables.tex",
    ...figures.flatMap((name) => [`${name}.pdf`, `${name}.svg`]),
  ];
  assert.deepEqual(names, expected.sort());
  const [pdf, tex] = await Promise.all(["size-choice.pdf", "tables.tex"].map((name) => readFile(join(paper, name), "latin1"))); // prettier-ignore
  assert.match(pdf!, /^%PDF-1\.\d[^]*\/MediaBox \[0 0 640 400\]/);
  assert.ok(tex!.includes("lora & $90.0 \\pm 12.7$ & $80.0 \\pm 12.7$ & 200--800 \\\\"), tex);
  const twice = await tiedlora("report", directory, "--out", paper);
  assert.deepEqual([twice.code, /replace by --force/.test(twice.info)], [1, true], twice.info);
  for (const title of ["before", "after"]) {
    const inPlace = await tiedlora("report", directory, "--title", title);
    assert.equal(inPlace.code, 0, inPlace.info);
    assert.ok((await readFile(join(directory, "report.html"), "utf8")).includes(`<title>${title}`));
  }
  const { code, info } = await tiedlora(
    "report",
    directory,
    "--out",
    join(directory, "new"),
    "--figures",
    "png",
  );
  assert.deepEqual([code, /"png" is not a format; expected svg, pdf/.test(info)], [2, true], info);
});

test("only runs of the sweep's file count; those of an earlier version of it are named and left out", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-report-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = new RunStore(directory);
  assert.equal(await store.prepare(SWEEP), "new");
  for (const result of RESULTS) await store.finish(result);
  await store.fail({ id: RESULTS[5]!.id, config: RESULTS[5]!.config, message: "of the earlier file" });
  const changed = SWEEP.replace("rank: [2, 8], seed: [0, 1]", "rank: [2, 16], seed: [0, 2], lr: 0.002");
  assert.equal(await store.prepare(SWEEP), "same");
  assert.equal(await store.prepare(changed), "changed");
  const now = expandSweep(parseSweep(changed, "x"));
  const [, , ...done] = now.slice(0, -3);
  for (const config of done) await store.finish(resultOf(config, 50));
  const out = join(directory, "out");
  const report = await writeReport(directory, out, { title: "t" });
  const old = RESULTS.filter(({ config }) => config.method !== BASELINE).map(({ id }) => id);
  assert.deepEqual([...new Set(report.leftOut)].sort(), old.sort());
  assert.deepEqual([report.runs, report.missing, report.failures], [2 + done.length, 3, 0]);
  assert.ok(
    report.summary.groups.every(({ quality }) => Math.abs(quality.mean - 50) < 1e-9),
    "nothing else is mixed in",
  );
  const [html, csv] = await Promise.all(
    ["report.html", "runs.csv"].map((name) => readFile(join(out, name), "utf8")),
  );
  for (const id of old) assert.ok(html!.includes(`<td>${id}</td>`) && !csv!.includes(id), id);
  for (const config of done) assert.ok(csv!.includes(runId(config)));
  const { code, info } = await tiedlora("report", directory, "--out", join(directory, "again"));
  assert.equal(code, 0);
  assert.match(info, /note: 3 runs of the sweep's file are missing/);
  assert.match(info, new RegExp(`note: ${report.leftOut.length} runs are left out, because the sweep's file has changed since: \\S`)); // prettier-ignore
  await writeFile(join(directory, "sweep.yaml"), "vary: [");
  await assert.rejects(
    writeReport(directory, out, { title: "t", force: true }),
    /sweep\.yaml, line \d+: not YAML/,
  );
});
