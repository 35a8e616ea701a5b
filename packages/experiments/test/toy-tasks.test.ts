/** The text and the tasks are the same on every machine and well formed, and their splits never share a prompt. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import {
  corpus,
  document,
  TOY_TASK_NAMES,
  TOY_TASKS,
  toyExamples,
  Rng,
  splitOf,
} from "../src/toy-tasks/index.ts";
import type { Example, ToyTaskName, Split } from "../src/toy-tasks/index.ts";
import { ANIMALS, PEOPLE, THINGS, TRADES } from "../src/toy-tasks/lexicon.ts";
import { english, velan, type Clause } from "../src/toy-tasks/velan.ts";

const SPLITS: readonly Split[] = ["train", "valid", "test"];

const digest = (value: unknown): string =>
  createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 16);

function firstDocuments(count: number, seed: number): string[] {
  return Array.from({ length: count }, (_, i) => document(seed, i));
}

test("text and tasks are the same on every machine", () => {
  assert.equal(digest(firstDocuments(500, 1)), "14df21de3d5831b8");
  const hashes = Object.fromEntries(
    TOY_TASK_NAMES.map((task) => [task, digest(SPLITS.map((split) => toyExamples(task, split, 100, 7)))]),
  );
  assert.deepEqual(hashes, {
    extraction: "a35a50960f8dc7fe",
    summary: "ba21e412e5a00d39",
    choice: "67e5fd1425ec3867",
    translation: "1419b12dc0c4fd27",
    arithmetic: "b55a1059845c7e76",
  });
});

test("the corpus is its documents in order; seeds differ", () => {
  const stream = corpus(3);
  assert.deepEqual(
    firstDocuments(20, 3),
    Array.from({ length: 20 }, () => stream.next().value),
  );
  assert.notDeepEqual(firstDocuments(20, 3), firstDocuments(20, 4));
});

test("documents are sentences in plain characters", () => {
  for (const text of firstDocuments(2000, 5)) {
    assert.match(text, /^[A-Z"][A-Za-z0-9 .,:;?'"+=*-]*[.?"]$/, text);
    assert.doesNotMatch(text, / {2}|undefined|\.\.| [.,?]/, text);
  }
});

test("a longer list begins with the shorter one; other seeds and splits are other lists", () => {
  for (const task of TOY_TASK_NAMES) {
    const some = toyExamples(task, "train", 20, 1);
    assert.deepEqual(toyExamples(task, "train", 50, 1).slice(0, 20), some);
    assert.notDeepEqual(toyExamples(task, "train", 20, 2), some);
  }
});

test("no prompt is in two splits, or twice in one, whatever the seeds", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...TOY_TASK_NAMES),
      fc.nat(1e6),
      fc.nat(1e6),
      fc.nat(1e6),
      (task, ...seeds) => {
        const prompts = SPLITS.flatMap((split, i) =>
          toyExamples(task, split, 150, seeds[i]).map((example) => example.prompt),
        );
        assert.equal(new Set(prompts.slice(0, 150)).size, 150);
        const owners = new Map(prompts.map((prompt, i) => [prompt, Math.floor(i / 150)]));
        prompts.forEach((prompt, i) => assert.equal(owners.get(prompt), Math.floor(i / 150), prompt));
      },
    ),
    { numRuns: 30 },
  );
});

test("of ten prompts, eight are for training", () => {
  for (const task of TOY_TASK_NAMES) {
    const rng = new Rng(1, "split");
    const count = { train: 0, valid: 0, test: 0 };
    for (let i = 0; i < 2000; i++) count[splitOf(TOY_TASKS[task].write(rng).prompt)]++;
    assert.ok(Math.abs(count.train - 1600) < 120, `${task}: ${JSON.stringify(count)}`);
    assert.ok(Math.abs(count.valid - 200) < 70, `${task}: ${JSON.stringify(count)}`);
  }
});

test("there are enough different examples for the grid", () => {
  for (const task of TOY_TASK_NAMES) {
    assert.equal(toyExamples(task, "train", 4000).length, 4000);
    assert.equal(toyExamples(task, "test", 200).length, 200);
  }
});

test("what cannot be given is an error that says so", () => {
  assert.throws(
    () => toyExamples("sumary" as ToyTaskName, "train", 1),
    /no toy task "sumary"; the tasks are extraction,/,
  );
  assert.throws(() => toyExamples("summary", "train", -1), /count is -1; expected a whole number/);
});

/** The conditions that each example of a task must meet, besides its form. */
const CHECKS: Record<ToyTaskName, (example: Example) => void> = {
  extraction({ prompt, completion }) {
    const [, context, question] = /^Context: (.*) Question: (.*\?) Answer:$/.exec(prompt) ?? [];
    assert.ok(context !== undefined && question !== undefined, prompt);
    assert.ok(context.includes(completion.trim()), `${prompt}${completion}`);
  },
  summary({ prompt, completion }) {
    assert.match(prompt, /^Dialogue: [A-Z][a-z]+: .* Summary:$/);
    const speakers = [...prompt.matchAll(/([A-Z][a-z]+):/g)].map((m) => m[1] as string).slice(1, -1);
    assert.ok(
      speakers.some((name) => completion.includes(name)),
      `${prompt}${completion}`,
    );
  },
  choice({ prompt, completion }) {
    const [, text, endings] = /^Text: (.*) Endings: (.*) Answer:$/.exec(prompt) ?? [];
    assert.ok(text !== undefined && endings !== undefined, prompt);
    const listed = endings.split(/ ?[1-4]: /).slice(1);
    assert.equal(new Set(listed).size, 4, prompt);
    assert.ok(listed.includes(completion.trim()), `${prompt}${completion}`);
    const known = [...THINGS, ...ANIMALS, ...TRADES].find(({ does }) => completion === ` It ${does}.`);
    assert.ok(known !== undefined && text.includes(` ${known.name}`), `${prompt}${completion}`);
  },
  translation({ prompt, completion }) {
    assert.match(prompt, /^English: The .*\. Velan:$/);
    assert.match(completion, /^( [a-z]+){3,7}$/);
  },
  arithmetic({ prompt, completion }) {
    assert.match(prompt, /\? Answer:$/);
    let last: number | null = null;
    for (const step of completion.trim().split(", ")) {
      const [, left, operator, right, result] = /^(\d+) ([+*-]) (\d+) = (\d+)$/.exec(step) ?? [];
      const [x, y] = [Number(left), Number(right)];
      assert.equal(operator === "+" ? x + y : operator === "-" ? x - y : x * y, Number(result), step);
      if (last !== null) assert.equal(x, last, completion);
      else assert.ok(prompt.includes(` ${x} `), prompt);
      assert.match(prompt, new RegExp(`\\b${y}\\b`));
      last = Number(result);
    }
  },
};

for (const task of TOY_TASK_NAMES) {
  test(`${task}: every example is well formed`, () => {
    for (const example of toyExamples(task, "train", 1500, 11)) {
      assert.match(example.prompt, /^\S.*:$/);
      assert.match(example.completion, /^ \S(.*\S)?$/);
      CHECKS[task](example);
    }
  });
}

test("extraction: one sentence of the context speaks of what the question names, and it is the answer", () => {
  const names = [...PEOPLE, ...THINGS, ...ANIMALS].map(({ name }) => name);
  for (const { prompt, completion } of toyExamples("extraction", "train", 800, 2)) {
    const [, context = "", question = ""] = /^Context: (.*) Question: (.*\?) Answer:$/.exec(prompt) ?? [];
    const speaksOf = (text: string, name: string): boolean => new RegExp(`\\b${name}\\b`).test(text);
    const asked = names.filter((name) => speaksOf(question, name));
    assert.ok(asked.length > 0, prompt);
    const telling = context
      .split(/(?<=\.) /)
      .filter((sentence) => asked.some((name) => speaksOf(sentence, name)));
    assert.deepEqual(telling, [completion.trim()], prompt);
  }
});

test("Velan: object, subject, place, verb; adjectives follow their noun", () => {
  const clause: Clause = {
    subject: { noun: "dog", adjective: "red" },
    verb: "sees",
    object: { noun: "boat", adjective: null },
    where: { name: "river", preposition: "by" },
  };
  assert.equal(english(clause), "The red dog sees the boat by the river.");
  assert.equal(velan(clause), "navo baro ruda ne rivo vidi");
});

test("Rng: paths are independent, ranges are kept, samples do not repeat", () => {
  assert.notEqual(new Rng(1, "a").next(), new Rng(1, "b").next());
  assert.equal(new Rng(1, "a").next(), new Rng(1, "a").next());
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 50 }), fc.nat(50), (seed, n, k) => {
      const rng = new Rng(seed);
      const value = rng.int(n);
      assert.ok(value >= 0 && value < n && Number.isInteger(value));
      const list = Array.from({ length: n }, (_, i) => i);
      const sample = rng.sample(list, Math.min(k, n));
      assert.equal(new Set(sample).size, Math.min(k, n));
      assert.deepEqual(
        rng.shuffle(list).sort((x, y) => x - y),
        list,
      );
    }),
  );
  assert.throws(() => new Rng(1).int(0), /expected a positive integer/);
  assert.throws(() => new Rng(1).sample([1, 2], 3), /3 elements of a list of 2/);
});

test("Rng: numbers are spread evenly", () => {
  const rng = new Rng(9);
  const counts = Array<number>(10).fill(0);
  for (let i = 0; i < 10_000; i++) counts[rng.int(10)]!++;
  for (const count of counts) assert.ok(Math.abs(count - 1000) < 150, counts.join(" "));
});
