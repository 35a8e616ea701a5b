/** The scores of single test examples in a run's result, as text: a run has hundreds of them, and a sweep thousands of runs. */
import { hash32 } from "../toy-tasks/rng.ts";
import { taskByName } from "../tasks/index.ts";
import { lossOfParts, meanOfParts } from "../tasks/metrics.ts";
import type { Parts, Question } from "../tasks/task.ts";
import type { ExampleScores, RunResult } from "./config.ts";

/** What can be compared example by example: the task's first metric, and the loss. */
export const MEASURED = ["scores", "losses"] as const;
/** One of them. */
export type Measured = (typeof MEASURED)[number];

type Numbers = readonly (readonly number[])[];

/** Writes down what the score of each question was computed from, and its loss; null for what was not measured. */
export function exampleScores(
  questions: readonly Question[],
  parts: Numbers | null,
  losses: Numbers | null = null,
): ExampleScores {
  const text = JSON.stringify(questions.map(({ prompt, answers }) => [prompt, answers]));
  const written = (rows: Numbers): string => rows.map((numbers) => numbers.join(",")).join(" ");
  return {
    questions: hash32(text).toString(16).padStart(8, "0"),
    ...(parts && { scores: written(parts) }),
    ...(losses && { losses: written(losses.map((numbers) => numbers.map(rounded))) }),
  };
}

/** To more digits than single precision has. */
const rounded = (value: number): number => Number(value.toPrecision(9));

/** The numbers of each example. */
export const partsOf = (text: string): number[][] =>
  text.split(" ").map((numbers) => numbers.split(",").map(Number));

/** How the score or the loss of a run is computed from its examples; null if it is not. */
export function scoreOfParts({ config, test }: RunResult, measured: Measured): Parts["score"] | null {
  if (test.examples?.[measured] === undefined) return null;
  if (measured === "losses") return lossOfParts;
  const [metric] = taskByName(config.task).metrics;
  return metric.kind === "choice" ? meanOfParts : (metric.parts?.score ?? null);
}
