/** SM3 (Anil et al. 2019, arXiv 1901.11150), in its second form: the squares that were seen take one number for each row and column. */
import { type Parameter, type Shape, type Tensor, where } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/extend";
import { checkNumber, type Rule } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of SM3. */
export interface SM3Options extends OptimizerOptions {
  /** The factor by which the old direction is kept; at 0, no memory is used for it. Default 0.9. */
  readonly momentum?: number;
}

/** See {@link sm3}. */
export class SM3 extends Optimizer {
  readonly #momentum: number;

  constructor(parameters: readonly Parameter[], options: SM3Options) {
    super(parameters, checkOptions("SM3", options, "{ lr: 0.1 }", [...COMMON_SETTINGS, "momentum"]));
    this.#momentum = options.momentum ?? 0.9;
    checkNumber("SM3: momentum", this.#momentum, "0.9, below 1", this.#momentum >= 0 && this.#momentum < 1);
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    const axes = axesOf(shape).map((length, axis) => [`axis${axis}`, [length]] as const);
    return { ...Object.fromEntries(axes), ...(this.#momentum > 0 && { m: shape }) };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number): Rule {
    const axes = axesOf(p.shape);
    const along = (axis: number): Tensor =>
      state[`axis${axis}`]!.reshape(axes.map((length, i) => (i === axis ? length : 1)));
    const bound = axes.map((_, axis) => along(axis)).reduce((a, b) => a.minimum(b));
    const v = bound.add(g.square().reshape(axes));
    const next = axes.map((_, axis): [string, Tensor] => {
      const others = axes.flatMap((_length, i) => (i === axis ? [] : [i]));
      return [`axis${axis}`, others.length === 0 ? v : v.max(others)];
    });
    const scaled = where(v.gt(0), g.reshape(axes).div(v.sqrt()), 0).reshape(p.shape);
    const mixed = this.#momentum > 0 ? this.#mixed(state.m!, scaled) : scaled;
    return {
      value: p.sub(mixed.mul(this.number("lr", lr))),
      state: { ...Object.fromEntries(next), ...(this.#momentum > 0 && { m: mixed }) },
    };
  }

  #mixed(m: Tensor, scaled: Tensor): Tensor {
    const kept = m.mul(this.number("momentum", this.#momentum));
    return kept.add(scaled.mul(this.number("1 - momentum", 1 - this.#momentum)));
  }
}

/** The lengths of the axes; a single number has one axis of length 1. */
const axesOf = (shape: Shape): Shape => (shape.length === 0 ? [1] : shape);

/**
 * An SM3 optimizer: v = min over the axes of what was seen + g², m ← momentum · m + (1 - momentum) g / √v, p ← p - lr · m. Each axis
 * keeps, for each of its indices, the largest v.
 */
export function sm3(parameters: readonly Parameter[], options: SM3Options): SM3 {
  return new SM3(parameters, options);
}
