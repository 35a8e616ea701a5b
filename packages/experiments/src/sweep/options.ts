/** Which options go with which optimizer and loss in a sweep: in a grid of several, each takes those that are its own. */
import { type LossName, type OptimizerName, REGULARIZER_NAMES } from "tiedlora";
import { examplesOfLoss, lossesWith, optimizerTakes, strayRegularizer, suggestion } from "tiedlora/internal";
import { taskByName } from "../tasks/index.ts";

/** What depends on the optimizer: the name in a sweep's file, and the setting that the optimizer has to have. */
const OF_OPTIMIZERS = { beta1: "betas", beta2: "betas", "weight-decay": "weightDecay" } as const;
/** What depends on the loss, with the names of options of `lossByName`. */
const OF_LOSSES = {
  beta: "beta",
  "label-smoothing": "labelSmoothing",
  "z-loss": "zLoss",
  temperature: "temperature",
  "teacher-weight": "teacherWeight",
} as const;
type Key = keyof typeof OF_OPTIMIZERS | keyof typeof OF_LOSSES;

/** Learning rates for all runs, or for each method or each optimizer, with `default`. */
type Rates = readonly number[] | Readonly<Record<string, readonly number[]>> | undefined;

/** The part of a sweep that this file is about. */
interface Optioned {
  readonly on: { readonly tasks: readonly string[] };
  readonly vary: Readonly<Partial<Record<Key, readonly number[] | undefined>>> & {
    readonly method: readonly string[];
    readonly rank: RanksByMethod;
    readonly lr?: Rates;
    readonly optimizer?: readonly OptimizerName[] | undefined;
    readonly loss?: readonly LossName[] | undefined;
  };
  readonly train: Readonly<Partial<Record<Key, number | undefined>>> & {
    readonly optimizer: OptimizerName;
    readonly loss: LossName;
    readonly teacher?: string | undefined;
    readonly regularize?: Readonly<Record<string, number>> | undefined;
  };
}

/** A method at a rank, and an optimizer. */
export interface Rated {
  readonly method: string;
  readonly rank: number;
  readonly optimizer: string;
}

/** What is given for a method at one rank ("tl6:8"), else for the method, else for the optimizer, else by default. */
export function givenFor<T>(
  given: Readonly<Record<string, T>>,
  { method, rank, optimizer }: Rated,
): T | undefined {
  return given[`${method}:${rank}`] ?? given[method] ?? given[optimizer] ?? given["default"];
}

/** The learning rates to try; undefined if they do not vary. */
export const ratesOf = (lr: Rates, of: Rated): readonly number[] | undefined =>
  lr === undefined || isList(lr) ? lr : givenFor(lr, of);

/** Ranks for all methods, or for each method, with `default`. */
export type RanksByMethod = readonly number[] | Readonly<Record<string, readonly number[]>>;

/** The ranks of a method. */
export function ranksOf(ranks: RanksByMethod, method: string): readonly number[] {
  return isList(ranks) ? ranks : (ranks[method] ?? ranks["default"] ?? []);
}

/** The ranks of all methods, each once, in ascending order where they are given by method. */
export function allRanks(ranks: RanksByMethod, methods: readonly string[]): readonly number[] {
  if (isList(ranks)) return ranks;
  return [...new Set(methods.flatMap((method) => ranksOf(ranks, method)))].sort((a, b) => a - b);
}

/** What is wrong with ranks that are given by method; null if nothing is. */
export function rankMistake(ranks: RanksByMethod, methods: readonly string[]): string | null {
  if (isList(ranks)) return null;
  const names = [...methods, "default"];
  const stray = Object.keys(ranks).find((name) => !names.includes(name));
  if (stray !== undefined)
    return `vary.rank: vary.method has no ${stray}; ${suggestion(stray, names, "it has")}`;
  const without = methods.find((method) => ranksOf(ranks, method).length === 0);
  return without === undefined ? null : `vary.rank has no ranks for ${without}, and no default`;
}

/** Whether values are a list, for all runs. */
export const isList = <T>(given: readonly T[] | object): given is readonly T[] => Array.isArray(given);

/** The values of an option of optimizers for one of them; undefined alone if it has none, or none are given. */
export function ofOptimizer(
  { vary, train }: Optioned,
  key: keyof typeof OF_OPTIMIZERS,
  optimizer: OptimizerName,
): readonly (number | undefined)[] {
  return optimizerTakes(optimizer, OF_OPTIMIZERS[key]) ? (vary[key] ?? [train[key]]) : [undefined];
}

/** As `ofOptimizer`, for losses. */
export function ofLoss(
  { vary, train }: Optioned,
  key: keyof typeof OF_LOSSES,
  loss: LossName,
): readonly (number | undefined)[] {
  return lossesWith(OF_LOSSES[key]).includes(loss) ? (vary[key] ?? [train[key]]) : [undefined];
}

/** The number of combinations, without listing them: those of options that depend on each other are counted for each. */
export function countCombinations(spec: Optioned): number {
  const { vary, train, on } = spec;
  const { method, rank, lr, optimizer = [train.optimizer], loss = [train.loss], ...others } = vary;
  const product = (lists: readonly { readonly length: number }[]): number => lists.reduce((n, { length }) => n * length, 1); // prettier-ignore
  const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);
  const variants = method.flatMap((one) => ranksOf(rank, one).map((of) => ({ method: one, rank: of })));
  const optimizers = sum(
    variants.flatMap((variant) =>
      optimizer.map(
        (name) =>
        product([ratesOf(lr, { ...variant, optimizer: name }) ?? [1], ...keysOf(OF_OPTIMIZERS).map((key) => ofOptimizer(spec, key, name))]), // prettier-ignore
      ),
    ),
  );
  const losses = sum(loss.map((name) => product(keysOf(OF_LOSSES).map((key) => ofLoss(spec, key, name)))));
  const rest = Object.entries(others).filter(([key]) => !(key in OF_OPTIMIZERS) && !(key in OF_LOSSES));
  return on.tasks.length * optimizers * losses * product(rest.map(([, list]) => list ?? [1]));
}

/** What is wrong with the losses, optimizers and options of a sweep; null if nothing is. */
export function optionMistake(spec: Optioned): string | null {
  const { vary, train, on } = spec;
  const { optimizer: optimizers = [train.optimizer], loss: losses = [train.loss] } = vary;
  for (const key of keysOf(OF_OPTIMIZERS)) {
    const where = whereGiven(spec, key);
    if (where !== null && !optimizers.some((one) => optimizerTakes(one, OF_OPTIMIZERS[key])))
      return `${where} is given, and ${optimizers.join(", ")} ${optimizers.length > 1 ? "have" : "has"} none; leave it out, or take another optimizer`;
  }
  for (const key of keysOf(OF_LOSSES)) {
    const [where, having] = [whereGiven(spec, key), lossesWith(OF_LOSSES[key])];
    if (where !== null && !losses.some((one) => having.includes(one)))
      return `${where} is given, and the loss is ${losses.join(", ")}; it is for ${having.join(", ")}`;
  }
  const from = vary.loss === undefined ? "train.loss" : "vary.loss";
  if (losses.includes("distillation") !== (train.teacher !== undefined))
    return train.teacher === undefined
      ? `${from}: distillation learns from another model, and none is given; give train.teacher, a model of the same vocabulary`
      : `train.teacher is given, and the loss is ${losses.join(", ")}; it is for distillation`;
  const ranked = losses.find((one) => examplesOfLoss(one) !== "texts");
  const single = on.tasks.find((name) => !taskByName(name).hasWrongAnswers);
  if (ranked !== undefined && single !== undefined)
    return `${from}: ${ranked} needs wrong answers beside the right ones, and ${single} has none; leave it out, or take a task of choices`;
  const stray = strayRegularizer(train.regularize);
  return stray === null ? null : `train.regularize: there is no regularizer "${stray}"; ${suggestion(stray, REGULARIZER_NAMES)}`; // prettier-ignore
}

/** Where an option is given in the sweep's file; null if it is not. */
function whereGiven({ vary, train }: Optioned, key: Key): string | null {
  if (vary[key] !== undefined) return `vary.${key}`;
  return train[key] === undefined || train[key] === 0 ? null : `train.${key}`;
}

const keysOf = <K extends string>(table: Readonly<Record<K, unknown>>): K[] => Object.keys(table) as K[];
