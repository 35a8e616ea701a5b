/** Reads the results of runs from the text of their files, and checks them. */
import { FormatError, isRecord, parseJsonObject } from "@tiedlora/core";
import { QUANTIZE_KINDS } from "@tiedlora/models";
import { z } from "zod";
import { SCHEDULE_NAMES } from "@tiedlora/nn/optim";
import { LOSS_NAMES, METHOD_NAMES, OPTIMIZER_NAMES, START_NAMES } from "tiedlora";
import { BASELINE, type Outcome, type RunConfig, type RunFailure } from "./config.ts";

const count = z.int().min(0);
const text = z.string().max(100_000);
/** JSON has no infinity: an infinite number was written as null. */
const maybeInfinite = z.preprocess((given) => (given === null ? Infinity : given), z.union([z.number(), z.literal(Infinity)])); // prettier-ignore
const points = z.array(z.tuple([count, z.number()])).max(1_000_000);

/** "1,2 0,2": numbers of single examples, as many for each. */
const EXAMPLES = z.string().max(10_000_000).refine(isTable, { error: "not numbers of examples, as many for each" }); // prettier-ignore

function isTable(given: string): boolean {
  const rows = given.split(" ").map((row) => row.split(","));
  return rows.every((row) => row.length === rows[0]!.length && row.every((cell) => cell !== "" && Number.isFinite(Number(cell)))); // prettier-ignore
}

/** One for each field of a config: what is not named here would be dropped when a result is read. */
const FIELDS = {
  model: text,
  quantize: z.enum(QUANTIZE_KINDS).optional(),
  task: text,
  data: text.nullable(),
  method: z.enum([...METHOD_NAMES, BASELINE]),
  rank: count,
  init: z.enum(START_NAMES).optional(),
  methodOptions: z.record(z.string(), z.unknown()).optional(),
  rankSchedule: z
    .object({ rank: count, warmup: count.optional(), final: count.optional(), every: count.optional() })
    .optional(),
  target: text,
  dropout: z.number().min(0).lt(1),
  seed: count,
  steps: count,
  until: count.optional(),
  batch: count,
  seq: count,
  lr: z.number().min(0),
  schedule: z.enum(SCHEDULE_NAMES),
  warmup: count,
  weightDecay: z.number().min(0),
  optimizer: z.enum(OPTIMIZER_NAMES).optional(),
  beta1: z.number().min(0).lt(1).optional(),
  beta2: z.number().min(0).lt(1).optional(),
  loss: z.enum(LOSS_NAMES).optional(),
  beta: z.number().min(0).optional(),
  labelSmoothing: z.number().min(0).lt(1).optional(),
  zLoss: z.number().min(0).optional(),
  teacher: text.optional(),
  temperature: z.number().min(0).optional(),
  teacherWeight: z.number().min(0).max(1).optional(),
  regularize: z.record(z.string(), z.number().min(0)).optional(),
  ema: z.number().min(0).lt(1).optional(),
  loraPlus: z.number().min(0).optional(),
  rates: z.record(z.string(), z.number().min(0)).optional(),
  decays: z.record(z.string(), z.number().min(0)).optional(),
  clip: z.number(),
  every: count,
  patience: count.nullable(),
  examples: z.object({ train: count, valid: count, test: count }),
  testSeed: count.optional(),
  lossOnly: z.boolean(),
  exampleLosses: z.literal(true).optional(),
} satisfies { readonly [K in keyof Required<RunConfig>]: z.ZodType<RunConfig[K]> };

const CONFIG = z.object(FIELDS) satisfies z.ZodType<RunConfig>;

const RUNG = z.object({
  id: text,
  config: CONFIG,
  trainable: count,
  total: count,
  steps: count,
  bestStep: count,
  curve: points,
  valid: points,
  seconds: z.number().min(0),
  duration: z.number().min(0).optional(),
  tokensPerSecond: z.number().min(0),
  device: text,
  note: text.nullable(),
});

const WHOLE = RUNG.extend({
  test: z.object({
    count,
    skipped: count,
    loss: z.number(),
    perplexity: maybeInfinite,
    scores: z.record(text, z.number()),
    examples: z
      .object({ questions: text, scores: EXAMPLES.optional(), losses: EXAMPLES.optional() })
      .optional(),
  }),
  samples: z.array(z.object({ prompt: text, text, answer: text })),
});

const trains = {
  path: ["trainable"],
  error: "0, of a method that trains",
};
const hasTrained = ({ config, trainable }: Outcome): boolean => config.method === BASELINE || trainable > 0;

const RESULTS = {
  whole: WHOLE.refine(hasTrained, trains),
  rung: RUNG.refine(hasTrained, trains),
};

const FAILURE = z.object({ id: text, config: CONFIG, message: text });

/** Reads the result of a run. Throws FormatError, which names the wrong field. `id` is the run's id in the file's name. */
export function parseResult(json: string, file: string, id: string): Outcome {
  return checked((given) => RESULTS[isBeginning(given) ? "rung" : "whole"], json, file, id);
}

/** Whether the file of a result is that of a run that ended at `until`. */
const isBeginning = ({ config }: Readonly<Record<string, unknown>>): boolean =>
  isRecord(config) && config["until"] !== undefined;

/** As `parseResult`, for a run that failed. */
export function parseFailure(json: string, file: string, id: string): RunFailure {
  return checked(() => FAILURE, json, file, id);
}

function checked<T extends { readonly id: string }>(
  schemaOf: (given: Readonly<Record<string, unknown>>) => z.ZodType<T>,
  json: string,
  file: string,
  id: string,
): T {
  const hint = "The file is damaged: delete it to run it again.";
  let result: z.ZodSafeParseResult<T>;
  try {
    const given = parseJsonObject(json, file, 16);
    result = schemaOf(given).safeParse(given);
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    throw new FormatError({ file, found: cause.found, expected: cause.expected, hint });
  }
  if (!result.success) {
    const { path, message } = result.error.issues[0]!;
    throw new FormatError({ file, tensor: path.join(".") || undefined, found: message, expected: "the result of a run", hint }); // prettier-ignore
  }
  if (result.data.id === id) return result.data;
  throw new FormatError({ file, tensor: "id", found: JSON.stringify(result.data.id), expected: `"${id}", as the file is named`, hint }); // prettier-ignore
}
