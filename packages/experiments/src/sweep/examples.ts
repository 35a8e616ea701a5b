/** The scores of single test examples in a run's result, as text: a run has hundreds of them, and a sweep thousands of runs. */
import { hash32 } from "../toy-tasks/rng.ts";
import { taskByName } from "../tasks/index.ts";
import { meanOfParts } from "../tasks/metrics.ts";
import type { Parts, Question } from "../tasks/task.ts";
import type { ExampleScores, RunResult } from "./config.ts";

/** Writes down what the score of each question was computed from. */
export function exampleScores(
  questions: readonly Question[],
  parts: readonly (readonly number[])[],
): ExampleScores {
  const text = JSON.stringify(questions.map(({ prompt, answers }) => [prompt, answers]));
  return {
    questions: hash32(text).toString(16).padStart(8, "0"),
    scores: parts.map((numbers) => numbers.join(",")).join(" "),
  };
}

/** The numbers of each example. */
export const partsOf = ({ scores }: ExampleScores): number[][] =>
  scores.split(" ").map((numbers) => numbers.split(",").map(Number));

/** How the score of a run is computed from its examples; null if it is not. */
export function scoreOfParts({ config }: RunResult): Parts["score"] | null {
  const [metric] = taskByName(config.task).metrics;
  return metric.kind === "choice" ? meanOfParts : (metric.parts?.score ?? null);
}
