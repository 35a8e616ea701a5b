/** AdamW (Loshchilov and Hutter 2019), as PyTorch computes it. */
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";
import { Optimizer, type OptimizerOptions, type Rule } from "./optimizer.ts";

/** Settings of AdamW. */
export interface AdamWOptions extends OptimizerOptions {
  /** Decay rates of the two moments. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added outside the square root. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled: p ← p (1 - lr · weightDecay) before the step; one number, or one for each parameter. Default 0.01. */
  readonly weightDecay?: number | ((parameter: Parameter) => number);
}

/** See {@link adamW}. */
export class AdamW extends Optimizer {
  protected readonly stateNames: readonly string[] = ["m", "v"];
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;
  readonly #weightDecay: (parameter: Parameter) => number;

  constructor(parameters: readonly Parameter[], options: AdamWOptions) {
    super(parameters, options);
    [this.#beta1, this.#beta2] = options.betas ?? [0.9, 0.999];
    this.#eps = options.eps ?? 1e-8;
    const decay = options.weightDecay ?? 0.01;
    this.#weightDecay = typeof decay === "number" ? () => decay : decay;
  }

  protected rule(
    p: Tensor,
    g: Tensor,
    state: ReadonlyMap<string, Tensor>,
    lr: number,
    step: number,
    of: Parameter,
  ): Rule {
    const [b1, b2] = [this.#beta1, this.#beta2];
    const decay = this.#weightDecay(of);
    const mean = (old: Tensor, fresh: Tensor, beta: "b1" | "b2", value: number): Tensor =>
      old.mul(this.number(beta, value)).add(fresh.mul(this.number(`1 - ${beta}`, 1 - value)));
    const m = mean(state.get("m")!, g, "b1", b1);
    const v = mean(state.get("v")!, g.square(), "b2", b2);
    const correction = this.number("1 / √(1 - b2^t)", 1 / Math.sqrt(1 - b2 ** step));
    const denominator = v.sqrt().mul(correction).add(this.number("eps", this.#eps));
    const decayed = p.mul(this.number(`1 - lr · ${decay}`, 1 - lr * decay));
    const rate = this.number("lr / (1 - b1^t)", lr / (1 - b1 ** step));
    const value = decayed.sub(m.div(denominator).mul(rate));
    return {
      value,
      state: new Map([
        ["m", m],
        ["v", v],
      ]),
    };
  }
}

/**
 * p ← p (1 - lr wd) - lr m̂ / (√v̂ + eps), with m and v the decayed means of the gradient and its square, bias-corrected.
 * Frozen parameters and masked elements keep value, m and v exactly.
 */
export function adamW(parameters: readonly Parameter[], options: AdamWOptions): AdamW {
  return new AdamW(parameters, options);
}
