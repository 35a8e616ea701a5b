/**
 * Tasks: the paper's tasks, read from the original files of their data sets, and the toy tasks, which are generated.
 * @module
 */
import { nearest } from "tiedlora/internal";
import { dialogsum } from "./dialogsum.ts";
import { e2e } from "./e2e.ts";
import { gsm8k } from "./gsm8k.ts";
import { TOY, toyTaskByName } from "./toy.ts";
import { hellaswag } from "./hellaswag.ts";
import { squad } from "./squad.ts";
import type { Task } from "./task.ts";
import { iwslt2017, multi30k } from "./translation.ts";

export { evaluateTask, type TaskResult } from "./evaluate.ts";
export { fitting } from "./fitting.ts";
export * as taskMetrics from "./metrics.ts";
export {
  type Choice,
  type ChoiceMetric,
  defineTask,
  firstQuestions,
  type Metric,
  type Question,
  runSplits,
  type RunSplits,
  type Split,
  type SplitLimits,
  type Task,
  type TaskSource,
  type TaskSpec,
  type TextMetric,
  trainingTexts,
} from "./task.ts";

/** All tasks that come with the library. */
export const TASKS: readonly Task[] = [...TOY, squad, dialogsum, hellaswag, iwslt2017, multi30k, gsm8k, e2e];

/**
 * The task of a name; those that are generated also with a difficulty: "arithmetic-3". `testSeed` is the seed of the questions of
 * generated tests. Throws RangeError for an unknown name, and suggests the nearest, or for a difficulty that the task has not.
 */
export function taskByName(
  name: string,
  { testSeed }: { readonly testSeed?: number | undefined } = {},
): Task {
  const found = toyTaskByName(name, testSeed) ?? TASKS.find((task) => task.name === name);
  if (found !== undefined) return found;
  const names = TASKS.map((task) => task.name);
  const close = nearest(name, names);
  throw new RangeError(
    `there is no task "${name}"${close === null ? "" : ` (did you mean "${close}"?)`}; there are ${names.join(", ")}`,
  );
}
