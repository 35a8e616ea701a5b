/**
 * Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): the momentum of a matrix, made orthogonal by five iterations
 * of Newton and Schulz. Parameters that are no matrices take AdamW's steps, as its authors do it.
 */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkOptions, refuse } from "@tiedlora/core/extend";
import { checkBetas, checkNumber, decayOf, type Rule, type WeightDecay } from "./checks.ts";
import { COMMON_SETTINGS, Optimizer, type OptimizerOptions } from "./optimizer.ts";
import type { State, StateShapes } from "./state.ts";

/** Settings of Muon. */
export interface MuonOptions extends OptimizerOptions {
  /** The factor by which the old momentum is kept. Default 0.95. */
  readonly momentum?: number;
  /** Whether the gradient is mixed once more with the new momentum. Default true. */
  readonly nesterov?: boolean;
  /** Decoupled decay, p ← p (1 - lr · weightDecay) before the step. Default 0.1. */
  readonly weightDecay?: WeightDecay;
  /**
   * What the rate of a matrix is multiplied with: "rms" (default), 0.2 √max(rows, columns), with which an update is as large as one
   * of AdamW, so that both take one rate (Liu et al. 2025, arXiv 2502.16982); "shape", √max(1, rows / columns), as in the original.
   */
  readonly scale?: "rms" | "shape";
  /** AdamW's betas, for parameters that are no matrices. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
}

const SCALES: Readonly<Record<NonNullable<MuonOptions["scale"]>, (rows: number, columns: number) => number>> =
  {
    rms: (rows, columns) => 0.2 * Math.sqrt(Math.max(rows, columns)),
    shape: (rows, columns) => Math.sqrt(Math.max(1, rows / columns)),
  };

const STEPS = 5;
/** The quintic whose iteration moves all singular values toward 1, fast rather than exactly. */
const [a, b, c] = [3.4445, -4.775, 2.0315];

/** See {@link muon}. */
export class Muon extends Optimizer {
  readonly #momentum: number;
  readonly #nesterov: boolean;
  readonly #weightDecay: (parameter: Parameter) => number;
  readonly #scale: "rms" | "shape";
  readonly #betas: readonly [number, number];

  constructor(parameters: readonly Parameter[], options: MuonOptions) {
    const names = [...COMMON_SETTINGS, "momentum", "nesterov", "weightDecay", "scale", "betas"];
    super(parameters, checkOptions("Muon", options, "{ lr: 0.001 }", names));
    this.#momentum = options.momentum ?? 0.95;
    this.#nesterov = options.nesterov ?? true;
    this.#weightDecay = decayOf("Muon", options.weightDecay ?? 0.1);
    this.#scale = options.scale === undefined ? "rms" : options.scale;
    this.#betas = checkBetas("Muon", options.betas ?? [0.9, 0.999]);
    const isShare = this.#momentum >= 0 && this.#momentum < 1;
    checkNumber("Muon: momentum", this.#momentum, "0.95, below 1", isShare);
    if (typeof this.#nesterov !== "boolean")
      refuse("Muon: nesterov", this.#nesterov, "boolean", "true or false");
    if (!Object.hasOwn(SCALES, this.#scale)) refuse("Muon: scale", this.#scale, "scale", '"rms" or "shape"');
  }

  protected stateShapes({ shape }: Parameter): StateShapes {
    return shape.length === 2 ? { m: shape } : { m: shape, v: shape };
  }

  protected rule(p: Tensor, g: Tensor, state: State, lr: number, step: number, of: Parameter): Rule {
    const decay = this.#weightDecay(of);
    const decayed = decay === 0 ? p : p.mul(this.number(`1 - lr · ${decay}`, 1 - lr * decay));
    if (p.rank !== 2) return this.#adam(decayed, g, state, lr, step);
    const mu = this.number("momentum", this.#momentum);
    const rest = this.number("1 - momentum", 1 - this.#momentum);
    const m = state.m!.mul(mu).add(g.mul(rest));
    const direction = orthogonalized(this.#nesterov ? g.mul(rest).add(m.mul(mu)) : m);
    const [rows, columns] = p.shape as [number, number];
    const rate = this.number(`lr of [${rows}, ${columns}]`, lr * SCALES[this.#scale](rows, columns));
    return { value: decayed.sub(direction.mul(rate)), state: { m } };
  }

  #adam(p: Tensor, g: Tensor, state: State, lr: number, step: number): Rule {
    const [b1, b2] = this.#betas;
    const m = state.m!.mul(this.number("b1", b1)).add(g.mul(this.number("1 - b1", 1 - b1)));
    const v = state.v!.mul(this.number("b2", b2)).add(g.square().mul(this.number("1 - b2", 1 - b2)));
    const correction = this.number("1 / √(1 - b2^t)", 1 / Math.sqrt(1 - b2 ** step));
    const rate = this.number("lr / (1 - b1^t)", lr / (1 - b1 ** step));
    return { value: p.sub(m.div(v.sqrt().mul(correction).add(1e-8)).mul(rate)), state: { m, v } };
  }
}

/** About the nearest matrix with orthonormal rows or columns: singular values between 0.7 and 1.2. */
function orthogonalized(g: Tensor): Tensor {
  const [rows, columns] = g.shape as [number, number];
  let x = rows > columns ? g.transpose() : g;
  x = x.div(x.square().sum().sqrt().maximum(1e-7));
  for (let i = 0; i < STEPS; i++) {
    const gram = x.matmul(x.transpose());
    x = x.mul(a).add(gram.mul(b).add(gram.matmul(gram).mul(c)).matmul(x));
  }
  return rows > columns ? x.transpose() : x;
}

/**
 * A Muon optimizer: m ← momentum · m + (1 - momentum) g, p ← p (1 - lr · weightDecay) - lr · scale · orthogonal(m), for matrices.
 */
export function muon(parameters: readonly Parameter[], options: MuonOptions): Muon {
  return new Muon(parameters, options);
}
