/** The five toy tasks as tasks like any other: their questions are generated, not read. */
import { checkDifficulty, TOY_TASK_NAMES, TOY_TASKS, toyExamples } from "../toy-tasks/tasks.ts";
import { BLEU, EXACT_MATCH, F1, ROUGE_1, ROUGE_2, ROUGE_L, SAME_RESULT, SAME_TEXT } from "./metrics.ts";
import type { ToyTaskName } from "../toy-tasks/levels.ts";
import type { Metric, Split, Task } from "./task.ts";

const METRICS: Readonly<Record<ToyTaskName, readonly [Metric, ...Metric[]]>> = {
  extraction: [EXACT_MATCH, F1],
  summary: [ROUGE_L, ROUGE_1, ROUGE_2],
  choice: [SAME_TEXT],
  translation: [BLEU, SAME_TEXT],
  arithmetic: [SAME_RESULT, SAME_TEXT],
};

/** With a difficulty, whether the whole answer is right comes first: shares of it have less room below 100. */
const EXACT_METRICS: Readonly<Record<ToyTaskName, readonly [Metric, ...Metric[]]>> = {
  ...METRICS,
  summary: [SAME_TEXT, ROUGE_L],
  translation: [SAME_TEXT, BLEU],
};

/** How many questions each split offers; the paper's grid needs fewer. */
const COUNT: Readonly<Record<Split, number>> = { train: 4000, valid: 400, test: 400 };

/** The seed of the data; a run's own seed does not change its questions. */
const SEED = 0;

/** The endings that a prompt of "choice" lists: "1: It rolls." */
const endingsIn = (prompt: string): string[] =>
  [...prompt.matchAll(/\d: (It [^.]*\.)/g)].map(([, ending]) => ending!);

/** The toy tasks as they were before there were difficulties. */
export const TOY: readonly Task[] = TOY_TASK_NAMES.map((name) => toyTask(name));

interface ToyTaskOptions {
  /** Default: the task as it was before there were difficulties. */
  readonly difficulty?: number | undefined;
  /** The seed of the questions of the test. Default: that of the others, 0. */
  readonly testSeed?: number | undefined;
}

/** A toy task, named with its difficulty: "arithmetic-3". Throws RangeError if it has no such difficulty. */
function toyTask(name: ToyTaskName, { difficulty, testSeed = SEED }: ToyTaskOptions = {}): Task {
  if (difficulty !== undefined) checkDifficulty(name, difficulty);
  const exact = difficulty !== undefined;
  return {
    name: exact ? `${name}-${difficulty}` : name,
    title: TOY_TASKS[name].title,
    metrics: exact ? EXACT_METRICS[name] : METRICS[name],
    maxTokens: exact ? 64 : 32,
    stop: [],
    trainOnAll: false,
    hasWrongAnswers: name === "choice",
    needsFiles: false,
    has: () => Promise.resolve(true),
    async *questions(split) {
      const seed = split === "test" ? testSeed : SEED;
      for (const { prompt, completion } of toyExamples(name, split, COUNT[split], seed, difficulty)) {
        const answer = completion.trim();
        const wrong = endingsIn(prompt).filter((ending) => ending !== answer);
        yield { prompt, answers: [answer], ...(name === "choice" && { wrong }) };
      }
    },
  };
}

/** The toy task of a name with a difficulty, "arithmetic-3"; null if it is no such name. Throws RangeError if it has no such difficulty. */
export function toyTaskByName(given: string, testSeed?: number): Task | null {
  const [, name, difficulty] = /^([a-z]+)(?:-(\d+))?$/.exec(given) ?? [];
  const known = TOY_TASK_NAMES.find((one) => one === name);
  if (known === undefined) return null;
  return toyTask(known, { difficulty: difficulty === undefined ? undefined : Number(difficulty), testSeed });
}
