/** The report compares methods example by example; a run's result has what that needs. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { parse } from "csv-parse/sync";
import { pairedBootstrap } from "../src/metrics/index.ts";
import { writeReport } from "../src/node/report.ts";
import { RunStore } from "../src/node/sweep/store.ts";
import { isWhole, type Outcome, type RunConfig, runId } from "../src/sweep/config.ts";
import { partsOf } from "../src/sweep/examples.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { parseResult } from "../src/sweep/results.ts";
import { runOne } from "../src/sweep/run.ts";
import { parseSweep } from "../src/sweep/spec.ts";
import { Rng } from "../src/toy-tasks/index.ts";
import { TINY_RUN, tinyContext } from "./support/tiny.ts";

const FILE = `
on: { model: base, tasks: [choice, arithmetic-2] }
out: unused
vary: { method: [lora, tl6], rank: [2, 8], seed: [0, 1, 2] }
`;
const EXAMPLES = 20;

/** Scores of a run that nobody performed: those of tl6 are lower. */
const scoresOf = ({ task, method, rank, seed }: RunConfig): number[] => {
  const rng = new Rng(seed, task, method, rank);
  return Array.from({ length: EXAMPLES }, () => (rng.chance(method === "tl6" ? 0.3 : 0.8) ? 1 : 0));
};

function pretended(config: RunConfig): Outcome {
  const scores = scoresOf(config);
  const percent = (100 * scores.reduce((a, b) => a + b, 0)) / EXAMPLES;
  const name = config.task === "choice" ? "accuracy" : "result";
  return {
    id: runId(config), config, trainable: config.method === "none" ? 0 : 9, total: 9, steps: 1, bestStep: 1, curve: [], valid: [[1, 1]],
    seconds: 1, tokensPerSecond: 1, device: "none", note: null, samples: [],
    test: {
      count: EXAMPLES, skipped: 0, loss: 1, perplexity: 2, scores: { [name]: percent },
      examples: { questions: `of ${config.task}`, scores: scores.join(" ") },
    },
  }; // prettier-ignore
}

async function storeOf(t: TestContext, change = (outcome: Outcome): Outcome => outcome): Promise<RunStore> {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-compared-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = new RunStore(directory);
  await store.prepare(FILE);
  for (const config of expandSweep(parseSweep(FILE, "f"))) await store.finish(change(pretended(config)));
  return store;
}

test("page, CSV and LaTeX have the differences to LoRA of rank 8, by task and over both", async (t) => {
  const store = await storeOf(t);
  const { compared, summary } = await writeReport(store.directory, store.directory, {
    title: "t",
    figures: ["svg"],
  });
  assert.deepEqual(compared!.against, { method: "lora", rank: 8 });
  assert.equal(compared!.comparisons.length, 3 * 3); // both tasks and their mean; lora 2, tl6 2 and 8
  assert.deepEqual(compared!.unpaired, []);
  const own = (name: string): Promise<string> => readFile(join(store.directory, name), "utf8");
  const rows: Record<string, string>[] = parse(await own("comparisons.csv"), { columns: true });
  const [html, latex] = [await own("report.html"), await own("tables.tex")];
  assert.match(html, /<h2>Against lora rank 8<\/h2>/);
  for (const [i, { group, mean, low, high, p, seeds, examples }] of compared!.comparisons.entries()) {
    const { task, method, rank } = group;
    const tasks = task === "all tasks" ? ["arithmetic-2", "choice"] : [task];
    const run = (name: string, of: { method: string; rank: number }, seed: number): number[][] =>
      scoresOf({ task: name, ...of, seed } as RunConfig).map((score) => [score]);
    const expected = pairedBootstrap(
      tasks.map((name) => ({
        ours: [0, 1, 2].map((seed) => run(name, { method, rank }, seed)),
        theirs: [0, 1, 2].map((seed) => run(name, compared!.against, seed)),
        score: ([sum], count) => (100 * sum!) / count,
      })),
    );
    assert.deepEqual({ mean, low, high, p }, expected);
    const lora = compared!.against;
    const of = ({ bySeed }: typeof group): number => [...bySeed.values()].reduce((a, b) => a + b) / 3;
    const other = [...summary.averages, ...summary.groups].find((one) => one.task === task && one.method === lora.method && one.rank === 8)!; // prettier-ignore
    assert.ok(Math.abs(of(group) - of(other) - mean) < 1e-9); // the difference is that of the means in the other tables
    assert.deepEqual([seeds, examples], [3, tasks.length * EXAMPLES]);
    const { difference, low_95, high_95, p: written, against_method, against_rank } = rows[i]!;
    assert.deepEqual([difference, low_95, high_95, written].map(Number), [mean, low, high, p]);
    assert.deepEqual([against_method, against_rank, rows[i]!["task"]], ["lora", "8", task]);
    assert.ok(html.includes(`<td>${low.toFixed(2)} to ${high.toFixed(2)}</td>`));
    assert.ok(latex.includes(`$${mean.toFixed(1)}$ & $[${low.toFixed(1)}, ${high.toFixed(1)}]$`));
    if (method === "tl6") assert.ok(high < 0 && p < 0.05);
  }
});

test("any method and rank can be the one to compare with; one that was not run is an error that lists those that were", async (t) => {
  const store = await storeOf(t);
  const report = await writeReport(store.directory, store.directory, { title: "t", against: { method: "tl6", rank: 2 } }); // prettier-ignore
  assert.ok(report.compared!.comparisons.filter(({ group }) => group.method === "lora").every(({ low }) => low > 0)); // prettier-ignore
  await assert.rejects(
    writeReport(store.directory, store.directory, { title: "t", force: true, against: { method: "tl6", rank: 4 } }), // prettier-ignore
    /no runs of tl6 at rank 4 to compare with; there are lora:2, lora:8, tl6:2, tl6:8/,
  );
});

test("runs that were asked other questions, or have no scores of single examples, are counted and not compared", async (t) => {
  const without = await storeOf(t, (outcome) => {
    if (!isWhole(outcome) || outcome.config.task !== "choice" || outcome.config.method !== "tl6")
      return outcome;
    const { examples, ...rest } = outcome.test;
    return { ...outcome, test: outcome.config.rank === 2 ? rest : { ...rest, examples: { ...examples!, questions: "others" } } }; // prettier-ignore
  });
  const { compared } = await writeReport(without.directory, without.directory, { title: "t" });
  assert.equal(compared!.comparisons.length, 5); // without those of tl6 on choice, and its means over tasks
  assert.deepEqual(compared!.unpaired.map(({ task, method }) => [task, method]), [
    ["all tasks", "tl6"], ["all tasks", "tl6"], ["choice", "tl6"], ["choice", "tl6"],
  ]); // prettier-ignore
  assert.match(await readFile(join(without.directory, "report.html"), "utf8"), /<p>4 of 9 could not be compared/); // prettier-ignore
});

/** The outcome with losses of its examples, which are lower for tl6, and without scores if there are to be none. */
function withLosses(outcome: Outcome, { scores }: { readonly scores: boolean }): Outcome {
  if (!isWhole(outcome)) return outcome;
  const { examples, ...rest } = outcome.test;
  const losses = lossesOf(outcome.config).map((one) => one.join(",")).join(" "); // prettier-ignore
  const own = scores ? { ...examples!, losses } : { questions: examples!.questions, losses };
  return { ...outcome, test: { ...rest, ...(!scores && { scores: {} }), examples: own } };
}

/** For each example, the sum of the losses of its tokens, and their number. */
function lossesOf({ task, method, rank, seed }: RunConfig): [sum: number, tokens: number][] {
  const rng = new Rng(seed, "losses", task, method, rank);
  return Array.from({ length: EXAMPLES }, (_, i) => {
    const tokens = 1 + (i % 5);
    return [tokens * ((method === "tl6" ? 1 : 2) + rng.int(1000) / 4000), tokens];
  });
}

test("losses of single examples are compared too, as means over tokens, and alone where nothing else was measured", async (t) => {
  for (const scores of [true, false]) {
    const store = await storeOf(t, (outcome) => withLosses(outcome, { scores }));
    const { compared } = await writeReport(store.directory, store.directory, {
      title: "t",
      figures: ["svg"],
    });
    assert.deepEqual(compared!.unpaired, []);
    const own = compared!.comparisons.filter(({ measure }) => measure.name === "loss");
    const groups = scores ? 9 : 6; // means over tasks are those of metrics
    assert.deepEqual([own.length, compared!.comparisons.length], [groups, scores ? 2 * groups : groups]);
    const { group, mean, low, high, p } = own.find(({ group: { task, method, rank } }) => `${task} ${method} ${rank}` === "choice tl6 8")!; // prettier-ignore
    const of = (method: string): number[][][] =>
      [0, 1, 2].map((seed) => lossesOf({ task: "choice", method, rank: 8, seed } as RunConfig));
    const expected = pairedBootstrap([
      { ours: of("tl6"), theirs: of("lora"), score: ([sum, tokens]) => sum! / tokens! },
    ]);
    assert.deepEqual({ mean, low, high, p }, expected);
    assert.ok(high < -0.9 && low > -1.1 && group.method === "tl6");
    const [html, latex, csv] = await Promise.all(
      ["report.html", "tables.tex", "comparisons.csv"].map((name) =>
        readFile(join(store.directory, name), "utf8"),
      ),
    );
    assert.ok(html!.includes(`<td>loss</td><td>${mean.toFixed(3)}</td><td>${low.toFixed(3)} to ${high.toFixed(3)}</td>`)); // prettier-ignore
    assert.ok(latex!.includes(`choice, loss & tl6 & 8 & $${mean.toFixed(3)}$ & $[${low.toFixed(3)}, ${high.toFixed(3)}]$`)); // prettier-ignore
    assert.ok(csv!.includes(`lora,8,loss,3,${EXAMPLES},${mean},${low},${high},${p}`));
  }
});

test("a run of a sweep with example-losses has the loss of each test example, and the others have the ids that they had", async () => {
  const file = FILE.replace("out: unused", "out: unused\nevaluate: { example-losses: true }");
  const [configs, others] = [file, FILE].map((text) => expandSweep(parseSweep(text, "f"))) as [RunConfig[], RunConfig[]]; // prettier-ignore
  assert.ok(
    configs.every(({ exampleLosses }, i) => exampleLosses === true && !("exampleLosses" in others[i]!)),
  );
  const context = await tinyContext();
  try {
    const config = { ...TINY_RUN, task: "arithmetic-1", steps: 2, every: 2 };
    for (const lossOnly of [false, true]) {
      const outcome = await runOne({ ...config, lossOnly, exampleLosses: true }, context);
      const other = await runOne({ ...config, lossOnly }, context);
      assert.ok(isWhole(outcome) && isWhole(other));
      const { scores, losses } = outcome.test.examples!;
      assert.equal(scores, other.test.examples?.scores);
      assert.equal(scores === undefined, lossOnly);
      const each = partsOf(losses!);
      const [sum, tokens] = [0, 1].map((part) => each.reduce((total, one) => total + one[part]!, 0));
      assert.equal(each.length, 3);
      assert.ok(Math.abs(sum! / tokens! - outcome.test.loss) < 1e-7);
      assert.ok(Math.abs(outcome.test.loss - other.test.loss) < 1e-5); // sums in another order
      const json = JSON.stringify(outcome);
      assert.deepEqual(parseResult(json, "f", outcome.id), JSON.parse(json));
    }
  } finally {
    context.model.device.close();
  }
});

test("a report without examples quotes neither questions nor answers", async (t) => {
  const samples = [{ prompt: "the question", text: "the text", answer: "the answer" }];
  const store = await storeOf(t, (outcome) => ({ ...outcome, samples }));
  const quotes = async (options: { readonly samples?: boolean }): Promise<boolean[]> => {
    await writeReport(store.directory, store.directory, { title: "t", force: true, ...options });
    const html = await readFile(join(store.directory, "report.html"), "utf8");
    return ["the question", "the text", "the answer"].map((text) => html.includes(text));
  };
  assert.deepEqual(await quotes({}), [true, true, true]);
  assert.deepEqual(await quotes({ samples: false }), [false, false, false]);
});

test("the result of a run has the score of each test example, of which the metric is the mean", async () => {
  const context = await tinyContext();
  try {
    const config = { ...TINY_RUN, task: "arithmetic-1", steps: 2, every: 2 };
    const outcome = await runOne(config, context);
    assert.ok(isWhole(outcome));
    const parts = partsOf(outcome.test.examples!.scores!);
    assert.equal(parts.length, 3);
    assert.equal(outcome.test.scores["result"], (100 * parts.reduce((sum, [one]) => sum + one!, 0)) / 3);
    const json = JSON.stringify(outcome);
    assert.deepEqual(parseResult(json, "f", outcome.id), JSON.parse(json));
    const damaged = json.replace(/"scores":"[^"]*"/, '"scores":"1 0,2"');
    assert.throws(() => parseResult(damaged, "f", outcome.id), /not numbers of examples, as many for each/);
    const again = await runOne({ ...config, testSeed: 1 }, context);
    assert.ok(isWhole(again) && again.test.examples!.questions !== outcome.test.examples!.questions);
  } finally {
    context.model.device.close();
  }
});
