/** Stochastic gradient descent, as PyTorch computes it. */
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";
import { Optimizer, type OptimizerOptions, type Rule, type State } from "./optimizer.ts";

/** Settings of stochastic gradient descent. */
export interface SGDOptions extends OptimizerOptions {
  /** Default 0: plain descent. */
  readonly momentum?: number;
  /** Added to the gradient as weightDecay · p. Default 0. */
  readonly weightDecay?: number;
}

/** See {@link sgd}. */
export class SGD extends Optimizer {
  protected readonly stateNames: readonly string[];
  readonly #momentum: number;
  readonly #weightDecay: number;

  constructor(parameters: readonly Parameter[], options: SGDOptions) {
    super(parameters, options);
    this.#momentum = options.momentum ?? 0;
    this.#weightDecay = options.weightDecay ?? 0;
    this.stateNames = this.#momentum === 0 ? [] : ["velocity"];
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number): Rule {
    const gradient =
      this.#weightDecay === 0 ? g : g.add(p.mul(this.number("weightDecay", this.#weightDecay)));
    const old = state.velocity;
    const velocity = old ? old.mul(this.number("momentum", this.#momentum)).add(gradient) : gradient;
    return { value: p.sub(velocity.mul(this.number("lr", lr))), state: { velocity } };
  }
}

/** p ← p - lr velocity, velocity ← momentum · velocity + gradient. */
export function sgd(parameters: readonly Parameter[], options: SGDOptions): SGD {
  return new SGD(parameters, options);
}
