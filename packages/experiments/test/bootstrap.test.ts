/** The paired bootstrap against the whole list of possible samples, and example scores against the metrics that they are parts of. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { corpusBleu, type Pairing, pairedBootstrap } from "../src/metrics/index.ts";
import { partsOf, exampleScores } from "../src/sweep/examples.ts";
import { taskMetrics, TASKS } from "../src/tasks/index.ts";

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const percent = ([sum]: readonly number[], count: number): number => (100 * sum!) / count;
const alone = (rows: readonly (readonly number[])[]): number[][][] => rows.map((row) => row.map((x) => [x]));

/** All lists of `length` numbers below `below`. */
function lists(below: number, length: number): number[][] {
  if (length === 0) return [[]];
  return lists(below, length - 1).flatMap((list) => Array.from({ length: below }, (_, i) => [...list, i]));
}

/** The differences of all samples of seeds and examples, each as likely, sorted. */
function enumerated(ours: readonly (readonly number[])[], theirs: readonly (readonly number[])[]): number[] {
  const [seeds, examples] = [ours.length, ours[0]!.length];
  return lists(seeds, seeds)
    .flatMap((s) =>
      lists(examples, examples).map((e) =>
        mean(s.flatMap((seed) => e.map((i) => 100 * (ours[seed]![i]! - theirs[seed]![i]!)))),
      ),
    )
    .sort((a, b) => a - b);
}

const share = (values: readonly number[], holds: (value: number) => boolean): number =>
  values.filter(holds).length / values.length;

const OURS = [
  [1, 1, 0, 0.5],
  [1, 0, 0.25, 1],
  [0.75, 1, 1, 0],
];
const THEIRS = [
  [0, 1, 0, 0],
  [1, 0, 0.5, 0.25],
  [0, 0.5, 1, 0],
];

test("is the distribution of all possible samples, up to the chance of the draws", () => {
  const all = enumerated(OURS, THEIRS); // 3^3 * 4^4 of them
  assert.equal(all.length, 27 * 256);
  const found = pairedBootstrap([{ ours: alone(OURS), theirs: alone(THEIRS), score: percent }], {
    samples: 40_000,
  });
  const direct = mean(OURS.flatMap((row, s) => row.map((value, i) => 100 * (value - THEIRS[s]![i]!))));
  assert.ok(Math.abs(found.mean - direct) < 1e-9, `${found.mean} and ${direct}`);
  // the share of all samples below the ends, within five standard errors of 40,000 draws, and one step of the discrete distribution
  for (const [end, wanted] of [[found.low, 0.025], [found.high, 0.975]] as const) {
    const [below, upTo] = [share(all, (value) => value < end - 1e-9), share(all, (value) => value <= end + 1e-9)];
    assert.ok(below <= wanted + 0.004 && upTo >= wanted - 0.004, `${end}: ${below} to ${upTo}, expected ${wanted}`);
  } // prettier-ignore
  const p =
    2 *
    Math.min(
      share(all, (value) => value <= 1e-9),
      share(all, (value) => value >= -1e-9),
    );
  assert.ok(Math.abs(found.p - p) < 0.004, `${found.p} and ${p}`);
});

test("a mean over tasks draws the same seeds for all of them", () => {
  // The tasks' differences cancel seed by seed: only samples that draw the tasks' seeds together give zero each time.
  const up: Pairing = { ours: alone([[1], [0]]), theirs: alone([[0], [1]]), score: percent };
  const down: Pairing = { ours: up.theirs, theirs: up.ours, score: percent };
  assert.deepEqual(pairedBootstrap([up, down], { samples: 500 }), { mean: 0, low: 0, high: 0, p: 1 });
  const single = pairedBootstrap([up], { samples: 500 });
  assert.deepEqual([single.mean, single.low, single.high], [0, -100, 100]);
});

test("methods exchanged: the difference and the ends change their signs; the same draws give the same numbers", () => {
  const numbers = fc.array(fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 3, maxLength: 3 }), {
    minLength: 2,
    maxLength: 2,
  });
  fc.assert(
    fc.property(numbers, numbers, fc.nat(1000), (ours, theirs, seed) => {
      const pairing = { ours: alone(ours), theirs: alone(theirs), score: percent };
      const options = { samples: 99, seed };
      const found = pairedBootstrap([pairing], options);
      const back = pairedBootstrap([{ ...pairing, ours: pairing.theirs, theirs: pairing.ours }], options);
      assert.deepEqual(pairedBootstrap([pairing], options), found);
      for (const [a, b] of [[found.mean, back.mean], [found.low, back.high], [found.high, back.low]] as const)
        assert.ok(Math.abs(a + b) < 1e-9); // prettier-ignore
      assert.equal(found.p, back.p);
      assert.ok(found.p >= 1 / 100 && found.p <= 1);
    }),
    { numRuns: 40 },
  );
});

test("shapes that differ are errors that say so", () => {
  const pairing = { ours: alone([[1, 0]]), theirs: alone([[1]]), score: percent };
  assert.throws(() => pairedBootstrap([pairing]), /\[2\] of ours and \[1\] of theirs; expected 1 seeds with equally many/);
  assert.throws(() => pairedBootstrap([]), /no tasks; expected at least one/);
  const good = { ...pairing, theirs: pairing.ours };
  assert.throws(() => pairedBootstrap([good], { samples: 0 }), /samples is 0; expected a whole number/);
}); // prettier-ignore

const TEXTS = ["the cat sat on the mat", "a dog", "result 12", "It rolls down the path.", ""];
const REFERENCES = [["the cat is on the mat", "there is a cat on the mat"], ["a dog barks"], ["12"], ["It rolls down the path."], ["x"]]; // prettier-ignore

test("the score of a data set is that of the sums of its texts' parts, for every metric of a text", () => {
  const metrics = TASKS.flatMap((task) => task.metrics).filter((metric) => metric.kind === "text");
  assert.ok(new Set(metrics).size > 8);
  for (const { name, score, parts } of new Set(metrics)) {
    assert.ok(parts !== undefined, name);
    const rows = TEXTS.map((text, i) => parts.of(text, REFERENCES[i]!));
    const sums = rows[0]!.map((_, j) => rows.reduce((sum, row) => sum + row[j]!, 0));
    assert.ok(Math.abs(parts.score(sums, TEXTS.length) - score(TEXTS, REFERENCES)) < 1e-9, name);
  }
});

test("BLEU is resampled as the BLEU of the texts that were drawn", () => {
  const { parts } = taskMetrics.BLEU;
  const drawn = [0, 0, 3, 1, 3];
  const rows = drawn.map((i) => parts!.of(TEXTS[i]!, REFERENCES[i]!));
  const sums = rows[0]!.map((_, j) => rows.reduce((sum, row) => sum + row[j]!, 0));
  const whole = corpusBleu(drawn.map((i) => TEXTS[i]!), drawn.map((i) => REFERENCES[i]!)); // prettier-ignore
  assert.ok(Math.abs(parts!.score(sums, 5) - whole.score) < 1e-9);
});

test("the scores of examples are read as they were written; other questions have another fingerprint", () => {
  const questions = TEXTS.map((prompt) => ({ prompt, answers: ["a"] }));
  const parts = [[1, 2], [0.1 + 0.2, 1e-9], [0, 0], [1 / 3, 4], [5, 1e21]]; // prettier-ignore
  const written = exampleScores(questions, parts);
  assert.deepEqual(partsOf(written.scores!), parts);
  assert.equal(exampleScores(questions, parts).questions, written.questions);
  assert.notEqual(exampleScores(questions.slice(1), parts).questions, written.questions);
  assert.notEqual(exampleScores([...questions].reverse(), parts).questions, written.questions);
});
