/** The settings of `train` that choose the loss, and the loss that they mean. */
import { type Command, Option } from "commander";
import type { LanguageModel } from "tiedlora";
import {
  type ExampleKind,
  type Loss,
  LOSS_NAMES,
  lossByName,
  type LossName,
  REGULARIZER_NAMES,
} from "tiedlora";
import { examplesOfLoss, isOwnLoss, lossesWith, strayRegularizer } from "tiedlora/internal";
import { number, numbersByName, oneOf, path } from "./kinds.ts";
import { entries, flagParser, nameOf, type Settings, UsageError } from "./settings.ts";

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

/** Adds the flags of losses to a command that has no file of settings; its defaults are none. */
export function addLossFlags(command: Command): Command {
  for (const [key, { kind, about }] of entries(LOSS_SETTINGS)) {
    const option = new Option(`--${nameOf(key)} ${kind.placeholder}`, about);
    command.addOption(option.argParser(flagParser(kind)));
  }
  return command;
}

/** The options of losses by their keys; a teacher is a model that is loaded. */
const OPTIONS = [
  "beta",
  "labelSmoothing",
  "zLoss",
  "teacher",
  "temperature",
  "teacherWeight",
  "desirableWeight",
  "undesirableWeight",
] as const satisfies readonly (keyof LossSettings)[];

/** Throws UsageError for an option of another loss, or one that is missing. */
export function checkLoss(settings: LossSettings): void {
  const { loss, teacher } = settings;
  for (const key of OPTIONS) {
    const names: readonly string[] = key === "teacher" ? ["distillation"] : lossesWith(key);
    if (settings[key] !== undefined && !names.includes(loss))
      throw new UsageError(`--${nameOf(key)} is given, and --loss is ${loss}; it is for ${names.join(", ")}`);
  }
  if (loss === "distillation" && teacher === undefined)
    throw new UsageError("--loss distillation: --teacher is missing: give the model to learn from");
  const stray = strayRegularizer(settings.regularize);
  if (stray !== null)
    throw new UsageError(`--regularize: there is no "${stray}"; there are ${REGULARIZER_NAMES.join(", ")}`);
}

/** What the examples are that a loss needs. */
export function examplesOf({ loss }: Pick<LossSettings, "loss">): ExampleKind {
  return examplesOfLoss(loss);
}

/** Whether the settings mean the model's own loss, which needs the least memory. */
export function isPlain(settings: LossSettings): boolean {
  return isOwnLoss(settings.loss, settings);
}

/** The loss; undefined for the model's own. */
export function lossFor(settings: LossSettings, teacher: LanguageModel | null): Loss | undefined {
  if (isPlain(settings)) return undefined;
  const { beta, labelSmoothing, zLoss, temperature, teacherWeight, desirableWeight, undesirableWeight, regularize } = settings; // prettier-ignore
  const weights = { desirableWeight, undesirableWeight, teacherWeight };
  return lossByName(settings.loss, { beta, labelSmoothing, zLoss, temperature, ...weights, regularize }, teacher); // prettier-ignore
}
