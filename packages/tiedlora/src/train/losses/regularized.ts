/** Regularizers, by name: what is added to a loss to keep the adapter small, orthogonal, or near the model without it. */
import type { Tensor } from "@tiedlora/core";
import type { Adapter } from "../../adapter/adapter.ts";
import { suggestion } from "../../nearest.ts";
import type { Loss, Outputs } from "../loss.ts";
import { checkWeight } from "./checks.ts";
import { divergence } from "./likelihood.ts";

type Regularizer = (outputs: Outputs, adapter: Adapter) => Tensor;

/** The name of a regularizer: see `REGULARIZERS`. */
export type RegularizerName = "l2" | "l1" | "orthogonal" | "kl";

const REGULARIZERS: Readonly<Record<RegularizerName, Regularizer>> = {
  /** Σ p² over all trained elements. */
  l2: (_, adapter) => sum(adapter.trainableParameters().map((p) => p.square().sum())),
  /** Σ |p| over all trained elements. */
  l1: (_, adapter) => sum(adapter.trainableParameters().map((p) => p.abs().sum())),
  /** Σ ‖A Aᵀ - I‖² over the trained matrices, each along its shorter side, as in AdaLoRA (Zhang et al. 2023, arXiv 2303.10512). */
  orthogonal: (_, adapter) => sum(matricesOf(adapter).map(orthogonality)),
  /** KL(model ‖ model without its adapter), as a mean over the predicted tokens. */
  kl: (outputs) => divergence(outputs.logits, outputs.reference(), outputs),
};

/** The names of all regularizers: l2, l1, orthogonal, kl. */
export const REGULARIZER_NAMES: readonly RegularizerName[] = Object.keys(REGULARIZERS) as RegularizerName[];

/**
 * `loss` with regularizers added, each times its weight: `losses.regularized(losses.crossEntropy(), { l2: 1e-4, kl: 0.1 })`. Each is
 * reported by its name. Throws if there is no regularizer of a name; the error suggests one.
 */
export function regularized(loss: Loss, weights: Readonly<Partial<Record<RegularizerName, number>>>): Loss {
  const given = Object.entries(weights) as [RegularizerName, number][];
  for (const [name, weight] of given) {
    if (!Object.hasOwn(REGULARIZERS, name))
      throw new Error(`there is no regularizer "${name}"; ${suggestion(name, REGULARIZER_NAMES)}`);
    checkWeight(`regularized: ${name}`, weight);
  }
  return {
    ...loss,
    reports: [...(loss.reports ?? []), ...given.map(([name]) => name)],
    compute: (outputs) => {
      const value = loss.compute(outputs);
      const { loss: own, metrics } = "loss" in value ? value : { loss: value, metrics: {} };
      const { adapter } = outputs;
      if (adapter === null)
        throw new Error(
          `${given.map(([name]) => name).join(", ")}: regularizers are of an adapter; give one`,
        );
      const added = given.map(
        ([name, weight]) => [name, weight, REGULARIZERS[name](outputs, adapter)] as const,
      );
      return {
        loss: added.reduce((total, [, weight, term]) => total.add(term.mul(weight)), own),
        metrics: { ...metrics, ...Object.fromEntries(added.map(([name, , term]) => [name, term])) },
      };
    },
  };
}

function matricesOf(adapter: Adapter): Tensor[] {
  const matrices = adapter.trainableParameters().filter(({ shape }) => shape.length === 2);
  if (matrices.length > 0) return matrices;
  throw new Error(`orthogonal: ${adapter.method.name} trains no matrix; take another regularizer`);
}

function orthogonality(matrix: Tensor): Tensor {
  const [rows, columns] = matrix.shape as [number, number];
  const gram = rows <= columns ? matrix.matmul(matrix.transpose()) : matrix.transpose().matmul(matrix);
  const eye = Float32Array.from({ length: gram.size }, (_, i) => Number(i % (gram.shape[0]! + 1) === 0));
  return gram
    .sub(matrix.device!.tensor(eye, { shape: gram.shape }))
    .square()
    .sum();
}

function sum(terms: readonly Tensor[]): Tensor {
  return terms.reduce((a, b) => a.add(b));
}
