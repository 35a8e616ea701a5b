/**
 * What a task is: questions read from the files of a data set, and the metrics that judge a model's answers. A task of one's
 * own is one call of `defineTask` in a file of one's own.
 */
import type { TextFile } from "tiedlora";
import { DataError } from "tiedlora";
import { type Split, splitOf } from "../toy-tasks/tasks.ts";

export type { Split } from "../toy-tasks/tasks.ts";

/** Endings of which the likeliest is chosen. */
export interface Choice {
  /** What stands before each ending. */
  readonly context: string;
  readonly endings: readonly string[];
  /** The index of the right one. */
  readonly right: number;
}

/** One item of a task. */
export interface Question {
  readonly prompt: string;
  /** What counts as an answer, at least one; training shows the first. They begin without white space. */
  readonly answers: readonly string[];
  /** The same item as a choice among endings, for metrics by likelihood. */
  readonly choice?: Choice;
}

/** Judges generated texts against their references, over a whole data set. In per cent, 100 is best. */
export interface TextMetric {
  readonly kind: "text";
  readonly name: string;
  /** From what was generated and the references of each question: the measure over all. */
  readonly score: (texts: readonly string[], references: readonly (readonly string[])[]) => number;
}

/** Judges one choice by the log-likelihoods of its endings: 1 is right, 0 wrong. The mean is given in per cent. */
export interface ChoiceMetric {
  readonly kind: "choice";
  readonly name: string;
  /** From the log-likelihoods of the answers to choose from: what this question counts. */
  readonly score: (logLikelihoods: readonly number[], choice: Choice) => number;
}

/** What judges the answers to a task. */
export type Metric = TextMetric | ChoiceMetric;

/** Where a data set's files are. */
export interface TaskSource {
  /** What messages call it, e.g. the directory. */
  readonly name: string;
  /** The names of its files. */
  list(): Promise<readonly string[]>;
  /** The file of that name; rejects if there is none. */
  open(name: string): Promise<TextFile>;
}

/** A task that a model is trained on and judged by; `defineTask` makes one. */
export interface Task {
  readonly name: string;
  /** What is asked, in a few words. */
  readonly title: string;
  /** The first is the one that a report shows. */
  readonly metrics: readonly [Metric, ...Metric[]];
  /** The largest number of tokens that are generated. */
  readonly maxTokens: number;
  /** Ends an answer, beside the model's end-of-text token. */
  readonly stop: readonly string[];
  /** Train on every answer of a question, not only on the first. */
  readonly trainOnAll: boolean;
  /** Whether questions are read from files; if not, the source is ignored. */
  readonly needsFiles: boolean;
  /** Whether the source has files of its own for a split. */
  readonly has: (split: Split, source: TaskSource) => Promise<boolean>;
  /** The questions of a split, in the order of the files. */
  readonly questions: (split: Split, source: TaskSource) => AsyncIterable<Question>;
}

/** The declaration of a task. */
export interface TaskSpec {
  readonly name: string;
  readonly title: string;
  readonly metrics: readonly [Metric, ...Metric[]];
  readonly maxTokens: number;
  readonly stop?: readonly string[];
  readonly trainOnAll?: boolean;
  /**
   * The file names of each split: one pattern for each file that `read` is given together, as the two sides of a
   * translation. The first name in alphabetical order that matches is taken.
   */
  readonly files: Partial<Record<Split, readonly RegExp[]>>;
  /** The questions in the files of a split, in the order of `files`. */
  readonly read: (...files: TextFile[]) => AsyncIterable<Question>;
}

/** Makes a task from a declaration. */
export function defineTask(spec: TaskSpec): Task {
  const { files, read, stop = [], trainOnAll = false, ...rest } = spec;
  const named = async (split: Split, source: TaskSource): Promise<(string | undefined)[] | null> => {
    const patterns = files[split];
    if (patterns === undefined) return null;
    const names = [...(await source.list())].sort();
    return patterns.map((pattern) => names.find((name) => pattern.test(name)));
  };
  return {
    ...rest,
    stop,
    trainOnAll,
    needsFiles: true,
    has: async (split, source) => (await named(split, source))?.every((name) => name !== undefined) ?? false,
    async *questions(split, source) {
      const found = await named(split, source);
      if (found === null) throw new DataError(source.name, null, noSplit(spec, split));
      const missing = found.findIndex((name) => name === undefined);
      if (missing >= 0) {
        const pattern = String(files[split]![missing]);
        const have = (await source.list()).join(", ") || "nothing";
        throw new DataError(
          source.name,
          null,
          `${spec.name} needs a file whose name matches ${pattern} for "${split}"; the directory has ${have}`,
        );
      }
      yield* read(...(await Promise.all(found.map((name) => source.open(name!)))));
    },
  };
}

function noSplit({ name, files }: TaskSpec, split: Split): string {
  return `${name} has no "${split}" split, only ${Object.keys(files).join(", ")}`;
}

/** The splits for a training run, and how they came about. */
export interface RunSplits {
  readonly train: readonly Question[];
  readonly valid: readonly Question[];
  readonly test: readonly Question[];
  /** Where a split had to be taken from another's files. */
  readonly note: string | null;
}

/** The most questions of each split. */
export type SplitLimits = Readonly<Record<Split, number>>;

/**
 * Reads the splits that a training run needs. A data set without training files (HellaSwag's come apart, IWSLT's on request)
 * is divided: of its validation set 8 of 10 questions are for training, one for validation, one for the test; the question
 * alone decides. Without test files the validation set is the test set. Only questions that `fits` keeps are taken.
 */
export async function runSplits(
  task: Task,
  source: TaskSource,
  limits: SplitLimits,
  fits: (question: Question) => boolean = () => true,
): Promise<RunSplits> {
  const take = (split: Split, from: Split, keep: (q: Question) => boolean): Promise<Question[]> =>
    firstQuestions(
      task.questions(from, source),
      limits[split],
      (question) => keep(question) && fits(question),
    );
  const has = async (split: Split): Promise<boolean> => !task.needsFiles || (await task.has(split, source));
  const [hasTrain, hasValid, hasTest] = await Promise.all([has("train"), has("valid"), has("test")]);
  const all = (): boolean => true;
  if (!hasTrain) {
    const of =
      (split: Split) =>
      (question: Question): boolean =>
        splitOf(question.prompt) === split;
    return {
      train: await take("train", "valid", of("train")),
      valid: await take("valid", "valid", of("valid")),
      test: hasTest ? await take("test", "test", all) : await take("test", "valid", of("test")),
      note: `${task.name}: no training files; the validation set is divided${hasTest ? "" : ", for the test too"}`,
    };
  }
  const heldOut = hasValid ? "valid" : "test";
  return {
    train: await take("train", "train", all),
    valid: await take("valid", heldOut, all),
    test: await take("test", hasTest ? "test" : heldOut, all),
    note:
      hasValid && hasTest
        ? null
        : `${task.name}: no ${hasValid ? "test" : "validation"} files; the ${hasValid ? "validation" : "test"} set serves as both`,
  };
}

/** The first questions, at most `limit`, that `keep` keeps; reading stops there. */
export async function firstQuestions(
  questions: AsyncIterable<Question>,
  limit: number,
  keep: (question: Question) => boolean = () => true,
): Promise<Question[]> {
  const found: Question[] = [];
  if (limit <= 0) return found;
  for await (const question of questions) {
    if (keep(question)) found.push(question);
    if (found.length >= limit) break;
  }
  return found;
}

/** What a question trains on: each answer alike, or the first. */
export function trainingTexts(task: Task, question: Question): { prompt: string; completion: string }[] {
  const answers = task.trainOnAll ? question.answers : question.answers.slice(0, 1);
  return answers.map((completion) => ({ prompt: question.prompt, completion }));
}
