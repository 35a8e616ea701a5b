/** Lion (Chen et al. 2023, arXiv 2302.06675): every element moves by the same amount, in the direction of a momentum's sign. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/extend";
import { checkBetas, decayOf, type Rule, type WeightDecay } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of Lion. Its learning rate is three to ten times smaller than AdamW's, and its decay as many times larger. */
export interface LionOptions extends OptimizerOptions {
  /** How much of the momentum is kept in the direction, and in the momentum itself. Default [0.9, 0.99]. */
  readonly betas?: readonly [number, number];
  /** Decoupled decay, p ← p (1 - lr · weightDecay) before the step. Default 0. */
  readonly weightDecay?: WeightDecay;
}

/** See {@link lion}. */
export class Lion extends Optimizer {
  readonly #betas: readonly [number, number];
  readonly #weightDecay: (parameter: Parameter) => number;

  constructor(parameters: readonly Parameter[], options: LionOptions) {
    super(
      parameters,
      checkOptions("Lion", options, "{ lr: 0.0001 }", [...COMMON_SETTINGS, "betas", "weightDecay"]),
    );
    this.#betas = checkBetas("Lion", options.betas ?? [0.9, 0.99]);
    this.#weightDecay = decayOf("Lion", options.weightDecay ?? 0);
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    return { m: shape };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number, _step: number, of: Parameter): Rule {
    const [b1, b2] = this.#betas;
    const mixed = (name: string, beta: number): Tensor =>
      state.m!.mul(this.number(name, beta)).add(g.mul(this.number(`1 - ${name}`, 1 - beta)));
    const decay = this.#weightDecay(of);
    const decayed = decay === 0 ? p : p.mul(this.number(`1 - lr · ${decay}`, 1 - lr * decay));
    const value = decayed.sub(mixed("b1", b1).sign().mul(this.number("lr", lr)));
    return { value, state: { m: mixed("b2", b2) } };
  }
}

/** A Lion optimizer: p ← p (1 - lr · weightDecay) - lr · sign(b1 m + (1 - b1) g), then m ← b2 m + (1 - b2) g. */
export function lion(parameters: readonly Parameter[], options: LionOptions): Lion {
  return new Lion(parameters, options);
}
