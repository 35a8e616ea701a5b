/** Stochastic gradient descent, as PyTorch computes it. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/extend";
import { checkNumber, type Rule } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of stochastic gradient descent. */
export interface SGDOptions extends OptimizerOptions {
  /** The factor by which the old velocity is kept. Default 0: no momentum, and no state. */
  readonly momentum?: number;
  /** Added to the gradient as weightDecay · p. Default 0. */
  readonly weightDecay?: number;
}

/** See {@link sgd}. */
export class SGD extends Optimizer {
  readonly #momentum: number;
  readonly #weightDecay: number;

  constructor(parameters: readonly Parameter[], options: SGDOptions) {
    super(
      parameters,
      checkOptions("SGD", options, "{ lr: 0.01 }", [...COMMON_SETTINGS, "momentum", "weightDecay"]),
    );
    this.#momentum = options.momentum ?? 0;
    this.#weightDecay = options.weightDecay ?? 0;
    checkNumber("SGD: momentum", this.#momentum, "0.9", this.#momentum >= 0);
    checkNumber("SGD: weightDecay", this.#weightDecay, "0.01", this.#weightDecay >= 0);
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    return this.#momentum === 0 ? {} : { velocity: shape };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number): Rule {
    const gradient =
      this.#weightDecay === 0 ? g : g.add(p.mul(this.number("weightDecay", this.#weightDecay)));
    const old = state.velocity;
    const velocity = old ? old.mul(this.number("momentum", this.#momentum)).add(gradient) : gradient;
    return { value: p.sub(velocity.mul(this.number("lr", lr))), state: old ? { velocity } : {} };
  }
}

/** An SGD optimizer: velocity ← momentum · velocity + gradient + weightDecay · p, then p ← p - lr · velocity. */
export function sgd(parameters: readonly Parameter[], options: SGDOptions): SGD {
  return new SGD(parameters, options);
}
