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
  /** The name of the factor of the last decay: writing it for every parameter of every step would take time. */
  #named = { decay: NaN, name: "" };

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
    const n = this.numbers("AdamW", p.shape, () => ({
      old1: b1,
      new1: 1 - b1,
      old2: b2,
      new2: 1 - b2,
      correction: 1 / Math.sqrt(1 - b2 ** step),
      eps: this.#eps,
      rate: lr / (1 - b1 ** step),
    }));
    const m = state.m!.mul(n.old1).add(g.mul(n.new1));
    const v = state.v!.mul(n.old2).add(g.square().mul(n.new2));
    const denominator = v.sqrt().mul(n.correction).add(n.eps);
    const decayed = decay === 0 ? p : p.mul(this.number(this.#decayName(decay), 1 - lr * decay, p.shape));
    return { value: decayed.sub(m.div(denominator).mul(n.rate)), state: { m, v } };
  }

  #decayName(decay: number): string {
    if (decay !== this.#named.decay) this.#named = { decay, name: `1 - lr · ${decay}` };
    return this.#named.name;
  }
}

/**
 * An AdamW optimizer: p ← p (1 - lr · weightDecay) - lr m̂ / (√v̂ + eps), where m̂ and v̂ are the bias-corrected, exponentially
 * decayed means of the gradient and of its square. Frozen parameters and masked elements keep their value, m and v exactly.
 */
export function adamW(parameters: readonly Parameter[], options: AdamWOptions): AdamW {
  return new AdamW(parameters, options);
}
