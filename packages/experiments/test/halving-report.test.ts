/** The report of a search: which variants were stopped early, and what they were compared with. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test, type TestContext } from "node:test";
import { writeReport } from "../src/node/report.ts";
import { RunStore } from "../src/node/sweep/store.ts";
import { BASELINE, type Outcome, type RunConfig, runId } from "../src/sweep/config.ts";
import { type Decision, HalvingSchedule } from "../src/sweep/halving.ts";
import { parseSweep } from "../src/sweep/spec.ts";

const FILE = `
on: { model: base, tasks: choice }
out: unused
search: { successive-halving: { min-steps: 10 } }
vary: { method: [lora, tl6], rank: 8, lr: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3] }
train: { steps: 90, warmup: 0 }
`;

/** A result that was not trained: the nearer the rate is to 0.01, the better. */
function pretended(config: RunConfig): Outcome {
  const steps = config.until ?? config.steps;
  const loss = 1 + Math.abs(Math.log(Math.max(config.lr, 1e-9) / 0.01));
  const isWhole = config.until === undefined;
  return {
    id: runId(config), config, trainable: config.method === BASELINE ? 0 : 5, total: 9, steps, bestStep: steps, curve: [],
    valid: [[steps, loss]], seconds: 1, tokensPerSecond: 1, device: "none", note: null,
    ...(isWhole && { test: { count: 1, skipped: 0, loss, perplexity: 2, scores: { accuracy: 50 } }, samples: [] }),
  }; // prettier-ignore
}

async function storeOf(t: TestContext): Promise<RunStore> {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-search-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = new RunStore(directory);
  await store.prepare(FILE);
  return store;
}

/** Performs the runs of the sweep, but only `most` of them. */
async function perform(store: RunStore, most = Infinity): Promise<HalvingSchedule> {
  const schedule = new HalvingSchedule(parseSweep(FILE, "f"), {
    decided: await store.decided(),
    onDecision: (decision) => store.decide(decision),
  });
  schedule.learn(await store.outcomes());
  for (let i = 0, runs = schedule.runs(); i < most && runs.length > 0; i++, runs = schedule.runs()) {
    const outcome = pretended(runs[0]!);
    await store.finish(outcome);
    schedule.learn([outcome]);
  }
  return schedule;
}

void suite("the report of a search by successive halving", () => {
  test("names each variant that was stopped, with its place, and the chosen rate out of all", async (t) => {
    const store = await storeOf(t);
    await perform(store);
    const report = await writeReport(store.directory, store.directory, { title: "t" });
    const { stopped, reached, rungs, steps, gridSteps } = report.search!;
    assert.deepEqual(
      [rungs, gridSteps, report.missing, report.leftOut],
      [[[10], [30], [90]], 2 * 6 * 90, 0, []],
    );
    const html = await readFile(report.files[0]!, "utf8");
    for (const [name, [all, ...rest]] of reached) {
      assert.equal(all, 6);
      assert.ok(
        rest.every((n) => n >= 1 && n < 6),
        rest.join(),
      );
      const own = stopped.filter(({ competition }) => competition === name);
      assert.equal(own.length, 6 - rest.at(-1)!);
      for (const { settings, steps: after, place, among, loss } of own) {
        assert.match(settings, /^lr 0\.\d+$/);
        assert.ok(place > 1 && place <= among && (after === 10 || after === 30));
        const row = [name, settings, `${after} steps`, loss.toFixed(4), `${place} of ${among}`];
        assert.ok(html.includes(row.map((cell) => `<td>${cell}</td>`).join("")), row.join());
      }
    }
    assert.match(
      html,
      new RegExp(
        `<h2>Stopped early</h2>.*${steps} steps, ${((100 * steps) / gridSteps).toFixed(0)} % of`,
        "s",
      ),
    );
    for (const { chosen, variants } of report.summary.groups)
      assert.deepEqual([chosen, variants], [{ lr: 0.01 }, 6]);
    assert.match(html, /<td>lr 0\.01 \(of 6\)<\/td>/);
  });

  test("has a decision for each run that went on; a sweep that is resumed adds the missing ones alone", async (t) => {
    const [whole, cut] = [await storeOf(t), await storeOf(t)];
    await perform(whole);
    await perform(cut, 9);
    const before = await readFile(
      join(cut.directory, "decisions", (await readdir(join(cut.directory, "decisions")))[0]!),
    );
    await perform(cut);
    const decisions = async (store: RunStore): Promise<Decision[]> => {
      const names = (await readdir(join(store.directory, "decisions"))).sort();
      return Promise.all(names.map(async (name) => JSON.parse(await readFile(join(store.directory, "decisions", name), "utf8")) as Decision)); // prettier-ignore
    };
    const all = await decisions(whole);
    assert.deepEqual(await decisions(cut), all);
    const runs = new Set((await whole.outcomes()).map(({ id }) => id));
    assert.ok(all.length > 4 && all.every((one) => one.runs.every((id) => runs.has(id))));
    const [first] = all;
    whole.decide({ ...first!, place: 99 });
    assert.deepEqual(await decisions(whole), all, "the first one stays");
    assert.ok(before.length > 0);
    const names = await readdir(join(whole.directory, "decisions"));
    assert.deepEqual(
      names.filter((name) => !name.endsWith(".json") || name.startsWith(".")),
      [],
    );
  });

  test("says what is missing before the search has ended", async (t) => {
    const store = await storeOf(t);
    const schedule = await perform(store, 13);
    const { missing, runs } = await writeReport(store.directory, store.directory, { title: "t" });
    assert.deepEqual([missing, runs > 0], [schedule.runs().length, true]);
  });
});
