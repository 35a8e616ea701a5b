/**
 * The definition of a task: questions read from the files of a data set, and the metrics that judge a model's answers. To add
 * your own task, call `defineTask` in a file of your own.
 */
import type { TextFile } from "tiedlora";
import { DataError } from "tiedlora";
import { type Split, splitOf } from "../toy-tasks/tasks.ts";

export type { Split } from "../toy-tasks/tasks.ts";

/** A choice among endings, of which the likeliest is chosen. */
export interface Choice {
  /** The text before each ending. */
  readonly context: string;
  readonly endings: readonly string[];
  /** The index of the right ending. */
  readonly right: number;
}

/** One item of a task. */
export interface Question {
  readonly prompt: string;
  /** The accepted answers, at least one, without leading white space; training shows the first, or all with `trainOnAll`. */
  readonly answers: readonly string[];
  /** Wrong answers, from which losses of preferences learn. */
  readonly wrong?: readonly string[];
  /** The same item as a choice among endings, for metrics by likelihood. */
  readonly choice?: Choice;
}

/**
 * What the score of a data set is computed from, text by text, so that it can be computed for any sample of the texts: a score is a
 * function of the sums of these numbers.
 */
export interface Parts {
  /** The numbers of one text; as many for each text. */
  readonly of: (text: string, references: readonly string[]) => readonly number[];
  /** The score of `count` texts, in percent, from the sums of their numbers. */
  readonly score: (sums: readonly number[], count: number) => number;
}

/** Judges generated texts against their references, over a whole data set. In percent; 100 is best. */
export interface TextMetric {
  readonly kind: "text";
  readonly name: string;
  /** The score of a whole data set, from the generated text and the references of each question. */
  readonly score: (texts: readonly string[], references: readonly (readonly string[])[]) => number;
  /** Without it, runs are not compared example by example. */
  readonly parts?: Parts;
}

/** Judges one choice by the log-likelihoods of its endings: 1 is right, 0 wrong. The mean is given in percent. */
export interface ChoiceMetric {
  readonly kind: "choice";
  readonly name: string;
  /** The score of one question, from the log-likelihoods of its endings. */
  readonly score: (logLikelihoods: readonly number[], choice: Choice) => number;
}

/** A measure of the answers to a task. */
export type Metric = TextMetric | ChoiceMetric;

/** The place of a data set's files. */
export interface TaskSource {
  /** The name in messages, e.g. the directory. */
  readonly name: string;
  /** The names of its files. */
  list(): Promise<readonly string[]>;
  /** The file of that name; rejects if there is none. */
  open(name: string): Promise<TextFile>;
}

/** A task that a model is trained on and judged by; `defineTask` makes one. */
export interface Task {
  readonly name: string;
  /** A description of the task in a few words. */
  readonly title: string;
  /** The measures of the answers; a report shows the first. */
  readonly metrics: readonly [Metric, ...Metric[]];
  /** The largest number of tokens that are generated. */
  readonly maxTokens: number;
  /** Strings that end an answer, besides the model's end-of-text token. */
  readonly stop: readonly string[];
  /** Train on every answer of a question, not only on the first. */
  readonly trainOnAll: boolean;
  /** Whether its questions have wrong answers beside the right ones. */
  readonly hasWrongAnswers?: boolean;
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
  readonly hasWrongAnswers?: boolean;
  /**
   * The file names of each split: one pattern for each argument of `read`, e.g. for each of the two sides of a translation.
   * Of the names that match a pattern, the first in alphabetical order is taken.
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

/** The splits for a training run, and a note on their origin. */
export interface RunSplits {
  readonly train: readonly Question[];
  readonly valid: readonly Question[];
  readonly test: readonly Question[];
  /** A sentence on splits that were taken from the files of another split; null if none was. */
  readonly note: string | null;
}

/** The most questions of each split. */
export type SplitLimits = Readonly<Record<Split, number>>;

/**
 * Reads the splits that a training run needs. Without training files (HellaSwag's are separate, IWSLT's come on request), the
 * validation set is divided: of 10 questions about 8 are for training, one for validation and one for the test; if there are test
 * files, 9 are for training. A hash of the prompt decides. With training files, the validation set also serves as a missing test set,
 * and the other way around. Only questions that `fits` accepts are taken.
 */
export async function runSplits(
  task: Task,
  source: TaskSource,
  limits: SplitLimits,
  fits: (question: Question, split: Split) => boolean = () => true,
): Promise<RunSplits> {
  const take = (split: Split, from: Split, keep: (q: Question) => boolean): Promise<Question[]> =>
    firstQuestions(
      task.questions(from, source),
      limits[split],
      (question) => keep(question) && fits(question, split),
    );
  const has = async (split: Split): Promise<boolean> => !task.needsFiles || (await task.has(split, source));
  const [hasTrain, hasValid, hasTest] = await Promise.all([has("train"), has("valid"), has("test")]);
  const all = (): boolean => true;
  if (!hasTrain) {
    const of =
      (split: Split) =>
      ({ prompt }: Question): boolean => {
        const part = splitOf(prompt);
        return split === (part === "test" && hasTest ? "train" : part);
      };
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

/** The first questions, at most `limit`, that `keep` accepts; reading stops there. */
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

/** The training examples of a question: one for each answer if the task trains on all, else one for the first. */
export function trainingTexts(task: Task, question: Question): { prompt: string; completion: string }[] {
  const answers = task.trainOnAll ? question.answers : question.answers.slice(0, 1);
  return answers.map((completion) => ({ prompt: question.prompt, completion }));
}
