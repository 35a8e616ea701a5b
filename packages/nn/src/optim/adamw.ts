/** AdamW (Loshchilov and Hutter 2019), as PyTorch computes it. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/extend";
import { checkBetas, checkNumber, decayOf, type Rule, type WeightDecay } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of AdamW. */
export interface AdamWOptions extends OptimizerOptions {
  /** Decay rates of the first and second moment, in [0, 1). Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added to the denominator, outside the square root. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled decay, p ← p (1 - lr · weightDecay) before the step: a number, or a function of the parameter. Default 0.01. */
  readonly weightDecay?: WeightDecay;
}

/** See {@link adamW}. */
export class AdamW extends Optimizer {
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;
  readonly #weightDecay: (parameter: Parameter) => number;

  constructor(parameters: readonly Parameter[], options: AdamWOptions) {
    const names = [...COMMON_SETTINGS, "betas", "eps", "weightDecay"];
    super(parameters, checkOptions("AdamW", options, "{ lr: 0.001 }", names));
    [this.#beta1, this.#beta2] = checkBetas("AdamW", options.betas ?? [0.9, 0.999]);
    this.#eps = options.eps ?? 1e-8;
    this.#weightDecay = decayOf("AdamW", options.weightDecay ?? 0.01);
    checkNumber("AdamW: eps", this.#eps, "1e-8", this.#eps >= 0);
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    return { m: shape, v: shape };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number, step: number, of: Parameter): Rule {
    const [b1, b2] = [this.#beta1, this.#beta2];
    const decay = this.#weightDecay(of);
    const number = (name: string, value: number): Tensor => this.number(name, value, p.shape);
    const m = state.m!.mul(number("b1", b1)).add(g.mul(number("1 - b1", 1 - b1)));
    const v = state.v!.mul(number("b2", b2)).add(g.square().mul(number("1 - b2", 1 - b2)));
    const correction = number("1 / √(1 - b2^t)", 1 / Math.sqrt(1 - b2 ** step));
    const denominator = v.sqrt().mul(correction).add(number("eps", this.#eps));
    const decayed = decay === 0 ? p : p.mul(number(`1 - lr · ${decay}`, 1 - lr * decay));
    const rate = number("lr / (1 - b1^t)", lr / (1 - b1 ** step));
    return { value: decayed.sub(m.div(denominator).mul(rate)), state: { m, v } };
  }
}

/**
 * An AdamW optimizer: p ← p (1 - lr · weightDecay) - lr m̂ / (√v̂ + eps), where m̂ and v̂ are the bias-corrected, exponentially
 * decayed means of the gradient and of its square. Frozen parameters and masked elements keep their value, m and v exactly.
 */
export function adamW(parameters: readonly Parameter[], options: AdamWOptions): AdamW {
  return new AdamW(parameters, options);
}
