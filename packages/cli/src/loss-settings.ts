/** The settings of `train` that choose the loss, and the loss that they mean. */
import type { LanguageModel } from "tiedlora";
import { type ExampleKind, type Loss, losses, REGULARIZER_NAMES } from "tiedlora";
import { number, numbersByName, oneOf, path } from "./kinds.ts";
import { nameOf, type Settings, UsageError } from "./settings.ts";

export const LOSS_NAMES = ["cross-entropy", "distillation", "dpo", "ipo", "hinge", "orpo", "kto"] as const;
export type LossName = (typeof LOSS_NAMES)[number];

export interface LossSettings {
  readonly loss: LossName;
  readonly beta?: number;
  readonly labelSmoothing?: number;
  readonly zLoss?: number;
  readonly teacher?: string;
  readonly temperature?: number;
  readonly teacherWeight?: number;
  readonly desirableWeight?: number;
  readonly undesirableWeight?: number;
  readonly regularize?: Readonly<Record<string, number>>;
}

const group = "loss";

export const LOSS_SETTINGS: Settings<LossSettings> = {
  loss: {
    group,
    kind: oneOf(LOSS_NAMES),
    about:
      `what is minimized: ${LOSS_NAMES.join(", ")}. dpo, ipo, hinge and orpo need pairs (prompt, chosen, rejected), kto answers with a ` +
      "label (prompt, completion, label)",
    fallback: "cross-entropy",
  },
  beta: {
    group,
    kind: number({ above: 0 }),
    about:
      "for preferences: how strongly the model is kept near itself without the adapter; for orpo, the weight of the odds (default: 0.1)",
  },
  labelSmoothing: {
    group,
    kind: number({ min: 0, below: 1 }),
    about:
      "the share of the target that is spread over the vocabulary; with dpo, of pairs taken to be the wrong way around",
  },
  zLoss: {
    group,
    kind: number({ min: 0 }),
    about: "the weight of the z-loss, which keeps logits small: 1e-4 in PaLM",
  },
  teacher: {
    group,
    kind: path("dir"),
    about: "for distillation: the model to learn from, of the same vocabulary",
  },
  temperature: {
    group,
    kind: number({ above: 0 }),
    about: "for distillation: what both distributions are softened by (default: 2)",
  },
  teacherWeight: {
    group,
    kind: number({ min: 0 }),
    about: "for distillation: the weight of the teacher, from 0 to 1; the data has the rest (default: 0.5)",
  },
  desirableWeight: {
    group,
    kind: number({ above: 0 }),
    about: "for kto: the weight of desirable answers (default: 1)",
  },
  undesirableWeight: {
    group,
    kind: number({ above: 0 }),
    about: "for kto: the weight of undesirable answers (default: 1)",
  },
  regularize: {
    group,
    kind: numbersByName,
    about: `weights of what is added to the loss: ${REGULARIZER_NAMES.join(", ")}, e.g. l2=1e-4,kl=0.1`,
  },
};

type Option = Exclude<keyof LossSettings, "loss" | "regularize">;

const PREFERENCES: readonly LossName[] = ["dpo", "ipo", "hinge", "orpo", "kto"];
/** The losses that each option is for. */
const BELONGS: Readonly<Record<Option, readonly LossName[]>> = {
  beta: PREFERENCES,
  labelSmoothing: ["cross-entropy", "dpo"],
  zLoss: ["cross-entropy"],
  teacher: ["distillation"],
  temperature: ["distillation"],
  teacherWeight: ["distillation"],
  desirableWeight: ["kto"],
  undesirableWeight: ["kto"],
};

/** Throws UsageError for an option of another loss, or one that is missing. */
export function checkLoss(settings: LossSettings): void {
  const { loss, teacher, regularize = {} } = settings;
  for (const [key, names] of Object.entries(BELONGS) as [Option, readonly LossName[]][])
    if (settings[key] !== undefined && !names.includes(loss))
      throw new UsageError(`--${nameOf(key)} is given, and --loss is ${loss}; it is for ${names.join(", ")}`);
  if (loss === "distillation" && teacher === undefined)
    throw new UsageError("--loss distillation: --teacher is missing: give the model to learn from");
  const stray = Object.keys(regularize).find(
    (name) => !(REGULARIZER_NAMES as readonly string[]).includes(name),
  );
  if (stray !== undefined)
    throw new UsageError(`--regularize: there is no "${stray}"; there are ${REGULARIZER_NAMES.join(", ")}`);
}

/** What the examples are that a loss needs. */
export function examplesOf({ loss }: Pick<LossSettings, "loss">): ExampleKind {
  if (loss === "kto") return "labeled";
  return PREFERENCES.includes(loss) ? "pairs" : "texts";
}

/** Whether the settings mean the model's own loss, which needs the least memory and can be computed by workers. */
export function isPlain({ loss, labelSmoothing = 0, zLoss = 0, regularize = {} }: LossSettings): boolean {
  return (
    loss === "cross-entropy" && labelSmoothing === 0 && zLoss === 0 && Object.keys(regularize).length === 0
  );
}

/** The loss; undefined for the model's own. */
export function lossFor(settings: LossSettings, teacher: LanguageModel | null): Loss | undefined {
  if (isPlain(settings)) return undefined;
  const own = OWN[settings.loss](settings, teacher);
  const { regularize = {} } = settings;
  return Object.keys(regularize).length === 0 ? own : losses.regularized(own, regularize);
}

/** The options among `values` that are given. */
const given = <T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };

const OWN: Readonly<Record<LossName, (settings: LossSettings, teacher: LanguageModel | null) => Loss>> = {
  "cross-entropy": ({ labelSmoothing, zLoss }) => losses.crossEntropy(given({ labelSmoothing, zLoss })),
  distillation: ({ temperature, teacherWeight: weight }, teacher) =>
    losses.distillation({ teacher: teacher!, ...given({ temperature, weight }) }),
  dpo: ({ beta, labelSmoothing }) => losses.dpo(given({ beta, labelSmoothing })),
  ipo: ({ beta }) => losses.dpo({ kind: "ipo", ...given({ beta }) }),
  hinge: ({ beta }) => losses.dpo({ kind: "hinge", ...given({ beta }) }),
  orpo: ({ beta }) => losses.orpo(given({ beta })),
  kto: ({ beta, desirableWeight, undesirableWeight }) =>
    losses.kto(given({ beta, desirableWeight, undesirableWeight })),
};
