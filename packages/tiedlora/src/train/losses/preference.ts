/**
 * Losses for preferences: DPO and its variants, ORPO, and KTO. The reference of DPO and KTO is the model without its adapter, run in
 * the same program, so that at the first step its answers are exactly as likely as the model's.
 */
import { type Tensor, where } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/arguments";
import type { AdapterChoice } from "@tiedlora/nn";
import type { Loss, Outputs } from "../loss.ts";
import { checkAbove, checkShare } from "./checks.ts";
import { rowMeans, rowSums, split } from "./probabilities.ts";

/** Options of `losses.dpo`. */
export interface DpoOptions {
  /** How strongly the model is kept near the reference. Default: 0.1. */
  readonly beta?: number;
  /**
   * The function of the margin m, the difference of the log ratios of the chosen and the rejected answer: "sigmoid", -log σ(β m), as in
   * DPO (Rafailov et al. 2023, arXiv 2305.18290); "hinge", max(0, 1 - β m), as in SLiC (Zhao et al. 2023); "ipo",
   * (m - 1 / 2β)² with the mean over tokens in place of the sum, as in TRL (Azar et al. 2023). Default: "sigmoid".
   */
  readonly kind?: DpoKind;
  /** The share of pairs that are assumed to be the wrong way around, for "sigmoid" alone (conservative DPO). Default: 0. */
  readonly labelSmoothing?: number;
  /** The adapters of the reference. Default: none, the model as it was before training. */
  readonly reference?: AdapterChoice;
}

/** The kinds of DPO. */
export type DpoKind = "sigmoid" | "hinge" | "ipo";

const DPO: Readonly<Record<DpoKind, (margin: Tensor, beta: number, smoothing: number) => Tensor>> = {
  sigmoid: (m, beta, smoothing) => {
    const scaled = m.mul(beta);
    const right = scaled.neg().softplus();
    return smoothing === 0 ? right : right.mul(1 - smoothing).add(scaled.softplus().mul(smoothing));
  },
  hinge: (m, beta) => m.mul(-beta).add(1).relu(),
  ipo: (m, beta) => m.sub(1 / (2 * beta)).square(),
};

/** Direct preference optimization: makes chosen answers likelier than rejected ones, relative to a reference. */
export function dpo(options: DpoOptions = {}): Loss {
  const names = ["beta", "kind", "labelSmoothing", "reference"];
  const { beta = 0.1, kind = "sigmoid", labelSmoothing = 0, reference = [] } = checkOptions("dpo", options, "{ beta: 0.1 }", names); // prettier-ignore
  checkAbove("dpo: beta", beta);
  checkShare("dpo: labelSmoothing", labelSmoothing);
  if (!(kind in DPO)) throw new RangeError(`dpo: kind "${kind}"; expected ${Object.keys(DPO).join(", ")}`);
  if (labelSmoothing > 0 && kind !== "sigmoid")
    throw new RangeError(`dpo: labelSmoothing is for the kind "sigmoid"; "${kind}" has none`);
  const ofRows = kind === "ipo" ? rowMeans : rowSums;
  return {
    name: kind === "sigmoid" ? "dpo" : kind,
    reports: REWARDS,
    examples: "pairs",
    over: "examples",
    compute: (outputs) => {
      const [chosen, rejected] = split(ratios(outputs, ofRows, reference));
      const margin = chosen.sub(rejected);
      return {
        loss: DPO[kind](margin, beta, labelSmoothing).mean(),
        metrics: rewards(chosen.mul(beta), rejected.mul(beta)),
      };
    },
  };
}

/** log p by the model, less log p by the reference, of the answer in each row. */
function ratios(outputs: Outputs, ofRows: typeof rowSums, reference: AdapterChoice): Tensor {
  return ofRows(outputs.logits, outputs).sub(ofRows(outputs.reference(reference), outputs));
}

const REWARDS = ["accuracy", "margin", "chosen_reward", "rejected_reward"] as const;

/** What is reported of rewards: their means, the mean difference, and the share of pairs in which the chosen answer has more. */
function rewards(chosen: Tensor, rejected: Tensor): Readonly<Record<(typeof REWARDS)[number], Tensor>> {
  const margin = chosen.sub(rejected);
  return {
    accuracy: margin.gt(0).cast("f32").mean(),
    margin: margin.mean(),
    chosen_reward: chosen.mean(),
    rejected_reward: rejected.mean(),
  };
}

/** Options of `losses.orpo`. */
export interface OrpoOptions {
  /** The weight λ of the odds ratio. Default: 0.1. */
  readonly beta?: number;
}

/**
 * Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): -log P(chosen) - λ log σ(log odds(chosen) - log
 * odds(rejected)), where log P is the mean of log p over an answer's tokens. It needs no reference.
 */
export function orpo(options: OrpoOptions = {}): Loss {
  const { beta = 0.1 } = checkOptions("orpo", options, "{ beta: 0.1 }", ["beta"]);
  checkAbove("orpo: beta", beta);
  return {
    name: "orpo",
    reports: [...REWARDS, "log_odds_ratio"],
    examples: "pairs",
    over: "examples",
    compute: (outputs) => {
      const [chosen, rejected] = split(rowMeans(outputs.logits, outputs));
      const ratio = logOdds(chosen).sub(logOdds(rejected));
      const metrics = { ...rewards(chosen.mul(beta), rejected.mul(beta)), log_odds_ratio: ratio.mean() };
      return { loss: chosen.neg().add(ratio.neg().softplus().mul(beta)).mean(), metrics };
    },
  };
}

/** The largest log p that odds are computed of: those of 1 are infinite. */
const NEARLY_CERTAIN = -1e-6;

/** log(p / (1 - p)) from log p; 1 - p is computed without cancellation on both sides of p = 1/2. */
function logOdds(logP: Tensor): Tensor {
  const x = logP.minimum(NEARLY_CERTAIN);
  const large = x.gt(-Math.LN2);
  // each branch sees values of its own range, so that neither has a gradient that is not finite
  const near = where(large, x, -Math.LN2).expm1().neg().log();
  const far = where(large, -Math.LN2, x).exp().neg().log1p();
  return x.sub(where(large, near, far));
}

/** Options of `losses.kto`. */
export interface KtoOptions {
  /** How strongly the model is kept near the reference. Default: 0.1. */
  readonly beta?: number;
  /** The weights of desirable and undesirable answers; for balance, their numbers times the weights should be about equal. Default: 1. */
  readonly desirableWeight?: number;
  readonly undesirableWeight?: number;
  /** The adapters of the reference. Default: none. */
  readonly reference?: AdapterChoice;
}

/**
 * Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306): answers with a label in place of pairs. The reference point
 * is estimated as in TRL, for each batch, from the answers of other prompts (the second rows), without a gradient.
 */
export function kto(options: KtoOptions = {}): Loss {
  const names = ["beta", "desirableWeight", "undesirableWeight", "reference"];
  const { beta = 0.1, desirableWeight = 1, undesirableWeight = 1, reference = [] } = checkOptions("kto", options, "{ beta: 0.1 }", names); // prettier-ignore
  for (const [name, value] of Object.entries({ beta, desirableWeight, undesirableWeight }))
    checkAbove(`kto: ${name}`, value);
  return {
    name: "kto",
    reports: ["accuracy", "margin", "kl"],
    examples: "labeled",
    over: "examples",
    compute: (outputs) => {
      const { device } = outputs.model;
      const [answer, other] = split(ratios(outputs, rowSums, reference));
      const kl = other.mean().relu().detach();
      const { labels } = outputs.batch;
      const sign = device.tensor(Float32Array.from(labels!, (good) => (good ? 1 : -1)));
      const weight = device.tensor(Float32Array.from(labels!, (good) => (good ? desirableWeight : undesirableWeight))); // prettier-ignore
      const margin = answer.sub(kl).mul(sign).mul(beta);
      return {
        loss: margin.neg().sigmoid().mul(weight).mean(), // 1 - σ(x) = σ(-x)
        metrics: { accuracy: margin.gt(0).cast("f32").mean(), margin: margin.mean(), kl },
      };
    },
  };
}
