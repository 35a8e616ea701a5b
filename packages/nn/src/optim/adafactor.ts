/** Adafactor (Shazeer and Stern 2018, arXiv 1804.04235), as PyTorch computes it: second moments take a row and a column a matrix. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/extend";
import { checkNumber, decayOf, type Rule, type WeightDecay } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of Adafactor. */
export interface AdafactorOptions extends OptimizerOptions {
  /** Step t takes the share t^decay of the new squares. Default -0.8. */
  readonly decay?: number;
  /** The least mean of second moments, and the least root mean square of a parameter. Default [2^-23, 0.001]. */
  readonly eps?: readonly [number, number];
  /** Updates whose root mean square is above this are scaled down to it. Default 1. */
  readonly clipUpdate?: number;
  /** Whether the rate is that share of the parameter's root mean square, as in the paper. Default true. */
  readonly relative?: boolean;
  /** Decoupled decay, p ← p (1 - lr · weightDecay) before the step. Default 0. */
  readonly weightDecay?: WeightDecay;
}

/** See {@link adafactor}. */
export class Adafactor extends Optimizer {
  readonly #decay: number;
  readonly #eps: readonly [number, number];
  readonly #clipUpdate: number;
  readonly #relative: boolean;
  readonly #weightDecay: (parameter: Parameter) => number;

  constructor(parameters: readonly Parameter[], options: AdafactorOptions) {
    const names = [...COMMON_SETTINGS, "decay", "eps", "clipUpdate", "relative", "weightDecay"];
    super(parameters, checkOptions("Adafactor", options, "{ lr: 0.01 }", names));
    this.#decay = options.decay ?? -0.8;
    this.#eps = options.eps ?? [2 ** -23, 1e-3];
    this.#clipUpdate = options.clipUpdate ?? 1;
    this.#relative = options.relative ?? true;
    if (typeof this.#relative !== "boolean")
      refuse("Adafactor: relative", this.#relative, "boolean", "true or false");
    this.#weightDecay = decayOf("Adafactor", options.weightDecay ?? 0);
    if (!(typeof this.#decay === "number" && this.#decay < 0 && Number.isFinite(this.#decay)))
      throw new RangeError(`Adafactor: decay is ${String(this.#decay)}; give a number below 0, e.g. -0.8`);
    if (!Array.isArray(this.#eps) || this.#eps.length !== 2)
      throw new TypeError(`Adafactor: eps is ${String(this.#eps)}; give a pair, e.g. [1e-7, 0.001]`);
    for (const eps of this.#eps as number[]) checkNumber("Adafactor: eps", eps, "0.001", eps > 0);
    checkNumber("Adafactor: clipUpdate", this.#clipUpdate, "1", this.#clipUpdate > 0, Infinity);
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    if (shape.length < 2) return { v: shape };
    return { row: shape.slice(0, -1), column: [...shape.slice(0, -2), shape.at(-1)!] };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number, step: number, of: Parameter): Rule {
    const fresh = this.number("1 - b2", step ** this.#decay);
    const mixed = (old: Tensor, now: Tensor): Tensor => old.add(now.sub(old).mul(fresh));
    const [e1, e2] = this.#eps;
    const squares = g.square();
    const next: Record<string, Tensor> =
      p.rank < 2
        ? { v: mixed(state.v!, squares) }
        : { row: mixed(state.row!, squares.mean(-1)), column: mixed(state.column!, squares.mean(-2)) };
    const { row, column } = next;
    const v =
      next.v ?? product(row!, column!).div(row!.mean(-1, { keepdims: true }).maximum(e1).unsqueeze(-1));
    const update = g.mul(v.maximum(e1 * e1).rsqrt());
    const size = (x: Tensor): Tensor => x.square().mean().sqrt();
    const clipped = size(update)
      .mul(this.number("1 / clipUpdate", 1 / this.#clipUpdate))
      .maximum(1);
    const share = this.number("rate", Math.min(lr, 1 / Math.sqrt(step)));
    const rate = this.#relative ? size(p).maximum(e2).mul(share) : share;
    const decay = this.#weightDecay(of);
    const decayed = decay === 0 ? p : p.mul(this.number(`1 - lr · ${decay}`, 1 - lr * decay));
    return { value: decayed.sub(update.mul(rate.div(clipped))), state: next };
  }
}

const product = (row: Tensor, column: Tensor): Tensor => row.unsqueeze(-1).mul(column.unsqueeze(-2));

/**
 * An Adafactor optimizer. The second moment of a matrix is row · columnᵀ / mean(row), of the means of the squares of its rows and
 * columns; the rate is relative to the parameter unless told otherwise: min(lr, 1/√t) · max(eps₂, rms(p)).
 */
export function adafactor(parameters: readonly Parameter[], options: AdafactorOptions): Adafactor {
  return new Adafactor(parameters, options);
}
