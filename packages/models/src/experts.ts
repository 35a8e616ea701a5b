/**
 * Mixtures of experts: a router chooses a few of many MLPs for each token. In the exact and simple form: every expert computes
 * every token, and its output is multiplied by the router's weight, which is 0 for most. That costs the time and the
 * activations of all experts.
 */
import { type Parameter, type Tensor, where } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

/** The experts of a decoder. */
export interface Mixture {
  /** The number of experts in a layer, and how many of them a token has. */
  readonly count: number;
  readonly perToken: number;
  /** The width of an expert. */
  readonly width: number;
  /** Whether the weights of a token's experts are scaled to add up to 1. */
  readonly normalized: boolean;
  /** Per layer: whether it has experts; otherwise it has one MLP. */
  readonly layers: readonly boolean[];
}

/** A score for each expert. Not a linear: as in transformers 5, adapters leave it alone. */
export class Router extends nn.Module {
  /** [experts, hidden]. */
  readonly weight: Parameter;

  constructor(weight: Parameter) {
    super();
    this.weight = weight;
  }

  /**
   * x [..., hidden] -> the weight of each expert [..., experts]: the softmax of all scores at the `perToken` largest ones (of
   * equal ones the first), 0 at the others.
   */
  forward(x: Tensor, { count, perToken, normalized }: Mixture): Tensor {
    const scores = x.matmul(this.weight.transpose());
    let rest = scores.detach();
    let chosen: Tensor | null = null;
    for (let k = 0; k < perToken; k++) {
      const largest = rest.argmax(-1).oneHot(count, "bool");
      chosen = chosen === null ? largest : chosen.or(largest);
      rest = where(largest, -Infinity, rest);
    }
    const weights = where(chosen!, scores.softmax(-1), 0);
    return normalized ? weights.div(weights.sum(-1, { keepdims: true })) : weights;
  }
}
