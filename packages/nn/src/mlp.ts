/** The feed-forward parts of transformers, and dropout. */
import { type Key, random, type Tensor } from "@tiedlora/core";
import type { InitOptions } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

/** The nonlinearities by name. */
export type Activation = "relu" | "gelu" | "gelu_tanh" | "silu" | "tanh" | "sigmoid";

/** Activations by name; "gelu" is exact, "gelu_tanh" GPT-2's approximation. */
export const ACTIVATIONS: { readonly [A in Activation]: (x: Tensor) => Tensor } = {
  relu: (x) => x.relu(),
  gelu: (x) => x.gelu(),
  gelu_tanh: (x) => x.gelu("tanh"),
  silu: (x) => x.silu(),
  tanh: (x) => x.tanh(),
  sigmoid: (x) => x.sigmoid(),
};

/** What a new feed-forward part is made of. */
export interface MLPOptions extends InitOptions {
  readonly activation?: Activation;
  readonly bias?: boolean;
}

/** down(activation(up(x))). */
export class MLP extends Module {
  readonly up: Linear;
  readonly down: Linear;
  readonly activation: Activation;

  constructor(up: Linear, down: Linear, activation: Activation) {
    super();
    this.up = up;
    this.down = down;
    this.activation = activation;
  }

  static init(dim: number, hidden: number, options: MLPOptions): MLP {
    const up = Linear.init(dim, hidden, { ...options, key: options.key.fold("up") });
    const down = Linear.init(hidden, dim, { ...options, key: options.key.fold("down") });
    return new MLP(up, down, options.activation ?? "gelu");
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(ACTIVATIONS[this.activation](this.up.forward(x)));
  }
}

/** down(activation(gate(x)) · up(x)): SwiGLU with "silu" (Shazeer 2020). */
export class GatedMLP extends Module {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly activation: Activation;

  constructor(gate: Linear, up: Linear, down: Linear, activation: Activation = "silu") {
    super();
    this.gate = gate;
    this.up = up;
    this.down = down;
    this.activation = activation;
  }

  static init(dim: number, hidden: number, options: MLPOptions): GatedMLP {
    const linear = (name: string, i: number, o: number): Linear =>
      Linear.init(i, o, { ...options, key: options.key.fold(name) });
    const down = linear("down", hidden, dim);
    return new GatedMLP(linear("gate", dim, hidden), linear("up", dim, hidden), down, options.activation);
  }

  forward(x: Tensor): Tensor {
    return this.down.forward(ACTIVATIONS[this.activation](this.gate.forward(x)).mul(this.up.forward(x)));
  }
}

/** Zeroes each element with probability `p` and scales the rest by 1/(1-p). The same key drops the same elements. */
export function dropout(x: Tensor, p: number, key: Key): Tensor {
  if (!(p >= 0 && p < 1)) throw new RangeError(`dropout: probability ${p} is not in 0 … 1 (1 excluded)`);
  if (p === 0) return x;
  const kept = random.bernoulli(key, x.shape, 1 - p).cast("f32");
  return x.mul(kept.mul(1 / (1 - p)));
}

/** Dropout while training; give a fresh key for every call. */
export class Dropout extends Module {
  readonly p: number;

  constructor(p: number) {
    super();
    this.p = p;
  }

  forward(x: Tensor, key: Key): Tensor {
    return this.training ? dropout(x, this.p, key) : x;
  }
}
