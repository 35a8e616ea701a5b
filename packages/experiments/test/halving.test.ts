/** Successive halving: who goes on follows from the losses alone, and who stopped early can be told why. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";
import fc from "fast-check";
import { statusOf } from "../src/node/sweep/status.ts";
import { RunStore } from "../src/node/sweep/store.ts";
import { Competition, type Promotion } from "../src/sweep/competition.ts";
import { BASELINE, type Outcome, type RunConfig, runId, wholeId } from "../src/sweep/config.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { type Decision, HalvingSchedule } from "../src/sweep/halving.ts";
import { rungsOf } from "../src/sweep/search.ts";
import { parseSweep } from "../src/sweep/spec.ts";

const FILE = `
on: { model: base, tasks: [choice, summary] }
out: runs/rates
search: { successive-halving: { min-steps: 10, factor: 3 } }
vary:
  method: [lora, tl6]
  rank: 8
  seed: [0, 1]
  lr: { lora: [0.001, 0.003, 0.01, 0.03], default: [0.003, 0.01, 0.03, 0.1, 0.3, 1] }
train: { steps: 100, warmup: 0 }
`;

/** All promotions of a competition in which the loss of a trial at a rung is known beforehand, told in the given order. */
function played(
  losses: readonly (readonly number[])[],
  factor: number,
  order: readonly number[],
): Promotion[] {
  const rungs = losses[0]!.length;
  const competition = new Competition(losses.length, { rungs, factor });
  return order.flatMap((code) => {
    const [trial, rung] = [Math.floor(code / rungs), code % rungs];
    return competition.tell(trial, rung, losses[trial]![rung]!);
  });
}

const LOSS = fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 0, max: 30 }) }, { weight: 1, arbitrary: fc.constant(Infinity) }); // prettier-ignore
const GAME = fc
  .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 2, max: 4 }))
  .chain(([rungs, factor]) =>
    fc.record({
      losses: fc.array(fc.array(LOSS, { minLength: rungs, maxLength: rungs }), {
        minLength: 1,
        maxLength: 30,
      }),
      factor: fc.constant(factor),
    }),
  )
  .chain(({ losses, factor }) => {
    const codes = Array.from({ length: losses.length * losses[0]!.length }, (_, i) => i);
    return fc.record({
      losses: fc.constant(losses),
      factor: fc.constant(factor),
      order: fc.shuffledSubarray(codes, { minLength: codes.length }),
      part: fc.integer({ min: 0, max: codes.length }),
    });
  });

const key = ({ trial, rung }: Promotion): string => `${trial}@${rung}`;
const sortedKeys = (promotions: readonly Promotion[]): string[] => promotions.map(key).sort();

suite("a competition", () => {
  test("comes to the same promotions, for the same reasons, in whatever order losses arrive", () => {
    fc.assert(
      fc.property(GAME, ({ losses, factor, order, part }) => {
        const inOrder = played(
          losses,
          factor,
          [...order].sort((a, b) => a - b),
        );
        const shuffled = played(losses, factor, order);
        const sorted = (all: readonly Promotion[]): Promotion[] =>
          [...all].sort((a, b) => (key(a) < key(b) ? -1 : 1));
        assert.deepEqual(sorted(shuffled), sorted(inOrder));
        const known = new Set(sortedKeys(shuffled));
        assert.equal(known.size, shuffled.length, "nothing is promoted twice");
        for (const one of sortedKeys(played(losses, factor, order.slice(0, part))))
          assert.ok(known.has(one), "more losses take no promotion back");
      }),
    );
  });

  test("promotes the best share of every beginning of a rung, and nothing else", () => {
    fc.assert(
      fc.property(GAME, ({ losses, factor, order }) => {
        const rungs = losses[0]!.length;
        if (rungs === 1) return;
        const got = new Set(played(losses, factor, order).filter(({ rung }) => rung === 0).map(({ trial }) => trial)); // prettier-ignore
        const expected = new Set<number>();
        const ranked = (j: number): number[] =>
          Array.from({ length: j }, (_, trial) => trial)
            .filter((trial) => losses[trial]![0] !== Infinity)
            .sort((a, b) => losses[a]![0]! - losses[b]![0]! || a - b);
        for (let j = 1; j <= losses.length; j++)
          for (const trial of ranked(j).slice(0, Math.floor(j / factor))) expected.add(trial);
        if (expected.size === 0) for (const trial of ranked(losses.length).slice(0, 1)) expected.add(trial);
        assert.deepEqual(got, expected);
      }),
    );
  });

  test("does not wait for a whole rung", () => {
    const competition = new Competition(100, { rungs: 2, factor: 3 });
    assert.deepEqual([competition.tell(1, 0, 5), competition.tell(0, 0, 7)], [[], []]);
    assert.deepEqual(competition.tell(2, 0, 9), [
      { trial: 1, rung: 0, loss: 5, place: 1, among: 3, keeps: 1 },
    ]);
  });

  test("keeps a promotion of an earlier process, though the loss is another one now", () => {
    const of = (kept: boolean): string[] => {
      const competition = new Competition(3, { rungs: 2, factor: 3 }, (trial) => kept && trial === 2);
      return [3, 1, 2].flatMap((loss, trial) => sortedKeys(competition.tell(trial, 0, loss)));
    };
    assert.deepEqual([of(false), of(true)], [["1@0"], ["1@0", "2@0"]]);
  });
});

/** The result of a run whose validation loss is a function of its config; nothing was trained. */
function pretended(config: RunConfig, loss: (config: RunConfig) => number): Outcome {
  const steps = config.until ?? config.steps;
  return {
    id: runId(config), config, trainable: 1, total: 1, steps, bestStep: steps, curve: [], valid: [[steps, loss(config)]],
    seconds: 1, tokensPerSecond: 1, device: "none", note: null,
    ...(config.until === undefined && { test: { count: 1, skipped: 0, loss: loss(config), perplexity: 1, scores: {} }, samples: [] }),
  }; // prettier-ignore
}

/** Best at 0.01 for lora, at 0.1 for others; the seed adds a little. */
const bowl = ({ method, lr, seed, until }: RunConfig): number =>
  1 +
  Math.log(lr / (method === "lora" ? 0.01 : 0.1)) ** 2 +
  seed / 100 +
  (until === undefined ? 0 : 10 / until);

/** Performs runs until there are none left, `agents` at once, of which the one named by `pick` ends next. */
function performed(
  text: string,
  pick: (n: number) => number = () => 0,
  agents = 1,
): { readonly schedule: HalvingSchedule; readonly done: RunConfig[]; readonly decisions: Decision[] } {
  const decisions: Decision[] = [];
  const schedule = new HalvingSchedule(parseSweep(text, "f"), { onDecision: (one) => decisions.push(one) });
  const done: RunConfig[] = [];
  const running: RunConfig[] = [];
  for (;;) {
    const free = schedule.runs().filter((config) => !running.some((one) => runId(one) === runId(config)));
    running.push(...free.slice(0, agents - running.length));
    const [ended] = running.splice(pick(running.length), 1);
    if (ended === undefined) return { schedule, done, decisions };
    done.push(ended);
    schedule.learn([pretended(ended, bowl)]);
  }
}

suite("a sweep that searches by successive halving", () => {
  test("has rungs of growing budgets behind each warm-up; the last one is a whole run of a grid", () => {
    const stepsOf = (text: string): number[][] => {
      const spec = parseSweep(text, "f");
      const { count, at } = rungsOf(spec);
      return (spec.vary.warmup ?? [0]).map((warmup) =>
        Array.from({ length: count }, (_, rung) => at(rung, warmup)),
      );
    };
    assert.deepEqual(stepsOf(FILE), [[10, 30, 90, 100]]);
    const warm = FILE.replace("rank: 8", "rank: 8\n  warmup: [0, 4, 20]");
    assert.deepEqual(stepsOf(warm), [[10, 30, 100], [20, 40, 100], [30, 50, 100]], "at the next validation"); // prettier-ignore
    const often = warm.replace("train:", "evaluate: { every: 2 }\ntrain:");
    assert.deepEqual(stepsOf(often), [[10, 30, 100], [14, 34, 100], [30, 50, 100]]); // prettier-ignore
  });

  test("performs the grid's runs, each in parts that end at a rung", () => {
    const { done } = performed(FILE);
    const grid = new Set(
      expandSweep(parseSweep(FILE.replace(/search:.*/, "evaluate: { every: 10 }"), "f")).map(runId),
    );
    for (const config of done) assert.ok(grid.has(wholeId(config)));
    for (const config of done) assert.ok([10, 30, 90, undefined].includes(config.until));
    assert.equal(done.filter(({ method }) => method === BASELINE).length, 2);
    assert.ok(
      done.every(({ every }) => every === 10),
      "runs are validated where they are compared",
    );
  });

  test("counts in its state what belongs to it, and not what another file has left in the folder", async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "tiedlora-"));
    t.after(() => rmSync(folder, { recursive: true }));
    const store = new RunStore(folder);
    await store.prepare(FILE);
    const [first] = new HalvingSchedule(parseSweep(FILE, "f")).runs().filter(({ until }) => until === 10);
    await store.finish(pretended(first!, bowl));
    await store.finish(pretended({ ...first!, until: 15 }, bowl));
    const schedule = new HalvingSchedule(parseSweep(FILE, "f"));
    const { runs, finished, waiting } = await statusOf(store, schedule, []);
    assert.deepEqual([finished, waiting], [1, runs - 1]);
  });

  test("compares each run so many steps behind its own warm-up", () => {
    const text = FILE.replace("rank: 8", "rank: 8\n  warmup: [0, 20]").replace("seed: [0, 1]", "seed: [0]");
    const schedule = new HalvingSchedule(parseSweep(text, "f"));
    for (const { warmup, until, method } of schedule.runs())
      if (method !== BASELINE) assert.equal(until, 10 + warmup);
    for (const { trial, steps } of schedule.standings()) assert.equal(steps, 10 + trial[0]!.warmup);
  });

  test("finds the best rate of each method and task in a part of the grid's steps", () => {
    const { done, schedule } = performed(FILE);
    for (const task of ["choice", "summary"]) {
      for (const [method, lr] of [
        ["lora", 0.01],
        ["tl6", 0.1],
      ] as const) {
        const whole = done.filter(
          (one) => one.task === task && one.method === method && one.until === undefined,
        );
        assert.ok(
          whole.some((one) => one.lr === lr),
          `${task} ${method}`,
        );
        assert.deepEqual(new Set(whole.map(({ seed }) => seed)), new Set([0, 1]), "with all its seeds");
      }
    }
    const steps = schedule.standings().reduce((sum, { steps: n, trial }) => sum + n * trial.length, 0);
    assert.ok(steps < 0.6 * 40 * 100, `${steps} steps`);
    assert.deepEqual(schedule.runs(), []);
  });

  test("decides the same with any number of agents, and when it is resumed with the results in another order", () => {
    const alone = performed(FILE);
    const ids = alone.done.map(runId).sort();
    const byRun = (decisions: readonly Decision[]): Decision[] => [...decisions].sort((a, b) => (a.runs[0]! < b.runs[0]! ? -1 : 1)); // prettier-ignore
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.array(fc.nat(6), { minLength: 1, maxLength: 50 }),
        (agents, picks) => {
          let i = 0;
          const many = performed(FILE, (n) => picks[i++ % picks.length]! % Math.max(n, 1), agents);
          assert.deepEqual(many.done.map(runId).sort(), ids);
          assert.deepEqual(byRun(many.decisions), byRun(alone.decisions));
          const resumed = new HalvingSchedule(parseSweep(FILE, "f"));
          resumed.learn([...alone.done].reverse().map((config) => pretended(config, bowl)));
          assert.deepEqual([resumed.runs(), resumed.ids().sort()], [[], ids]);
        },
      ),
      { numRuns: 20 },
    );
  });

  test("writes down why a run goes on, before it does", () => {
    const { done, decisions } = performed(FILE);
    const begun = new Set(decisions.flatMap(({ runs }) => runs));
    for (const config of done)
      if (config.method !== BASELINE && config.until !== 10)
        assert.ok(begun.has(runId(config)), runId(config));
    for (const { place, keeps, among, from, to, runs } of decisions)
      assert.ok(place <= keeps && keeps <= among && from < to && runs.length === 2);
  });

  test("says of each trial how far it came and what place it had there; one that failed goes nowhere", () => {
    const { done } = performed(FILE);
    const schedule = new HalvingSchedule(parseSweep(FILE, "f"));
    const best = done.find(({ method, lr, task }) => method === "lora" && lr === 0.01 && task === "choice")!;
    schedule.learn([], [runId({ ...best, seed: 1, until: 10 })]);
    for (let runs = schedule.runs(); runs.length > 0; runs = schedule.runs())
      schedule.learn([pretended(runs[0]!, bowl)]);
    const standings = schedule.standings().filter(({ competition }) => competition === "choice lora rank 8");
    assert.equal(standings.length, 4);
    const failed = standings.find(({ trial }) => trial[0]!.lr === 0.01)!;
    assert.deepEqual([failed.stopped, failed.loss, failed.steps, failed.among], [true, Infinity, 10, 4]);
    assert.equal(standings.filter(({ stopped }) => !stopped).length, standings.filter(({ steps }) => steps === 100).length); // prettier-ignore
  });

  test("can take so many trials of each method at random, with all their seeds", () => {
    const text = FILE.replace("factor: 3", "random: 3, seed: 4");
    const runs = expandSweep(parseSweep(text, "f")).filter(({ method }) => method !== BASELINE);
    assert.equal(runs.length, 2 * 2 * 3 * 2);
    assert.deepEqual(runs, expandSweep(parseSweep(text, "f")).slice(2));
    assert.notDeepEqual(runs, expandSweep(parseSweep(text.replace("seed: 4", "seed: 5"), "f")).slice(2));
  });

  test("rates vary by method; a grid has those of each", () => {
    const runs = expandSweep(parseSweep(FILE.replace(/search:.*/, ""), "f")).slice(2);
    assert.equal(runs.length, 2 * 2 * (4 + 6));
    assert.deepEqual([...new Set(runs.filter(({ method }) => method === "lora").map(({ lr }) => lr))], [0.001, 0.003, 0.01, 0.03]); // prettier-ignore
  });
});

test("the example compares 60 variants of each of three methods", () => {
  const file = join(import.meta.dirname, "../../../examples/learning-rates.yaml");
  const standings = new HalvingSchedule(parseSweep(readFileSync(file, "utf8"), file)).standings();
  const names = standings.map(({ competition }) => competition);
  assert.equal(new Set(names).size, 6);
  for (const name of names) assert.equal(names.filter((one) => one === name).length, 60);
});

const MISTAKES: readonly (readonly [from: string | RegExp, to: string, message: RegExp])[] = [
  ["successive-halving:", "sucessive-halving:", /line 4: search: there is no search "sucessive-halving"; did you mean "successive-halving"\?/],
  ["min-steps", "min-step", /line 4: search\.successive-halving: there is no "min-step"; did you mean "min-steps"\?/],
  ["min-steps: 10, ", "", /line 4: search\.successive-halving\.min-steps: expected a whole number of at least 1/],
  ["factor: 3", "factor: 1", /line 4: search\.successive-halving\.factor: expected a whole number of at least 2/],
  [/search:.*/, "search: halving", /line 4: search: expected grid; \{ random: 20 \}.*successive-halving: \{ min-steps: 10 \}/],
  [/search:.*/, "search: { min-steps: 10 }", /line 4: search: min-steps belongs into successive-halving: \{ successive-halving: \{ min-steps: 10 \} \}/],
  ["factor: 3 }", "factor: 3 }, random: 20", /line 4: search: random beside successive-halving; give random inside of it/],
  [/search:.*/, "search: { random: 5, sed: 1 }", /line 4: search: there is no "sed"; did you mean "seed"\?/],
  ["steps: 100,", "steps: 10,", /min-steps 10: a whole run has 10 steps \(train\.steps\), so none would stop early/],
  ["seed: [0, 1]", "steps: [50, 100]", /vary\.steps: successive halving itself decides how many steps a run has/],
  ["warmup: 0", "warmup: 90", /min-steps 10: .* none would stop early; give fewer: they begin behind the warm-up of 90/],
  ["train:", "evaluate: { every: 200 }\ntrain:", /min-steps 10: .* and validations \(evaluate\.every 200\) in time/],
  ["lora: [0.001", "lorra: [0.001", /vary\.lr: there is no method "lorra"; did you mean "lora"\?/],
  ["default: [0.003", "vera: [0.003", /vary\.lr has no rate for tl6, and no default/],
  ["0.3, 1]", "0.3, x]", /line 9: vary\.lr\.default\.5: expected a number above 0/],
]; // prettier-ignore

test("mistakes of a search name the line, the key and the nearest name, or what contradicts it", () => {
  for (const [from, to, message] of MISTAKES) {
    assert.notEqual(FILE.replace(from, to), FILE);
    assert.throws(() => parseSweep(FILE.replace(from, to), "f"), message);
  }
});
