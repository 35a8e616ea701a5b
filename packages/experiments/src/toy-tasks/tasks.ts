/**
 * Toy tasks: five small tasks of the kinds that the Tied-LoRA paper measured, written by the project itself in the
 * words of the world that the embedded base model was pretrained on, so that the paper's grid runs on a laptop.
 */
import { problem } from "./counting.ts";
import { Cast, type Fact, FACT_KINDS } from "./facts.ts";
import { a, ANIMALS, at, PEOPLE, PLACES, THINGS, to, TRADES } from "./lexicon.ts";
import { hash32, Rng } from "./rng.ts";
import { script, talk } from "./talk.ts";
import { clause, english, velan } from "./velan.ts";

/** The completion starts with a space; the prompt does not end with one. */
export interface Example {
  prompt: string;
  completion: string;
}

/** The part of a task's examples that one belongs to; parts do not overlap. */
export type Split = "train" | "valid" | "test";

/** A task: examples without end, written from random numbers. */
export interface ToyTask {
  title: string;
  /** The paper's task of the same kind. */
  like: string;
  /** A new example, made of the numbers that `rng` draws. */
  write(rng: Rng): Example;
}

/** The name of a toy task. */
export type ToyTaskName = "extraction" | "summary" | "choice" | "translation" | "arithmetic";

/**
 * The questions that name what a statement begins with, and ask for its end: these a model of this size learns to answer, by
 * repeating the sentence. For the others ("Who has the ball?") it would have to read backwards from what matches. No two
 * statements of a text are of one kind.
 */
function readOn({ statement, questions }: Fact): { statement: string; question: string }[] {
  return questions
    .filter(({ answer }) => statement.endsWith(`${answer}.`))
    .map(({ question }) => ({ statement, question }));
}

/** The toy tasks by name. */
export const TOY_TASKS: Readonly<Record<ToyTaskName, ToyTask>> = {
  extraction: {
    title: "answer a question by the sentence of the text that tells",
    like: "SQuAD",
    write(rng) {
      const cast = new Cast(rng);
      const told = rng.sample(Object.values(FACT_KINDS), rng.range(3, 5)).map((kind) => kind(cast));
      const { statement, question } = rng.pick(told.flatMap(readOn));
      const context = told.map((fact) => fact.statement).join(" ");
      return { prompt: `Context: ${context} Question: ${question} Answer:`, completion: ` ${statement}` };
    },
  },
  summary: {
    title: "tell a conversation in one sentence",
    like: "DialogSum",
    write(rng) {
      const t = talk(rng);
      return { prompt: `Dialogue: ${script(t)} Summary:`, completion: ` ${t.gist}` };
    },
  },
  choice: {
    title: "choose the ending that makes sense",
    like: "HellaSwag",
    write(rng) {
      const kind = rng.pick([THINGS, THINGS, ANIMALS, TRADES]);
      const endings = rng.sample(kind, 4);
      const chosen = rng.pick(endings);
      const { name } = chosen;
      const who = rng.pick(PEOPLE);
      const text = rng.pick([
        `${who.name} looks at the ${name} ${at(rng.pick(PLACES))}.`,
        `There is ${a(name)} ${at(rng.pick(PLACES))}.`,
        `${who.name} goes ${to(rng.pick(PLACES))} and sees ${a(name)}.`,
      ]);
      const listed = endings.map((ending, i) => `${i + 1}: It ${ending.does}.`).join(" ");
      return { prompt: `Text: ${text} Endings: ${listed} Answer:`, completion: ` It ${chosen.does}.` };
    },
  },
  translation: {
    title: "translate into Velan, an invented language",
    like: "IWSLT",
    write(rng) {
      const c = clause(rng);
      return { prompt: `English: ${english(c)} Velan:`, completion: ` ${velan(c)}` };
    },
  },
  arithmetic: {
    title: "solve a word problem, showing the working",
    like: "GSM8K",
    write(rng) {
      const { question, working } = problem(rng);
      return { prompt: `${question} Answer:`, completion: ` ${working}` };
    },
  },
};

/** The names of the toy tasks. */
export const TOY_TASK_NAMES: readonly ToyTaskName[] = Object.keys(TOY_TASKS) as ToyTaskName[];

/** Of ten prompts one is for validation and one for the test; which, the prompt alone decides. */
export function splitOf(prompt: string): Split {
  const bucket = hash32(prompt) % 10;
  return bucket === 0 ? "valid" : bucket === 1 ? "test" : "train";
}

/**
 * `count` different examples of a task. The same arguments give the same examples on every machine, a longer list
 * begins with the shorter one, and no prompt is ever in two splits, whatever the seeds.
 */
export function toyExamples(task: ToyTaskName, split: Split, count: number, seed = 0): Example[] {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new RangeError(`toyExamples: count is ${count}; expected a whole number, 0 or more`);
  }
  const chosen = taskNamed(task);
  const rng = new Rng(seed, "gym", task, split);
  const found = new Map<string, Example>();
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 1000 + 200 * count) {
      throw new RangeError(
        `${task} has too few different examples for ${count} in "${split}"; ask for at most ${found.size}`,
      );
    }
    const example = chosen.write(rng);
    if (splitOf(example.prompt) === split) found.set(example.prompt, example);
  }
  return [...found.values()];
}

function taskNamed(name: string): ToyTask {
  const task = (TOY_TASKS as Readonly<Record<string, ToyTask>>)[name];
  if (task === undefined) {
    throw new RangeError(`there is no toy task "${name}"; the tasks are ${TOY_TASK_NAMES.join(", ")}`);
  }
  return task;
}
