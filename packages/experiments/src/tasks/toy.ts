/** The five toy tasks as tasks like any other: their questions are generated, not read. */
import { TOY_TASK_NAMES, TOY_TASKS, type ToyTaskName, toyExamples } from "../toy-tasks/tasks.ts";
import { BLEU, EXACT_MATCH, F1, ROUGE_1, ROUGE_2, ROUGE_L, SAME_RESULT, SAME_TEXT } from "./metrics.ts";
import type { Metric, Split, Task } from "./task.ts";

const METRICS: Readonly<Record<ToyTaskName, readonly [Metric, ...Metric[]]>> = {
  extraction: [EXACT_MATCH, F1],
  summary: [ROUGE_L, ROUGE_1, ROUGE_2],
  choice: [SAME_TEXT],
  translation: [BLEU, SAME_TEXT],
  arithmetic: [SAME_RESULT, SAME_TEXT],
};

/** How many questions each split offers; the paper's grid needs fewer. */
const COUNT: Readonly<Record<Split, number>> = { train: 4000, valid: 400, test: 400 };

/** The seed of the data; a run's own seed does not change its questions. */
const SEED = 0;

/** The endings that a prompt of "choice" lists: "1: It rolls." */
const endingsIn = (prompt: string): string[] =>
  [...prompt.matchAll(/\d: (It [^.]*\.)/g)].map(([, ending]) => ending!);

export const TOY: readonly Task[] = TOY_TASK_NAMES.map((name) => ({
  name,
  title: TOY_TASKS[name].title,
  metrics: METRICS[name],
  maxTokens: 32,
  stop: [],
  trainOnAll: false,
  hasWrongAnswers: name === "choice",
  needsFiles: false,
  has: () => Promise.resolve(true),
  async *questions(split) {
    for (const { prompt, completion } of toyExamples(name, split, COUNT[split], SEED)) {
      const answer = completion.trim();
      const wrong = endingsIn(prompt).filter((ending) => ending !== answer);
      yield { prompt, answers: [answer], ...(name === "choice" && { wrong }) };
    }
  },
}));
