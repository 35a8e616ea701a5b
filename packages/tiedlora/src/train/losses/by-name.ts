/** Losses by name, with options that are plain numbers: what a command, a sweep's file or a queue can say of a loss. */
import { checkName, describeArgument } from "@tiedlora/core/arguments";
import type { LanguageModel } from "../../model.ts";
import { given } from "../../given.ts";
import { suggestion } from "../../nearest.ts";
import type { ExampleKind, Loss } from "../loss.ts";
import { crossEntropy, distillation } from "./likelihood.ts";
import { dpo, kto, orpo } from "./preference.ts";
import { REGULARIZER_NAMES, regularized } from "./regularized.ts";

/** The name of a loss: see `lossByName`. */
export type LossName = "cross-entropy" | "distillation" | "dpo" | "ipo" | "hinge" | "orpo" | "kto";

/** Options of the losses that `lossByName` makes; each is for some of them. */
export interface LossOptions {
  /** For preferences: how strongly the model is kept near its reference; for ORPO, the weight of the odds ratio. Default: 0.1. */
  readonly beta?: number | undefined;
  /** For cross-entropy and DPO: see `losses`. Default: 0. */
  readonly labelSmoothing?: number | undefined;
  /** For cross-entropy: the weight of the z-loss. Default: 0. */
  readonly zLoss?: number | undefined;
  /** For distillation: what both distributions are softened by. Default: 2. */
  readonly temperature?: number | undefined;
  /** For distillation: the weight of the teacher. Default: 0.5. */
  readonly teacherWeight?: number | undefined;
  /** For KTO: the weight of desirable answers. Default: 1. */
  readonly desirableWeight?: number | undefined;
  /** For KTO: the weight of undesirable answers. Default: 1. */
  readonly undesirableWeight?: number | undefined;
  /** For any: the weights of regularizers that are added. Default: none. */
  readonly regularize?: Readonly<Record<string, number>> | undefined;
}

type Option = Exclude<keyof LossOptions, "regularize">;

interface Entry {
  readonly examples: ExampleKind;
  readonly options: readonly Option[];
  readonly make: (options: LossOptions, teacher: LanguageModel | null) => Loss;
}

const ENTRIES: { readonly [N in LossName]: Entry } = {
  "cross-entropy": {
    examples: "texts",
    options: ["labelSmoothing", "zLoss"],
    make: ({ labelSmoothing, zLoss }) => crossEntropy(given({ labelSmoothing, zLoss })),
  },
  distillation: {
    examples: "texts",
    options: ["temperature", "teacherWeight"],
    make: ({ temperature, teacherWeight: weight }, teacher) => {
      if (teacher === null) throw new Error("lossByName: distillation needs the model that it learns from");
      return distillation({ teacher, ...given({ temperature, weight }) });
    },
  },
  dpo: {
    examples: "pairs",
    options: ["beta", "labelSmoothing"],
    make: ({ beta, labelSmoothing }) => dpo(given({ beta, labelSmoothing })),
  },
  ipo: {
    examples: "pairs",
    options: ["beta"],
    make: ({ beta }) => dpo({ kind: "ipo", ...given({ beta }) }),
  },
  hinge: {
    examples: "pairs",
    options: ["beta"],
    make: ({ beta }) => dpo({ kind: "hinge", ...given({ beta }) }),
  },
  orpo: { examples: "pairs", options: ["beta"], make: ({ beta }) => orpo(given({ beta })) },
  kto: {
    examples: "labeled",
    options: ["beta", "desirableWeight", "undesirableWeight"],
    make: ({ beta, desirableWeight, undesirableWeight }) =>
      kto(given({ beta, desirableWeight, undesirableWeight })),
  },
};

/** The names of the losses, as a list. */
export const LOSS_NAMES: readonly LossName[] = Object.keys(ENTRIES) as LossName[];

/** What the examples are that a loss needs. */
export function examplesOfLoss(name: LossName): ExampleKind {
  return ENTRIES[name].examples;
}

/** The losses that an option is for. */
export function lossesWith(option: string): readonly LossName[] {
  return LOSS_NAMES.filter((name) => ENTRIES[name].options.some((one) => one === option));
}

/** Whether a loss with these options is the model's own, which needs the least memory: cross-entropy, and nothing else. */
export function isOwnLoss(name: LossName, options: LossOptions): boolean {
  const { labelSmoothing = 0, zLoss = 0, regularize = {} } = options;
  const added = labelSmoothing !== 0 || zLoss !== 0 || Object.keys(regularize).length > 0;
  return name === "cross-entropy" && !added;
}

/**
 * The loss of a name: "cross-entropy", "distillation", "dpo", "ipo", "hinge" (the last two are kinds of DPO), "orpo" or "kto", with
 * regularizers if `regularize` names some. Throws for an option of another loss, and for a name that is none.
 * @param teacher the model that "distillation" learns from
 */
export function lossByName(
  name: LossName,
  options: LossOptions = {},
  teacher: LanguageModel | null = null,
): Loss {
  checkName("lossByName", name, LOSS_NAMES);
  const { regularize = {}, ...own } = options;
  for (const [key, value] of Object.entries(own)) {
    const losses = lossesWith(key);
    if (losses.length === 0)
      throw new Error(`lossByName: there is no option "${key}"; ${suggestion(key, OPTION_NAMES)}`);
    if (value !== undefined && !losses.includes(name))
      throw new Error(`lossByName: ${key} ${describeArgument(value)} is given for ${name}; it is for ${losses.join(", ")}`); // prettier-ignore
  }
  const loss = ENTRIES[name].make(own, teacher);
  return Object.keys(regularize).length === 0 ? loss : regularized(loss, regularize);
}

const OPTION_NAMES = [...new Set(Object.values(ENTRIES).flatMap(({ options }) => options)), "regularize"];

/** The name of a regularizer that is none, among those given; null if all are. */
export function strayRegularizer(weights: Readonly<Record<string, number>> = {}): string | null {
  return Object.keys(weights).find((name) => !REGULARIZER_NAMES.some((one) => one === name)) ?? null;
}
