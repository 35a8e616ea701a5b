/** Losses of single texts: cross-entropy with label smoothing and a z-loss, and the distillation of another model. */
import type { Tensor } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/arguments";
import type { Loss, Outputs } from "../loss.ts";
import type { LanguageModel } from "../../model.ts";
import { checkAbove, checkShare, checkWeight } from "./checks.ts";
import { logProbabilities, meanOver } from "./probabilities.ts";

/** Options of `losses.crossEntropy`. */
export interface CrossEntropyLossOptions {
  /** The share of the target that is spread evenly over the vocabulary, as in PyTorch's label_smoothing. Default: 0. */
  readonly labelSmoothing?: number;
  /** The weight of the z-loss, the mean of log² of the softmax's denominator, which keeps logits small (PaLM: 1e-4). Default: 0. */
  readonly zLoss?: number;
}

/** The mean of -log p over the predicted tokens, which is the loss that `train` has by default, with two additions. */
export function crossEntropy(options: CrossEntropyLossOptions = {}): Loss {
  const names = ["labelSmoothing", "zLoss"];
  const { labelSmoothing = 0, zLoss = 0 } = checkOptions("crossEntropy", options, "{ zLoss: 1e-4 }", names);
  checkShare("crossEntropy: labelSmoothing", labelSmoothing);
  checkWeight("crossEntropy: zLoss", zLoss);
  return {
    name: "cross-entropy",
    reports: labelSmoothing > 0 || zLoss > 0 ? ["nll"] : [],
    examples: "texts",
    over: "tokens",
    compute: ({ logits, targets, mask }) => {
      const nll = meanOver(mask, logProbabilities(logits, targets)).neg();
      const logZ = logits.logSumExp(-1);
      let loss = nll;
      if (labelSmoothing > 0) {
        const even = meanOver(mask, logZ.sub(logits.mean(-1)));
        loss = nll.mul(1 - labelSmoothing).add(even.mul(labelSmoothing));
      }
      if (zLoss > 0) loss = loss.add(meanOver(mask, logZ.square()).mul(zLoss));
      return loss === nll ? { loss } : { loss, metrics: { nll } };
    },
  };
}

/** Options of `losses.distillation`. */
export interface DistillationOptions {
  /** The model to learn from: of the same vocabulary, on the same device. */
  readonly teacher: LanguageModel;
  /** Both distributions are softened by it. Default: 2. */
  readonly temperature?: number;
  /** The weight of the teacher, from 0 to 1; the data has the rest. Default: 0.5. */
  readonly weight?: number;
}

/**
 * Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): weight · T² · KL(teacher at T ‖ model at T) + (1 - weight) · the
 * cross-entropy of the data, as means over the predicted tokens.
 */
export function distillation(options: DistillationOptions): Loss {
  const names = ["teacher", "temperature", "weight"];
  const { teacher, temperature = 2, weight = 0.5 } = checkOptions("distillation", options, "{ teacher }", names); // prettier-ignore
  if (typeof (teacher as Partial<LanguageModel> | undefined)?.loss !== "function")
    refuse("distillation: teacher", teacher, "model", "one, e.g. loadPretrained(directory).model");
  checkAbove("distillation: temperature", temperature);
  checkWeight("distillation: weight", weight);
  if (weight > 1) throw new RangeError(`distillation: weight ${weight} given; expected 0 to 1`);
  return {
    name: "distillation",
    reports: ["nll", "teacher_kl"],
    examples: "texts",
    over: "tokens",
    compute: (outputs) => {
      const { logits, targets, mask } = outputs;
      const nll = meanOver(mask, logProbabilities(logits, targets)).neg();
      const kl = divergence(outputs.logitsOf(teacher), logits, outputs, temperature);
      const loss = kl.mul(weight * temperature ** 2).add(nll.mul(1 - weight));
      return { loss, metrics: { nll, teacher_kl: kl } };
    },
  };
}

/** KL(p ‖ q) of two softmaxes at a temperature, as a mean over the counted positions. */
export function divergence(p: Tensor, q: Tensor, { mask }: Pick<Outputs, "mask">, temperature = 1): Tensor {
  const at = (logits: Tensor): Tensor =>
    (temperature === 1 ? logits : logits.div(temperature)).logSoftmax(-1);
  const [logP, logQ] = [at(p), at(q)];
  return meanOver(mask, logP.exp().mul(logP.sub(logQ)).sum(-1));
}
