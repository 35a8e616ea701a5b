/** AdamW (Loshchilov and Hutter 2019), as PyTorch computes it. */
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";
import { Optimizer, type OptimizerOptions, type Rule, runtime } from "./optimizer.ts";

export interface AdamWOptions extends OptimizerOptions {
  /** Decay rates of the two moments. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added outside the square root. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled: p ← p (1 - lr · weightDecay) before the step. Default 0.01. */
  readonly weightDecay?: number;
}

/** See {@link adamW}. */
export class AdamW extends Optimizer {
  protected readonly stateNames: readonly string[] = ["m", "v"];
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;
  readonly #weightDecay: number;

  constructor(parameters: readonly Parameter[], options: AdamWOptions) {
    super(parameters, options);
    [this.#beta1, this.#beta2] = options.betas ?? [0.9, 0.999];
    this.#eps = options.eps ?? 1e-8;
    this.#weightDecay = options.weightDecay ?? 0.01;
  }

  protected rule(p: Tensor, g: Tensor, state: ReadonlyMap<string, Tensor>, lr: number, step: number): Rule {
    const [b1, b2] = [this.#beta1, this.#beta2];
    const m = state
      .get("m")!
      .mul(runtime(b1))
      .add(g.mul(runtime(1 - b1)));
    const v = state
      .get("v")!
      .mul(runtime(b2))
      .add(g.square().mul(runtime(1 - b2)));
    const denominator = v
      .sqrt()
      .mul(runtime(1 / Math.sqrt(1 - b2 ** step)))
      .add(runtime(this.#eps));
    const decayed = p.mul(runtime(1 - lr * this.#weightDecay));
    const value = decayed.sub(m.div(denominator).mul(runtime(lr / (1 - b1 ** step))));
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
