/**
 * A sweep as a YAML file describes it: the settings that vary, the settings that do not, and the model and tasks. The error
 * for a mistake names the line, the key and the nearest valid name.
 */
import { isMap, isScalar, type Document } from "yaml";
import { z } from "zod";
import { QUANTIZE_KINDS, type QuantizeKind } from "@tiedlora/models";
import { SCHEDULE_NAMES, type ScheduleName } from "@tiedlora/nn/optim";
import { METHOD_NAMES } from "tiedlora";
import { LEARNING_RATES } from "tiedlora";
import { suggestion } from "tiedlora/internal";
import { TASKS } from "../tasks/index.ts";
import { readYaml, YamlError } from "../yaml.ts";

const named = (what: string, names: readonly string[]): z.ZodType<string> =>
  z.string({ error: `expected the name of a ${what}` }).refine((name) => names.includes(name), {
    error: ({ input }) => `there is no ${what} "${String(input)}"; ${suggestion(String(input), names)}`,
  });

const whole = (min: number): z.ZodType<number> => {
  const error = `expected a whole number of at least ${min}`;
  return z.int({ error }).min(min, { error });
};
const above0: z.ZodType<number> = z
  .number({ error: "expected a number above 0" })
  .min(1e-30, { error: "expected a number above 0, from 1e-30" })
  .max(1e30, { error: "expected a number of at most 1e30" });
const share: z.ZodType<number> = z.number().min(0).lt(1);

/** One value or a list of values. */
const listOf = <T>(item: z.ZodType<T>): z.ZodType<T[]> =>
  z.preprocess(
    (given) => (Array.isArray(given) || given === undefined ? given : [given]),
    z
      .array(item, { error: "expected a value or a list of values" })
      .min(1, { error: "the list is empty; expected at least one value" }),
  );

const METHOD = named("method", METHOD_NAMES);
const SCHEDULE: z.ZodType<ScheduleName> = z.enum(SCHEDULE_NAMES);

/** A learning rate for all methods, or one for each, with `default` for methods that have none. Default: each method's own. */
const RATES = z.union([above0, z.record(z.string(), above0)], {
  error: "expected a number, or one for each method with a default: { default: 0.01, tl1: 0.03 }",
});

const SPEC = z.strictObject({
  name: z.string().default("sweep"),
  on: z.strictObject({
    model: z.string().default("base"),
    quantize: z.enum(QUANTIZE_KINDS).optional(),
    tasks: listOf(
      named(
        "task",
        TASKS.map(({ name }) => name),
      ),
    ),
    data: z.string().optional(),
    seq: whole(2).default(128),
    "loss-only": z.boolean().default(false),
  }),
  out: z.string().min(1, { error: "expected a folder" }),
  search: z
    .union([z.literal("grid"), z.strictObject({ random: whole(1), seed: whole(0).default(0) })], {
      error: "expected grid, or { random: 20 } for 20 of its runs, drawn at random",
    })
    .default("grid"),
  vary: z.strictObject({
    method: listOf(METHOD),
    rank: listOf(whole(1)),
    seed: listOf(whole(0)).default([0]),
    lr: listOf(above0).optional(),
    steps: listOf(whole(1)).optional(),
    batch: listOf(whole(1)).optional(),
    dropout: listOf(share).optional(),
    target: listOf(z.string()).optional(),
  }),
  train: z
    .strictObject({
      steps: whole(1).default(200),
      batch: whole(1).default(16),
      lr: RATES.default(LEARNING_RATES),
      schedule: SCHEDULE.default("cosine"),
      warmup: whole(0).default(20),
      "weight-decay": z.number().min(0).default(0.01),
      clip: above0.default(1),
      dropout: share.default(0),
      target: z.string().default("all-linear"), // as in `train`,
    })
    .prefault({}),
  evaluate: z
    .strictObject({
      every: whole(1).default(50),
      patience: whole(1).optional(),
      train: whole(1).default(4000),
      valid: whole(1).default(100),
      test: whole(1).default(200),
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
    /** "base", the embedded model, or a Hugging Face directory. */
    readonly model: string;
    /** The form to which the weights of linear modules are quantized while the model is loaded: nf4 or int8. */
    readonly quantize?: QuantizeKind | undefined;
    readonly tasks: readonly string[];
    /** The folder that has the files of each task in a subfolder with the task's name. */
    readonly data?: string | undefined;
    /** The most tokens of an example. */
    readonly seq: number;
    /** Measure the loss, generate nothing. */
    readonly "loss-only": boolean;
  };
  /** The folder of results. */
  readonly out: string;
  readonly search: "grid" | { readonly random: number; readonly seed: number };
  /** Lists of values; every combination is a run. */
  readonly vary: {
    readonly method: readonly string[];
    readonly rank: readonly number[];
    readonly seed: readonly number[];
    readonly lr?: readonly number[] | undefined;
    readonly steps?: readonly number[] | undefined;
    readonly batch?: readonly number[] | undefined;
    readonly dropout?: readonly number[] | undefined;
    readonly target?: readonly string[] | undefined;
  };
  readonly train: {
    readonly steps: number;
    readonly batch: number;
    readonly lr: number | Readonly<Record<string, number>>;
    readonly schedule: ScheduleName;
    readonly warmup: number;
    readonly "weight-decay": number;
    readonly clip: number;
    readonly dropout: number;
    readonly target: string;
  };
  readonly evaluate: {
    /** Steps between validations. */
    readonly every: number;
    readonly patience?: number | undefined;
    /** The most examples of each split. */
    readonly train: number;
    readonly valid: number;
    readonly test: number;
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
  if (result.success) return checked(result.data satisfies SweepSpec, file);
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

function checked(spec: SweepSpec, file: string): SweepSpec {
  const { tasks, data } = spec.on;
  const needing = tasks.find((name) => TASKS.find((task) => task.name === name)!.needsFiles);
  if (needing !== undefined && data === undefined) {
    throw new YamlError(
      file,
      null,
      `on.data is missing: the task ${needing} reads files; give the folder that has ${needing}/`,
    );
  }
  const runs = Object.values(spec.vary).reduce((n, list) => n * (list?.length ?? 1), tasks.length);
  if (runs > MAX_COMBINATIONS) {
    const found = `the lists of vary have ${runs} combinations`;
    throw new YamlError(file, null, `${found}; expected at most ${MAX_COMBINATIONS}`);
  }
  const rates = spec.train.lr;
  if (typeof rates === "object") {
    const stray = Object.keys(rates).find(
      (name) => name !== "default" && !METHOD_NAMES.includes(name as never),
    );
    if (stray !== undefined) throw new YamlError(file, null, `train.lr: there is no method "${stray}"`);
    const without = spec.vary.method.find(
      (name) => rates[name] === undefined && rates["default"] === undefined,
    );
    if (without !== undefined)
      throw new YamlError(file, null, `train.lr has no rate for ${without}, and no default`);
  }
  return spec;
}

/** The keys of a section of the schema, to suggest a name from. */
function keysOf(path: readonly PropertyKey[]): string[] {
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
