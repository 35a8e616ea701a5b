/** Difficulties: splits are disjoint in what they combine, a higher one asks for more, and files and errors name them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { NO_FILES } from "../src/node/tasks.ts";
import { runId } from "../src/sweep/config.ts";
import { countCombinations } from "../src/sweep/options.ts";
import { expandSweep } from "../src/sweep/expand.ts";
import { parseSweep } from "../src/sweep/spec.ts";
import { firstQuestions, taskByName } from "../src/tasks/index.ts";
import { LEVELS, Rng, type Split, TOY_TASK_NAMES, toyExamples, type ToyTaskName } from "../src/toy-tasks/index.ts"; // prettier-ignore
import { ANIMALS, THINGS, TRADES } from "../src/toy-tasks/lexicon.ts";
import { dialect } from "../src/toy-tasks/velan.ts";

const SPLITS: readonly Split[] = ["train", "valid", "test"];
/** Each task with its lowest difficulty, one between, and its highest. */
const ALL = TOY_TASK_NAMES.flatMap((task) =>
  [1, 2, LEVELS[task].most].map((difficulty) => [task, difficulty] as const),
);

/** What an example asks for, read from its text alone: the answer, or for a choice the endings and the right one. */
const askedFor = (task: ToyTaskName, { prompt, completion }: { prompt: string; completion: string }): string =>
  task === "choice" ? [completion, ...[...prompt.matchAll(/\d: (It [^.]*\.)/g)].map((m) => m[1]!).sort()].join() : completion; // prettier-ignore

test("no answer of one split is an answer of another, whatever the seeds", () => {
  for (const [task, difficulty] of ALL) {
    const owners = new Map<string, Split>();
    for (const [i, split] of SPLITS.entries()) {
      for (const seed of [i, 10 + i]) {
        for (const example of toyExamples(task, split, 100, seed, difficulty)) {
          const asked = askedFor(task, example);
          assert.equal(owners.get(asked) ?? split, split, `${task}, ${difficulty}: ${asked}`);
          owners.set(asked, split);
        }
      }
    }
    assert.equal(new Set(owners.values()).size, 3);
  }
});

test("examples are the same on every machine, and enough for a test", () => {
  const texts = ALL.map(([task, difficulty]) => {
    assert.equal(toyExamples(task, "test", 400, 0, difficulty).length, 400);
    return SPLITS.map((split) => toyExamples(task, split, 50, 7, difficulty));
  });
  const digest = createHash("sha256").update(JSON.stringify(texts)).digest("hex").slice(0, 16);
  assert.equal(digest, "55fb0838a8a26c33");
});

const count = (text: string, pattern: RegExp): number => text.match(pattern)?.length ?? 0;

/** The number that grows with the difficulty, in one example; it is exact. */
const GROWS: Readonly<Record<Exclude<ToyTaskName, "translation" | "choice">, (example: { prompt: string; completion: string }) => readonly number[]>> = {
  extraction: ({ prompt }) => [count(prompt.split(" Question:")[0]!, /\./g) - 1],
  summary: ({ prompt }) => [(count(prompt, /[A-Z][a-z]+: /g) - 4) / 2 + 1],
  arithmetic: ({ prompt, completion }) => [count(completion, /=/g), count(prompt, /\./g) / 2 + 0.5],
}; // prettier-ignore

test("a difficulty is the number that its task says grows", () => {
  for (const [task, difficulty] of ALL) {
    if (task === "translation" || task === "choice") continue;
    for (const example of toyExamples(task, "valid", 60, 3, difficulty))
      for (const found of GROWS[task](example)) assert.equal(found, difficulty, `${task}: ${example.prompt}`);
  }
});

test("a dialect exchanges its share of the meanings of each kind of word, and keeps the words", () => {
  const velan = dialect(0);
  for (let eighths = 1; eighths <= 8; eighths++) {
    for (const kind of ["nouns", "adjectives", "verbs"] as const) {
      const [old, now] = [velan[kind], dialect(eighths / 8)[kind]];
      const names = Object.keys(old);
      assert.deepEqual(Object.keys(now), names);
      assert.deepEqual(Object.values(now).sort(), Object.values(old).sort());
      const expected = Math.round((eighths / 8) * names.length);
      assert.equal(names.filter((name) => now[name] !== old[name]).length, expected === 1 ? 0 : expected);
    }
  }
  const example = (difficulty: number): Readonly<Record<"prompt" | "completion", string>> =>
    LEVELS.translation.write(new Rng(1, "same"), difficulty);
  const [easy, hard] = [example(1), example(8)];
  assert.equal(easy.prompt, hard.prompt);
  assert.notEqual(easy.completion, hard.completion);
});

test("a choice of some difficulty is right by what is known for the rest, and for as many things as it says not", () => {
  const all = [...THINGS, ...ANIMALS, ...TRADES];
  for (const difficulty of [1, 4, 8]) {
    const endings = new Map<string, Set<string>>();
    for (const { prompt, completion } of toyExamples("choice", "train", 1500, 2, difficulty)) {
      const [, name] = /^Text: .*?(?:the|an?) ([a-z]+)(?: (?:in|at|by|on) the [a-z]+)?\. Endings/.exec(
        prompt,
      )!;
      endings.set(name!, (endings.get(name!) ?? new Set()).add(completion));
    }
    assert.equal(endings.size, all.length);
    assert.ok([...endings.values()].every(({ size }) => size === 1)); // one ending for each
    const other = all.filter(({ name, does }) => !endings.get(name)!.has(` It ${does}.`)).length;
    const expected = [THINGS, ANIMALS, TRADES].map(({ length }) => Math.round((difficulty / 8) * length));
    assert.equal(other, expected.reduce((sum, n) => sum + (n === 1 ? 0 : n), 0)); // prettier-ignore
  }
});

test("the account of a word problem is right, and only the asked person's", () => {
  for (const difficulty of [1, 2, 3, 4]) {
    for (const { prompt, completion } of toyExamples("arithmetic", "train", 300, 5, difficulty)) {
      const [, who] = /How many [a-z]+ does ([A-Z][a-z]+) have now\? Answer:$/.exec(prompt)!;
      const own = prompt.split(". ").filter((sentence) => new RegExp(`^(Then )?${who} (had|has|got|lost) `).test(sentence)); // prettier-ignore
      let have: number | null = null;
      for (const sentence of own) {
        const [first, second] = sentence.match(/\d+/g)!.map(Number) as [number, number?];
        if (second === undefined) have! += sentence.includes(" lost ") ? -first : first;
        else have = sentence.includes(" bags ") ? first * second : sentence.includes(" lost ") ? first - second : first + second; // prettier-ignore
      }
      const results = [...completion.matchAll(/= (\d+)/g)].map((m) => Number(m[1]));
      assert.equal(results.at(-1), have, prompt);
      assert.ok(results.every((result) => result >= 1 && result <= 25));
    }
  }
});

const FILE = `
on: { model: base, tasks: [{ name: arithmetic, difficulty: 2 }, summary-3, choice], test-seed: 5 }
out: unused
vary: { method: lora, rank: 8 }
evaluate: { baseline: false }
`;

test("a sweep's file names difficulties and the seed of the test; runs of other ones have other names", () => {
  const configs = expandSweep(parseSweep(FILE, "f"));
  assert.deepEqual(configs.map(({ task }) => task), ["arithmetic-2", "summary-3", "choice"]); // prettier-ignore
  assert.deepEqual(configs.map(({ testSeed }) => testSeed), [5, 5, 5]); // prettier-ignore
  const without = expandSweep(parseSweep(FILE.replace(", test-seed: 5", ""), "f"));
  assert.ok(without.every((config, i) => !("testSeed" in config) && runId(config) !== runId(configs[i]!)));
});

test("another seed of the test changes its questions alone", async () => {
  for (const name of ["arithmetic-2", "choice"]) {
    const questions = (split: Split, testSeed?: number): Promise<unknown[]> =>
      firstQuestions(taskByName(name, { testSeed }).questions(split, NO_FILES), 20);
    for (const split of ["train", "valid"] as const)
      assert.deepEqual(await questions(split, 5), await questions(split));
    assert.notDeepEqual(await questions("test", 5), await questions("test"));
    assert.deepEqual(await questions("test", 0), await questions("test"));
  }
});

test("mistakes are errors with the line, the name and what there is", () => {
  const refused = (text: string, message: RegExp): void =>
    assert.throws(() => parseSweep(text, "f"), message);
  refused(FILE.replace("difficulty: 2", "difficulty: 9"), /f, line 2: on\.tasks\.0: the difficulty of arithmetic is 9; expected a whole number from 1 to 4/); // prettier-ignore
  refused(FILE.replace("summary-3", "summary-0"), /the difficulty of summary is 0; expected a whole number from 1 to 5/); // prettier-ignore
  refused(FILE.replace("name: arithmetic", "name: arithmetik"), /there is no generated task "arithmetik"; did you mean "arithmetic"/); // prettier-ignore
  refused(FILE.replace("difficulty: 2", "dificulty: 2"), /there is no "dificulty"/);
  refused(FILE.replace("summary-3", "squad-3"), /there is no task "squad-3"/);
  refused(FILE.replace("choice]", "squad], data: d"), /on\.test-seed is for tasks that are generated, and squad reads files/); // prettier-ignore
  assert.throws(() => toyExamples("summary", "train", 1, 0, 1.5), /the difficulty of summary is 1\.5/);
});

test("a rate can be that of a method at one rank", () => {
  const file = (lr: string): string => `
on: { model: base, tasks: choice-1 }
out: unused
vary: { method: [lora, tl6], rank: [2, 8] }
train: { lr: ${lr} }
evaluate: { baseline: false }
`;
  const rates = (lr: string): (readonly [string, number])[] =>
    expandSweep(parseSweep(file(lr), "f")).map((config) => [`${config.method}:${config.rank}`, config.lr]);
  const expected = [["lora:2", 0.03], ["tl6:2", 0.1], ["lora:8", 0.01], ["tl6:8", 0.1]]; // prettier-ignore
  assert.deepEqual(rates("{ lora: 0.01, 'lora:2': 0.03, default: 0.1 }"), expected);
  assert.deepEqual(rates("{ 'lora:2': 0.03, 'lora:8': 0.01, tl6: 0.1 }"), expected);
  const refused = (lr: string, message: RegExp): void => assert.throws(() => rates(lr), message);
  refused("{ 'lora:2': 0.03, tl6: 0.1 }", /train\.lr has no rate for lora, and no default/);
  refused("{ 'lora:4': 0.03, default: 0.1 }", /"lora:4" is for rank 4, and vary\.rank has 2, 8/);
  refused("{ 'lara:2': 0.03, default: 0.1 }", /no method "lara" in "lara:2"; did you mean "lora"/);

  const varied = file("0.1").replace("rank: [2, 8]", "rank: [2, 8], lr: { 'lora:2': [0.1, 0.3], lora: [0.03], default: [0.01] }"); // prettier-ignore
  const spec = parseSweep(varied, "f");
  const tried = expandSweep(spec).map((config) => [`${config.method}:${config.rank}`, config.lr]);
  assert.deepEqual(tried, [["lora:2", 0.1], ["lora:2", 0.3], ["tl6:2", 0.01], ["lora:8", 0.03], ["tl6:8", 0.01]]); // prettier-ignore
  assert.equal(countCombinations(spec), tried.length);
  assert.throws(
    () => parseSweep(varied.replace("'lora:2'", "'lora:4'"), "f"),
    /vary\.lr: "lora:4" is for rank 4/,
  );
});
