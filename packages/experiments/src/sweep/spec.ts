/**
 * A sweep as a YAML file describes it: the settings that vary, the settings that do not, and the model and tasks. The error
 * for a mistake names the line, the key and the nearest valid name.
 */
import { isMap, isScalar, type Document } from "yaml";
import { z } from "zod";
import { isRecord } from "@tiedlora/core";
import { QUANTIZE_KINDS, type QuantizeKind } from "@tiedlora/models";
import { SCHEDULE_NAMES, type ScheduleName } from "@tiedlora/nn/optim";
import { checkStartMethod, LOSS_NAMES, METHOD_NAMES, methodByName, type MethodName, OPTIMIZER_NAMES, START_NAMES, type StartName } from "tiedlora"; // prettier-ignore
import type { ByParameter, LossName, OptimizerName } from "tiedlora";
import { methodOptions, suggestion } from "tiedlora/internal";
import { taskByName, TASKS } from "../tasks/index.ts";
import { TOY_TASK_NAMES } from "../toy-tasks/tasks.ts";
import { readYaml, YamlError } from "../yaml.ts";
import { above0, either, listOf, named, share, whole } from "./schema.ts";
import { allRanks, countCombinations, isList, optionMistake, rankMistake, type RanksByMethod, ranksOf } from "./options.ts"; // prettier-ignore
import type { SweepRanks } from "./config.ts";
import { halvingMistake, halvingOf, type Search, SEARCH } from "./search.ts";

const METHOD = named("method", METHOD_NAMES);
const SCHEDULE: z.ZodType<ScheduleName> = z.enum(SCHEDULE_NAMES);

const OPTIMIZER: z.ZodType<OptimizerName> = named("optimizer", OPTIMIZER_NAMES) as z.ZodType<OptimizerName>;
const LOSS: z.ZodType<LossName> = named("loss", LOSS_NAMES) as z.ZodType<LossName>;

/**
 * A learning rate for all methods, or one for each, also by rank ("tl6:8"), with `default` for methods that have none. Default: each
 * method's own.
 */
const RATES = z.union([above0, z.record(z.string(), above0)], {
  error: "expected a number, or one for each method with a default: { default: 0.01, tl1: 0.03 }",
});

const VARIED_RATES = either<readonly number[] | Readonly<Record<string, readonly number[]>>>((given) =>
  isRecord(given) ? z.record(z.string(), listOf(above0)) : listOf(above0),
);

const VARIED_RANKS = either<RanksByMethod>((given) =>
  isRecord(given) ? z.record(z.string(), listOf(whole(1))) : listOf(whole(1)),
);

/** Numbers by factor, module or pattern. */
const BY_NAME: z.ZodType<ByParameter> = z.record(z.string(), z.number().min(0), {
  error: "expected numbers of at least 0 by factor or module: { B: 16 }",
});

/** The weights of regularizers. */
const WEIGHTS: z.ZodType<Readonly<Record<string, number>>> = z.record(z.string(), z.number().min(0), {
  error: "expected weights of at least 0 by regularizer: { l2: 1e-4 }",
});

const START = named("start", START_NAMES) as z.ZodType<StartName>;

/** Options that single methods have, by method. */
const OPTIONS = z.record(z.string(), z.record(z.string(), z.unknown()), {
  error: "expected options by method: { nola: { bases: 16 } }",
});

const RANKS: z.ZodType<SweepRanks> = z.strictObject({
  rank: whole(1),
  warmup: whole(0).optional(),
  final: whole(0).optional(),
  every: whole(1).optional(),
});

/** Reports a name for which there is no task, and a difficulty that a task has not. */
function checkTask(name: string, context: { addIssue(message: string): void }): void {
  const names = TASKS.map((task) => task.name);
  const isGenerated = TOY_TASK_NAMES.some((one) => name.replace(/-\d+$/, "") === one);
  if (!isGenerated && !names.includes(name)) {
    context.addIssue(`there is no task "${name}"; ${suggestion(name, names)}`);
    return;
  }
  try {
    taskByName(name);
  } catch (cause) {
    context.addIssue((cause as Error).message);
  }
}

const TASK_NAME = z.string({ error: "expected the name of a task" }).superRefine(checkTask);
/** A generated task with its difficulty: { name: arithmetic, difficulty: 3 }, which is named arithmetic-3. */
const LEVEL = { name: named("generated task", TOY_TASK_NAMES), difficulty: whole(1) };
const TASK_OF_LEVEL = z
  .strictObject(LEVEL)
  .transform(({ name, difficulty }) => `${name}-${difficulty}`)
  .superRefine(checkTask);

const SPEC = z.strictObject({
  name: z.string().default("sweep"),
  on: z.strictObject({
    model: z.string().default("base"),
    quantize: z.enum(QUANTIZE_KINDS).optional(),
    tasks: listOf(either((given) => (isRecord(given) ? TASK_OF_LEVEL : TASK_NAME))),
    "test-seed": whole(0).optional(),
    data: z.string().optional(),
    seq: whole(2).default(128),
    "loss-only": z.boolean().default(false),
  }),
  out: z.string().min(1, { error: "expected a folder" }),
  search: SEARCH.default("grid"),
  vary: z.strictObject({
    method: listOf(METHOD),
    rank: VARIED_RANKS,
    seed: listOf(whole(0)).default([0]),
    lr: VARIED_RATES.optional(),
    steps: listOf(whole(1)).optional(),
    batch: listOf(whole(1)).optional(),
    warmup: listOf(whole(0)).optional(),
    "weight-decay": listOf(z.number().min(0)).optional(),
    "lora-plus": listOf(above0).optional(),
    optimizer: listOf(OPTIMIZER).optional(),
    beta1: listOf(share).optional(),
    beta2: listOf(share).optional(),
    loss: listOf(LOSS).optional(),
    beta: listOf(above0).optional(),
    "label-smoothing": listOf(share).optional(),
    "z-loss": listOf(z.number().min(0)).optional(),
    temperature: listOf(above0).optional(),
    "teacher-weight": listOf(z.number().min(0).max(1)).optional(),
    dropout: listOf(share).optional(),
    target: listOf(z.string()).optional(),
    init: listOf(START).optional(),
    ema: listOf(share).optional(),
  }),
  train: z
    .strictObject({
      steps: whole(1).default(200),
      batch: whole(1).default(16),
      lr: RATES.optional(),
      optimizer: OPTIMIZER.default("adamw"),
      beta1: share.optional(),
      beta2: share.optional(),
      loss: LOSS.default("cross-entropy"),
      beta: above0.optional(),
      "label-smoothing": share.optional(),
      "z-loss": z.number().min(0).optional(),
      teacher: z.string().min(1).optional(),
      temperature: above0.optional(),
      "teacher-weight": z.number().min(0).max(1).optional(),
      regularize: WEIGHTS.optional(),
      schedule: SCHEDULE.default("cosine"),
      warmup: whole(0).default(20),
      "weight-decay": z.number().min(0).optional(),
      "lora-plus": above0.optional(),
      rates: BY_NAME.optional(),
      decays: BY_NAME.optional(),
      clip: above0.default(1),
      dropout: share.default(0),
      target: z.string().default("all-linear"), // as in `train`,
      init: START.optional(),
      ema: share.optional(),
      "method-options": OPTIONS.optional(),
      "rank-schedule": RANKS.optional(),
    })
    .prefault({}),
  evaluate: z
    .strictObject({
      every: whole(1).optional(),
      patience: whole(1).optional(),
      train: whole(1).default(4000),
      valid: whole(1).default(100),
      test: whole(1).default(200),
      "example-losses": z.boolean().default(false),
      baseline: z.boolean().default(true),
    })
    .prefault({}),
  parallel: whole(1).optional(),
});

/** The content of a sweep's file: model and tasks, the settings that vary, training and evaluation. */
export interface SweepSpec {
  readonly name: string;
  /** The model and the tasks that the sweep runs on. */
  readonly on: {
    /** "base" or "base-gpt2", the embedded models, or a Hugging Face directory. */
    readonly model: string;
    /** The form to which the weights of linear modules are quantized while the model is loaded: nf4 or int8. */
    readonly quantize?: QuantizeKind | undefined;
    readonly tasks: readonly string[];
    /** The seed from which the questions of generated tasks' tests are made; those for training and validation have seed 0. Default: 0. */
    readonly "test-seed"?: number | undefined;
    /** The folder that has the files of each task in a subfolder with the task's name. */
    readonly data?: string | undefined;
    /** The most tokens of an example. */
    readonly seq: number;
    /** Measure the loss, generate nothing. */
    readonly "loss-only": boolean;
  };
  /** The folder of results. */
  readonly out: string;
  readonly search: Search;
  /** Lists of values; every combination is a run. */
  readonly vary: {
    readonly method: readonly string[];
    /** Ranks for all methods, or for each method, with `default` for those that have none. */
    readonly rank: RanksByMethod;
    readonly seed: readonly number[];
    /** Learning rates for all runs, or for each method (at one rank: "tl6:8") or each optimizer, with `default` for those that have none. */
    readonly lr?: readonly number[] | Readonly<Record<string, readonly number[]>> | undefined;
    readonly steps?: readonly number[] | undefined;
    readonly batch?: readonly number[] | undefined;
    readonly warmup?: readonly number[] | undefined;
    readonly "weight-decay"?: readonly number[] | undefined;
    /** Ratios of LoRA+. */
    readonly "lora-plus"?: readonly number[] | undefined;
    readonly optimizer?: readonly OptimizerName[] | undefined;
    /** Decay rates of the moments of those optimizers that have some. */
    readonly beta1?: readonly number[] | undefined;
    readonly beta2?: readonly number[] | undefined;
    /** Losses; those of preferences are for tasks with wrong answers, such as choices. */
    readonly loss?: readonly LossName[] | undefined;
    /** Options of those losses that have them. */
    readonly beta?: readonly number[] | undefined;
    readonly "label-smoothing"?: readonly number[] | undefined;
    readonly "z-loss"?: readonly number[] | undefined;
    readonly temperature?: readonly number[] | undefined;
    readonly "teacher-weight"?: readonly number[] | undefined;
    readonly dropout?: readonly number[] | undefined;
    readonly target?: readonly string[] | undefined;
    /** Starts of A and B. */
    readonly init?: readonly StartName[] | undefined;
    /** Shares of themselves that moving averages keep in a step. */
    readonly ema?: readonly number[] | undefined;
  };
  readonly train: {
    readonly steps: number;
    readonly batch: number;
    /** One for all, or by method ("tl6"), by method and rank ("tl6:8") or by optimizer. Default: each method's own, times what suits the optimizer. */
    readonly lr?: number | Readonly<Record<string, number>> | undefined;
    readonly optimizer: OptimizerName;
    readonly beta1?: number | undefined;
    readonly beta2?: number | undefined;
    readonly loss: LossName;
    readonly beta?: number | undefined;
    readonly "label-smoothing"?: number | undefined;
    readonly "z-loss"?: number | undefined;
    /** The model that a distillation learns from, of the same vocabulary: "base", or a Hugging Face directory. */
    readonly teacher?: string | undefined;
    readonly temperature?: number | undefined;
    readonly "teacher-weight"?: number | undefined;
    /** The weights of regularizers, which are added to every loss. */
    readonly regularize?: Readonly<Record<string, number>> | undefined;
    readonly schedule: ScheduleName;
    readonly warmup: number;
    /** Default: 0.01 for optimizers that have it. */
    readonly "weight-decay"?: number | undefined;
    readonly "lora-plus"?: number | undefined;
    /** Factors of the learning rate, by factor, module or pattern. */
    readonly rates?: ByParameter | undefined;
    /** Weight decays by factor, module or pattern, in place of `weight-decay`. */
    readonly decays?: ByParameter | undefined;
    readonly clip: number;
    readonly dropout: number;
    readonly target: string;
    /** The start of A and B. Default: the method's own. */
    readonly init?: StartName | undefined;
    /** Moving averages of the weights are validated and tested, which keep this share of themselves in a step. */
    readonly ema?: number | undefined;
    /** Options that only some methods have, by method. */
    readonly "method-options"?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined;
    /** How the ranks of ada-lora fall while it trains. */
    readonly "rank-schedule"?: SweepRanks | undefined;
  };
  readonly evaluate: {
    /** Steps between validations. */
    readonly every: number;
    readonly patience?: number | undefined;
    /** The most examples of each split. */
    readonly train: number;
    readonly valid: number;
    readonly test: number;
    /** Whether the loss of each test example is written down, so that reports compare losses example by example. Each is then computed on its own. */
    readonly "example-losses": boolean;
    /** Whether the model without an adapter is measured too. */
    readonly baseline: boolean;
  };
  /** The number of processes. Default: the number of cores, but 1 on webgpu. */
  readonly parallel?: number | undefined;
}

/** Reads a sweep. Throws YamlError with the line of the mistake. */
export function parseSweep(text: string, file: string): SweepSpec {
  const { document, lineAt, plain } = readYaml(text, file);
  const result = SPEC.safeParse(plain(document.contents) ?? {});
  if (result.success) return checked(withDefaults(result.data), file);
  const { issues } = result.error;
  // A misspelled name may also be reported as a missing one: the former report is the helpful one.
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0]!;
  if (issue.code === "unrecognized_keys") {
    const [key] = issue.keys as [string];
    const at = offsetOf(document, [...issue.path, key], true);
    throw new YamlError(file, at === null ? null : lineAt(at), unknownKey(key, issue.path));
  }
  const at = offsetOf(document, issue.path, false);
  const where = issue.path.join(".");
  throw new YamlError(
    file,
    at === null ? null : lineAt(at),
    where === "" ? issue.message : `${where}: ${issue.message}`,
  );
}

/** The most combinations of settings: all of them are listed in memory, even if only a random sample runs. */
const MAX_COMBINATIONS = 100_000;

/** The steps between validations, if the file names none: a search compares runs where it may stop them. */
function withDefaults({ evaluate, ...rest }: z.output<typeof SPEC>): SweepSpec {
  const halving = halvingOf(rest);
  return { ...rest, evaluate: { ...evaluate, every: evaluate.every ?? halving?.["min-steps"] ?? 50 } };
}

function checked(spec: SweepSpec, file: string): SweepSpec {
  const { tasks, data } = spec.on;
  const mistake = (message: string): never => {
    throw new YamlError(file, null, message);
  };
  const needing = tasks.find((name) => taskByName(name).needsFiles);
  if (needing !== undefined && data === undefined)
    mistake(`on.data is missing: the task ${needing} reads files; give the folder that has ${needing}/`);
  if (needing !== undefined && spec.on["test-seed"] !== undefined)
    mistake(`on.test-seed is for tasks that are generated, and ${needing} reads files; leave it out`);
  const ranks = rankMistake(spec.vary.rank, spec.vary.method);
  if (ranks !== null) mistake(ranks);
  const runs = countCombinations(spec);
  if (runs > MAX_COMBINATIONS)
    mistake(`the lists of vary have ${runs} combinations; expected at most ${MAX_COMBINATIONS}`);
  if (spec.train.lr !== undefined) checkRates("train.lr", spec.train.lr, spec, mistake);
  const { lr } = spec.vary;
  if (lr !== undefined && !isList(lr)) checkRates("vary.lr", lr, spec, mistake);
  const wrong = optionMistake(spec);
  if (wrong !== null) mistake(wrong);
  checkMethods(spec, mistake);
  const halving = halvingMistake(spec);
  if (halving !== null) mistake(halving);
  return spec;
}

/** Checks what is given for single methods: starts, options, and a schedule of ranks. */
function checkMethods({ vary, train }: SweepSpec, mistake: (message: string) => never): void {
  const where = (name: string): string => `train.method-options.${name}`;
  for (const [name, options] of Object.entries(train["method-options"] ?? {})) {
    if (!vary.method.includes(name))
      mistake(`${where(name)}: vary.method has no ${name}; ${suggestion(name, vary.method, "it has")}`);
    try {
      for (const rank of ranksOf(vary.rank, name))
        methodByName(name, { rank, ...methodOptions(name as MethodName, options) });
    } catch (cause) {
      mistake(`${where(name)}: ${(cause as Error).message}`);
    }
  }
  const starts = vary.init ?? (train.init === undefined ? [] : [train.init]);
  for (const start of starts)
    for (const name of vary.method)
      try {
        checkStartMethod(methodByName(name), start);
      } catch (cause) {
        mistake(`init ${start}: ${(cause as Error).message}`);
      }
  if (starts.includes("loftq"))
    mistake("init loftq needs the weights before quantization, which a sweep does not keep; train has it");
  const ranks = train["rank-schedule"];
  if (ranks === undefined) return;
  if (!vary.method.includes("ada-lora"))
    mistake("train.rank-schedule is for ada-lora, which vary.method does not have");
  const least = Math.min(...ranksOf(vary.rank, "ada-lora"));
  if (ranks.rank > least)
    mistake(`train.rank-schedule ends at rank ${ranks.rank}, above its start, rank ${least} of vary.rank`);
}

/** Checks rates that are given by method or by optimizer. */
function checkRates(
  where: string,
  rates: number | Readonly<Record<string, unknown>>,
  spec: SweepSpec,
  mistake: (message: string) => never,
): void {
  if (typeof rates === "number") return;
  const known = [...METHOD_NAMES, ...OPTIMIZER_NAMES, "default"];
  const names = Object.keys(rates).map((name) => nameWithRank(name, where, spec, mistake));
  const stray = names.find((name) => !known.includes(name));
  if (stray !== undefined) mistake(`${where}: there is no method "${stray}"; ${suggestion(stray, known)}`);
  const optimizers = spec.vary.optimizer ?? [spec.train.optimizer];
  const [ofMethod, ofOptimizer] = [METHOD_NAMES, OPTIMIZER_NAMES].map((all) => names.find((name) => all.some((one) => one === name))); // prettier-ignore
  if (ofMethod !== undefined && ofOptimizer !== undefined)
    mistake(`${where} has a rate for the method ${ofMethod} and one for the optimizer ${ofOptimizer}, which meet in one run; give rates of methods, or of optimizers`); // prettier-ignore
  if (rates["default"] !== undefined) return;
  const all: readonly string[] = ofOptimizer === undefined ? spec.vary.method : optimizers;
  const ranks = (name: string): readonly number[] => ranksOf(spec.vary.rank, name);
  const without = all.find((name) => rates[name] === undefined && !ranks(name).every((rank) => `${name}:${rank}` in rates)); // prettier-ignore
  if (without !== undefined) mistake(`${where} has no rate for ${without}, and no default`);
}

/** The method of a rate that is for one rank, "tl6:8", or the name itself. */
function nameWithRank(
  given: string,
  where: string,
  { vary }: SweepSpec,
  mistake: (message: string) => never,
): string {
  const [, name, rank] = /^(.+):(\d+)$/.exec(given) ?? [];
  if (name === undefined) return given;
  if (!METHOD_NAMES.some((one) => one === name))
    mistake(`${where}: there is no method "${name}" in "${given}"; ${suggestion(name, METHOD_NAMES)}`);
  const ranks = vary.method.includes(name) ? ranksOf(vary.rank, name) : allRanks(vary.rank, vary.method);
  if (!ranks.includes(Number(rank)))
    mistake(`${where}: "${given}" is for rank ${rank}, and vary.rank has ${ranks.join(", ")}`);
  return name;
}

/** The keys of a section of the schema, to suggest a name from. */
function keysOf(path: readonly PropertyKey[]): string[] {
  if (path[1] === "tasks") return Object.keys(LEVEL);
  let schema: unknown = SPEC;
  for (const part of path) schema = unwrapped((unwrapped(schema) as z.ZodObject).shape[String(part)]);
  const inner = unwrapped(schema);
  return inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
}

function unwrapped(schema: unknown): unknown {
  let inner = schema;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional)
    inner = inner.unwrap();
  return inner;
}

function unknownKey(key: string, path: readonly PropertyKey[]): string {
  const where = path.length === 0 ? "" : ` in ${path.join(".")}`;
  return `there is no "${key}"${where}; ${suggestion(key, keysOf(path))}`;
}

/** The offset in the text of a value, or of its key; of the innermost part of the path that is there, if it is missing. */
function offsetOf(document: Document, path: readonly PropertyKey[], ofKey: boolean): number | null {
  for (let depth = path.length; depth >= 0; depth--) {
    const parent = document.getIn(path.slice(0, -1), true) ?? document.contents;
    if (ofKey && isMap(parent)) {
      const pair = parent.items.find(({ key }) => isScalar(key) && key.value === path.at(-1));
      if (pair !== undefined && isScalar(pair.key)) return pair.key.range?.[0] ?? null;
    }
    const node = document.getIn(path.slice(0, depth), true) as { range?: readonly number[] } | undefined;
    if (node?.range !== undefined) return node.range[0] ?? null;
  }
  return null;
}
